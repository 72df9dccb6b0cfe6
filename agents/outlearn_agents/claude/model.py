"""The model, as a conversation sees it: asked once, it answers once, whatever that takes; and every try is paid for."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
from anthropic.types import MessageTokensCount

from outlearn.errors import BudgetError, ConfigError
from outlearn_agents.claude.assembly import Reply
from outlearn_agents.claude.features import Features
from outlearn_agents.claude.meter import Meter, Size
from outlearn_agents.claude.options import ClaudeOptions
from outlearn_agents.claude.request import Body
from outlearn_agents.claude.stream import BrokenCallError, NotSentError, stream
from outlearn_agents.claude.transcript import Transcript

CACHE: Any = {"type": "ephemeral"}
MAX_PAUSE_SECONDS = 120.0
RESULTS_TOKENS = 15_000
"""Room for tool results between a call and a last turn after it."""
COUNT_MARGIN = 1.05
TRY_AGAIN = (408, 409, 429)
CANNOT_GO_ON = ("prompt is too long", "bound to a different conversation")
"""What the API says of a conversation; the latter of its thoughts, where tools or brief are not as they were."""


class MustBeginAnewError(Exception):
    """The conversation is too long, or goes on from a summary or from thoughts that the endpoint does not take."""


class Model:
    """Asks the model of the options about a transcript's conversation.

    Args:
        say: tells the operator what is going on.
        pause: waits for some seconds, and tells the operator why.
    """

    def __init__(
        self,
        client: anthropic.AsyncAnthropic,
        options: ClaudeOptions,
        meter: Meter,
        transcript: Transcript,
        say: Callable[[str], None],
        pause: Callable[[str, float], Awaitable[None]],
    ) -> None:
        self._client = client
        self._options = options
        self._meter = meter
        self._transcript = transcript
        self._say = say
        self._pause = pause
        self._features = Features(options)
        self._counted: tuple[int, int | None] = (0, None)
        self.trouble = ""
        """Why the last call got no answer, or nothing where it got one."""

    async def ask(self, prompt: dict[str, Any], *, is_last: bool, show: Callable[[str], None]) -> Reply:
        """The answer to the conversation; `prompt` is the system prompt and the tools.

        Raises:
            BudgetError: a budget has no room for the call. But for the last turn, one is left to be made then.
            SetAsideError: the same, as long as others keep what they have set aside: ask again after a while.
            MustBeginAnewError: the conversation must begin anew.
            ConfigError: the API refuses the request for good.
        """
        backoff = self._options.retry_seconds
        while True:
            call, size = await self._reserve(prompt, is_last)
            body, headers = self._body(prompt, size), self._features.headers()
            try:
                reply = await stream(self._client, body, headers, show, self._options.silence_seconds)
            except BrokenCallError as error:
                self._settle_broken(call, size, error.usage)
                why, wish = str(error), 0.0
            except NotSentError as error:
                self._meter.cancel(call)
                why, wish = f"cannot be reached: {error}", 0.0
            except anthropic.APIStatusError as error:
                self._meter.cancel(call)
                why, wish = self._see_to(error), asked_pause(error)
                if not why:
                    continue
            except BaseException:
                self._settle_broken(call, size, None)
                raise
            else:
                self._meter.settle(call, reply.usage)
                self.trouble = ""
                return reply
            await self._wait(why, max(wish, backoff * random.uniform(0.5, 1.0)))
            backoff = min(2 * backoff, MAX_PAUSE_SECONDS)

    async def _reserve(self, prompt: dict[str, Any], is_last: bool) -> tuple[int, Size]:
        """Set aside what a call may take: by a count of bytes, and where that is too much, as the API counts."""
        answer = self._options.last_tokens if is_last else self._options.answer_tokens
        size = Size(self._transcript.most_tokens, answer)
        try:
            return self._set_aside(size, is_last), size
        except BudgetError:
            counted = await self._count_once(prompt)
            if counted is not None and counted < size.input:
                size = Size(counted, answer)
        return self._set_aside(size, is_last, may_wait=not is_last), size

    def _set_aside(self, size: Size, is_last: bool, may_wait: bool = False) -> int:
        later = Size(size.input + size.output + RESULTS_TOKENS, self._options.last_tokens)
        return self._meter.reserve(self._charged(size), None if is_last else later, may_wait=may_wait)

    def _settle_broken(self, call: int, size: Size, usage: dict[str, Any] | None) -> None:
        """Charge what the call has cost at most; where it may have compacted, its usage does not say all."""
        most = self._charged(size)
        self._meter.settle_broken(call, usage if most == size else None, most)

    def _charged(self, size: Size) -> Size:
        """What a call of this size may be charged for."""
        return size.twice() if self._features.compacts and size.input >= self._options.compact_at else size

    async def _count_once(self, prompt: dict[str, Any]) -> int | None:
        """As `_count`, but where nothing was said since the last count."""
        if self._counted[0] != self._transcript.most_tokens:
            self._counted = self._transcript.most_tokens, await self._count(prompt)
        return self._counted[1]

    async def _count(self, prompt: dict[str, Any]) -> int | None:
        """The conversation's tokens as the API counts them, and a margin; None where it does not."""
        body = Body({"model": self._options.model, **prompt}, self._transcript)
        headers = {**self._features.headers(), **body.headers}  # without its beta, a summary cannot be read
        ask: Any = {"cast_to": MessageTokensCount, "content": body, "options": {"headers": headers}}
        try:
            counted = await self._client.post("/v1/messages/count_tokens", **ask)
        except anthropic.APIError as error:
            self._transcript.note(f"tokens are not counted: {error}")
            return None
        return int(counted.input_tokens * COUNT_MARGIN)

    def _body(self, prompt: dict[str, Any], size: Size) -> Body:
        fixed = {"model": self._options.model, "max_tokens": size.output, "stream": True, "cache_control": CACHE}
        return Body({**fixed, **prompt, **self._features.fields()}, self._transcript)

    def _see_to(self, error: anthropic.APIStatusError) -> str:
        """What to wait for, or nothing where the call can be made again at once, asking for less."""
        if error.status_code in TRY_AGAIN or error.status_code >= 500:
            return f"{error.type or error.status_code}: {error.api_message or error.message}"
        if _cannot_go_on(error):
            raise MustBeginAnewError(error.message) from error
        given_up = self._features.give_up(error.message) if isinstance(error, anthropic.BadRequestError) else None
        if given_up is None:
            what = "the key (ANTHROPIC_API_KEY)" if error.status_code == 401 else f"model {self._options.model!r}"
            raise ConfigError(f"the API refuses {what}: {error.api_message or error.message}") from error
        self._transcript.note(f"going on without {given_up}: {error.message}")
        self._say(f"the endpoint refuses a request with {given_up}; going on without")
        if self._transcript.is_compacted and not self._features.compacts:
            raise MustBeginAnewError("the endpoint cannot read a summary") from error
        return ""

    async def _wait(self, why: str, seconds: float) -> None:
        self._transcript.note(f"trying again in {seconds:.1f} s: {why}")
        self.trouble = why[:120]
        await self._pause(f"the API does not answer ({self.trouble}); trying again in {seconds:.0f} s", seconds)


def asked_pause(error: anthropic.APIStatusError) -> float:
    """Seconds that the API asks to wait; 0 where it says nothing."""
    headers = error.response.headers
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, unit * float(headers[name]))
        except (KeyError, ValueError):
            continue
    return 0.0


def _cannot_go_on(error: anthropic.APIStatusError) -> bool:
    why = error.message.lower()
    return isinstance(error, anthropic.ContentTooLargeError) or any(words in why for words in CANNOT_GO_ON)
