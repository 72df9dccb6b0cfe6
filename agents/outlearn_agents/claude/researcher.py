"""The Claude researcher: a conversation with the model, its tool calls made in parallel, all of it in a transcript."""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

import anthropic
import anyio

from outlearn.errors import BudgetError, ConfigError
from outlearn.researcher import Session, ToolAnswer
from outlearn_agents.claude.assembly import Reply
from outlearn_agents.claude.meter import Meter
from outlearn_agents.claude.model import CACHE, Model, MustBeginAnewError
from outlearn_agents.claude.options import ClaudeOptions
from outlearn_agents.claude.tools import ToolDesk, result_block
from outlearn_agents.claude.transcript import Block, Transcript
from outlearn_agents.directions import read_prompt
from outlearn_agents.spending.ledger import Ledger, SetAsideError
from outlearn_agents.spending.prices import HOW_TO_PRICE, NONE, find_price

MAX_IDLE = 3
LAST_CALL_SECONDS = 25.0
ROOM_SECONDS = 1.0
"""Between two looks whether others have freed what a call needs."""
FINISH_SHARE = 0.15
NO_KEY = "Claude needs a key: set ANTHROPIC_API_KEY (and ANTHROPIC_BASE_URL for another endpoint), or "
CUT_OFF = "not called: the answer was cut off at its token limit; make the call again, shorter"


class ClaudeResearcher:
    """Lets Claude do the research.

    Args:
        options: see `ClaudeOptions`.
        client: for gateways; default: an SDK client with the environment's endpoint and key. Closed after the session.

    Raises:
        ConfigError: an option is wrong, the model's price is not known, or there is no key.
    """

    def __init__(
        self, options: Mapping[str, str] | None = None, client: anthropic.AsyncAnthropic | None = None
    ) -> None:
        self._options = ClaudeOptions.parse(options or {})
        _check_price(self._options)
        self._client = client or make_client("use `--researcher offline`")

    async def research(self, session: Session) -> None:
        """Work until the model has finished, or the session or a budget is used up.

        Raises:
            ConfigError: the API refuses the key, the model or the request, it never answered, or the model's price is
                not known.
            BudgetError: there was no room for a single turn.
        """
        ledger = Ledger(session.spending or session.folder / "spending.sqlite")
        try:
            meter = Meter(ledger, session.agent, self._options)
            desk = ToolDesk(session.tools, await session.tools.list(), session.stop)
            try:
                async with self._client as client:
                    await _Conversation(session, self._options, client, meter, desk).run()
            except (BudgetError, ConfigError):  # it will not come back for its last turn
                meter.leave()
                raise
            meter.leave()
        finally:
            ledger.close()


def _check_price(options: ClaudeOptions) -> None:
    """Nobody spends an unknown sum by mistake."""
    if options.price != NONE and find_price(options.model, options.price) is None:
        raise ConfigError(
            f"no price of model {options.model!r} is known; {HOW_TO_PRICE}; or, to count tokens and hours only, "
            f"`--option price={NONE}`"
        )


def make_client(instead: str) -> anthropic.AsyncAnthropic:
    """An SDK client.

    Raises:
        ConfigError: the environment has no credentials, and the message says what to do `instead`; or a wrong endpoint.
    """
    try:
        client = anthropic.AsyncAnthropic(max_retries=0)
    except anthropic.CredentialsError as error:
        raise ConfigError(f"{NO_KEY}{instead} ({error})") from error
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        raise ConfigError(NO_KEY + instead)
    if client.base_url.scheme not in ("http", "https"):
        raise ConfigError(f"ANTHROPIC_BASE_URL {str(client.base_url)!r} must begin with http:// or https://")
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
        meter: Meter,
        desk: ToolDesk,
    ) -> None:
        self._session = session
        self._options = options
        self._meter = meter
        self._desk = desk
        self._finish_seconds = min(options.finish_seconds, FINISH_SHARE * session.stop.seconds_left)
        system = read_prompt("brief").format(agent=session.agent, direction=session.direction)
        self._prompt: dict[str, Any] = {
            "system": [{"type": "text", "text": system, "cache_control": CACHE}],
            "tools": desk.definitions,
        }
        overhead = len(json.dumps(self._prompt).encode())
        self._transcript = Transcript(session.folder / "transcript.jsonl", overhead)
        self._model = Model(client, options, meter, self._transcript, session.say, self._pause)
        self._call_scope = anyio.CancelScope()
        self._is_heard = False
        """Whether the API has answered in this session."""

    async def run(self) -> None:
        """Take turns until the end, and one more to finish."""
        await self._begin()
        idle, over = 0, ""
        try:
            while idle < MAX_IDLE and not self._must_finish():
                step = await self._turn_with_room()
                if step is _Next.END:
                    return
                idle = idle + 1 if step is _Next.IDLE else 0
        except BudgetError as error:
            over = f"over: {error}"
            self._transcript.note(str(error))
            self._session.say(over)
            if not self._transcript.turns:
                raise
        if idle < MAX_IDLE and not self._transcript.is_finished:
            await self._finish()
        if over:  # its last words say why it left
            self._session.say(over)

    async def _begin(self) -> None:
        """Open the conversation, or pick up an interrupted one."""
        if not self._meter.knows_price:
            self._session.say(f"no price of {self._options.model!r} is known: its dollars are not counted")
        if self._transcript.last and self._transcript.model not in ("", self._options.model):
            self._start_over(f"the model was {self._transcript.model}")  # which another one cannot go on from
        if calls := self._transcript.open_calls():
            excuse = read_prompt("interrupted")
            self._tell(await self._desk.answer_interrupted(calls, excuse))
        elif self._transcript.last is None:
            self._say("begin")
        elif self._transcript.last["role"] == "assistant":
            self._say("continue")

    async def _finish(self) -> None:
        """Let the agent write down what it knows."""
        self._say("finish")
        self._session.say("finishing")
        try:
            await self._turn(is_last=True)
        except BudgetError as error:
            self._transcript.note(f"no last turn: {error}")
        self._transcript.finish()

    def _must_finish(self) -> bool:
        most = self._options.max_turns
        spent = most is not None and self._transcript.turns >= most
        return spent or self._session.stop.seconds_left <= self._finish_seconds

    async def _turn_with_room(self) -> _Next:
        """Take a turn, once others have freed what it needs. Raises SetAsideError where time is over first."""
        is_told = False
        while True:
            try:
                return await self._turn()
            except SetAsideError as error:
                if not is_told:
                    self._transcript.note(f"waiting: {error}")
                    self._session.log.info(f"waiting: {error}")
                is_told = True
                await self._session.wait(str(error), ROOM_SECONDS)
                if self._must_finish():
                    raise

    async def _turn(self, is_last: bool = False) -> _Next:
        """Ask the model once and do what it says."""
        try:
            reply = await self._ask(is_last)
        except MustBeginAnewError as error:
            if len(self._transcript) < 2:  # it is the prompt that is too long
                raise ConfigError(f"the API refuses model {self._options.model!r}: {error}") from error
            self._start_over(str(error))
            return _Next.GO_ON
        if reply is None:
            return _Next.END
        self._is_heard = True
        self._transcript.count(self._options.model, reply.stop_reason, reply.usage)
        if reply.stop_reason == "refusal":
            self._transcript.note(f"refused: {reply.content}")
            self._say("refused")
            return _Next.IDLE
        if reply.stop_reason == "model_context_window_exceeded":
            self._start_over("the context window is full")
            return _Next.GO_ON
        content = sendable(reply.content)
        if content:
            self._transcript.say("assistant", content)
        return await self._act(reply.stop_reason, content)

    async def _ask(self, is_last: bool) -> Reply | None:
        """The model's reply; None where time is over first. Raises ConfigError where it never gave one."""
        with anyio.move_on_after(self._session.stop.seconds_left + LAST_CALL_SECONDS) as self._call_scope:
            return await self._model.ask(self._prompt, is_last=is_last, show=self._session.on_status)
        if self._model.trouble and not self._is_heard:
            raise ConfigError(f"the API did not answer before the time was over: {self._model.trouble}")
        self._session.say("out of time")
        return None

    async def _pause(self, why: str, seconds: float) -> None:
        """Wait before a call is made again. Who was asked to stop tries once more, for `LAST_CALL_SECONDS`."""
        stop = self._session.stop
        self._session.log.info(why)
        self._session.tell_waiting(why)
        self._heed_stop()
        await (stop.sleep(seconds) if stop.seconds_left else anyio.sleep(seconds))
        self._heed_stop()

    def _heed_stop(self) -> None:
        if self._session.stop.asked:
            latest = anyio.current_time() + LAST_CALL_SECONDS
            self._call_scope.deadline = min(self._call_scope.deadline, latest)

    async def _act(self, stop_reason: str | None, content: list[Block]) -> _Next:
        calls = [block for block in content if block["type"] == "tool_use"]
        self._show(content, calls)
        if calls and stop_reason == "max_tokens":
            excuse = ToolAnswer(text=CUT_OFF, is_error=True)
            self._tell([result_block(call, excuse) for call in calls])
        elif calls:
            self._tell(await self._desk.answer_all(calls))
        elif stop_reason not in ("pause_turn", "compaction") or not content:
            self._say("continue")
            return _Next.IDLE
        return _Next.GO_ON

    def _start_over(self, why: str) -> None:
        """Begin a new conversation; the agent's notebook has what it knew."""
        self._transcript.restart(why)
        self._say("over")

    def _say(self, prompt: str) -> None:
        minutes = round(self._session.stop.seconds_left / 60)
        left = self._meter.tokens_left()
        tokens = "any number of" if left is None else f"{left:,}"
        text = read_prompt(prompt).format(task=self._session.task, minutes=minutes, tokens=tokens)
        self._tell([{"type": "text", "text": text}])

    def _tell(self, content: list[Block]) -> None:
        """Append a message of ours, with a line for each budget that has become scarce."""
        scarce = [one for one in self._meter.scarce() if one.key not in self._transcript.warned]
        if scarce:
            text = read_prompt("scarce").format(budgets=" ".join(one.text for one in scarce))
            content = [*content, {"type": "text", "text": text}]
        self._transcript.say("user", content)
        for one in scarce:
            self._transcript.warn(one.key)

    def _show(self, content: list[Block], calls: list[Block]) -> None:
        """Tell the operator what the model says or does."""
        words = " ".join(block["text"] for block in content if block["type"] == "text").split()
        names = ", ".join(call["name"].replace("__", ".") for call in calls)
        doing = f"{names}: {' '.join(words)}" if names and words else names or " ".join(words) or "thinking"
        self._session.say(doing[:200], turn=self._transcript.turns, tokens=self._transcript.tokens)


def sendable(content: list[Block]) -> list[Block]:
    """The blocks of an answer that the API takes back: without empty texts and thoughts that were cut off."""
    return [
        block
        for block in content
        if not (block["type"] == "text" and not block["text"].strip())
        and not (block["type"] == "thinking" and not block.get("signature"))
    ]
