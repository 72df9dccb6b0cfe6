"""The Claude researcher: a loop over the Messages API with parallel tool calls, prompt caching and a transcript."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import anthropic
import anyio
from anthropic.types import Message as Reply

from outlearn.errors import ConfigError
from outlearn.researcher import Session, ToolAnswer
from outlearn_agents.claude.options import ClaudeOptions
from outlearn_agents.claude.tools import ToolDesk, result_block
from outlearn_agents.claude.transcript import Block, Transcript
from outlearn_agents.directions import read_prompt

CACHE: Any = {"type": "ephemeral"}
MAX_IDLE = 3
MAX_PAUSE_SECONDS = 120.0
LAST_CALL_SECONDS = 25.0
FINISH_SHARE = 0.15
NO_KEY = (
    "the claude researcher needs a key: set ANTHROPIC_API_KEY (and ANTHROPIC_BASE_URL for another endpoint), "
    "or use `--researcher offline`"
)
CUT_OFF = "not called: the answer was cut off at its token limit; make the call again, shorter"


class ClaudeResearcher:
    """Lets Claude do the research.

    Args:
        options: see `ClaudeOptions`.
        client: for tests and gateways; default: an SDK client with the environment's endpoint and key.

    Raises:
        ConfigError: an option is wrong, or there is no key.
    """

    def __init__(
        self, options: Mapping[str, str] | None = None, client: anthropic.AsyncAnthropic | None = None
    ) -> None:
        self._options = ClaudeOptions.parse(options or {})
        self._client = client or make_client()

    async def research(self, session: Session) -> None:
        """Work until the model has finished or the session, the turns or the tokens are used up.

        Raises:
            ConfigError: the API refuses the key, the model or the request.
        """
        transcript = Transcript(session.folder / "transcript.jsonl")
        desk = ToolDesk(session.tools, await session.tools.list(), session.stop)
        await _Conversation(session, self._options, self._client, transcript, desk).run()


def make_client() -> anthropic.AsyncAnthropic:
    """An SDK client. Raises ConfigError where the environment has no credentials."""
    try:
        client = anthropic.AsyncAnthropic(max_retries=0)
    except anthropic.CredentialsError as error:
        raise ConfigError(f"{NO_KEY} ({error})") from error
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        raise ConfigError(NO_KEY)
    return client


class _Next(Enum):
    GO_ON = "go on"
    IDLE = "idle"
    END = "end"


class _Conversation:
    """One session's conversation with the model."""

    def __init__(
        self,
        session: Session,
        options: ClaudeOptions,
        client: anthropic.AsyncAnthropic,
        transcript: Transcript,
        desk: ToolDesk,
    ) -> None:
        self._session = session
        self._options = options
        self._client = client
        self._transcript = transcript
        self._desk = desk
        self._finish_seconds = min(options.finish_seconds, FINISH_SHARE * session.stop.seconds_left)
        self._system = read_prompt("brief").format(agent=session.agent, direction=session.direction)

    async def run(self) -> None:
        """Take turns until the end, and one more to finish."""
        await self._begin()
        idle = 0
        while idle < MAX_IDLE and not self._must_finish():
            step = await self._turn()
            if step is _Next.END:
                return
            idle = idle + 1 if step is _Next.IDLE else 0
        if idle < MAX_IDLE:
            self._say("finish")
            self._session.say("finishing")
            await self._turn()

    async def _begin(self) -> None:
        """Open the conversation, or pick up an interrupted one."""
        if calls := self._transcript.open_calls():
            excuse = read_prompt("interrupted")
            self._transcript.say("user", await self._desk.answer_interrupted(calls, excuse))
        elif not self._transcript.messages:
            self._say("begin")
        else:
            self._say("continue")

    def _must_finish(self) -> bool:
        spent = self._transcript.turns >= self._options.max_turns or self._transcript.tokens >= self._options.max_tokens
        return spent or self._session.stop.seconds_left <= self._finish_seconds

    async def _turn(self) -> _Next:
        """Ask the model once and do what it says."""
        reply = await self._ask()
        if reply is None:
            return _Next.END
        content = [block.to_dict() for block in reply.content]
        self._transcript.count(reply.model, reply.stop_reason, reply.usage.to_dict())
        if reply.stop_reason == "refusal":
            self._transcript.note(f"refused: {content}")
            self._say("refused")
            return _Next.IDLE
        if reply.stop_reason == "model_context_window_exceeded":
            self._start_over("the context window is full")
            return _Next.GO_ON
        if content:
            self._transcript.say("assistant", content)
        return await self._act(reply.stop_reason, content)

    async def _act(self, stop_reason: str | None, content: list[Block]) -> _Next:
        calls = [block for block in content if block["type"] == "tool_use"]
        self._show(content, calls)
        if calls and stop_reason == "max_tokens":
            excuse = ToolAnswer(text=CUT_OFF, is_error=True)
            self._transcript.say("user", [result_block(call, excuse) for call in calls])
        elif calls:
            self._transcript.say("user", await self._desk.answer_all(calls))
        elif stop_reason != "pause_turn":
            self._say("continue")
            return _Next.IDLE
        return _Next.GO_ON

    async def _ask(self) -> Reply | None:
        """The model's reply; waits while the API is overloaded. None where time is over first.

        Raises:
            ConfigError: the API refuses the request for good.
        """
        pause = self._options.retry_seconds
        with anyio.move_on_after(self._session.stop.seconds_left + LAST_CALL_SECONDS):
            while True:
                try:
                    return await self._create()
                except (anthropic.APIConnectionError, anthropic.InternalServerError, anthropic.RateLimitError) as error:
                    self._session.say(f"the API does not answer ({type(error).__name__}); trying again")
                    self._transcript.note(f"{type(error).__name__}: {error}")
                    await anyio.sleep(pause)
                    pause = min(2 * pause, MAX_PAUSE_SECONDS)
                except anthropic.APIStatusError as error:
                    if not _is_too_long(error) or len(self._transcript.messages) < 2:
                        raise ConfigError(f"the API refuses model {self._options.model!r}: {error.message}") from error
                    self._start_over(error.message)
        self._session.say("out of time")
        return None

    async def _create(self) -> Reply:
        system: Any = [{"type": "text", "text": self._system, "cache_control": CACHE}]
        tools: Any = self._desk.definitions
        messages: Any = self._transcript.messages
        return await self._client.messages.create(
            model=self._options.model,
            max_tokens=self._options.answer_tokens,
            system=system,
            tools=tools,
            messages=messages,
            cache_control=CACHE,
        )

    def _start_over(self, why: str) -> None:
        """Begin a new conversation; the agent's notebook has what it knew."""
        self._transcript.restart(why)
        self._say("over")

    def _say(self, prompt: str) -> None:
        minutes = round(self._session.stop.seconds_left / 60)
        tokens = max(0, self._options.max_tokens - self._transcript.tokens)
        text = read_prompt(prompt).format(task=self._session.task, minutes=minutes, tokens=tokens)
        self._transcript.say("user", [{"type": "text", "text": text}])

    def _show(self, content: list[Block], calls: list[Block]) -> None:
        """Tell the operator what the model says or does."""
        words = " ".join(block["text"] for block in content if block["type"] == "text").split()
        names = ", ".join(call["name"].replace("__", ".") for call in calls)
        doing = f"{names}: {' '.join(words)}" if names and words else names or " ".join(words) or "thinking"
        self._session.say(doing[:200], turn=self._transcript.turns, tokens=self._transcript.tokens)


def _is_too_long(error: anthropic.APIStatusError) -> bool:
    return isinstance(error, anthropic.ContentTooLargeError) or "prompt is too long" in error.message.lower()
