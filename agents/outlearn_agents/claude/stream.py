"""One streamed model call: the answer whole, or an error that says what is known of its cost."""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import anthropic
import httpx2

from outlearn.errors import OutlearnError
from outlearn_agents.claude.assembly import Assembly, Reply
from outlearn_agents.claude.request import Body

SHOW_SECONDS = 1.0
CONNECT_SECONDS = 15.0
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class BrokenCallError(Exception):
    """The call was cut off. `usage` is what was known of its cost by then: the input; None where not even that."""

    def __init__(self, why: str, usage: dict[str, Any] | None = None) -> None:
        super().__init__(why)
        self.usage = usage


class NotSentError(Exception):
    """Nobody heard the call, so that it costs nothing."""


async def stream(
    client: anthropic.AsyncAnthropic,
    body: Body,
    headers: Mapping[str, str],
    show: Callable[[str], None],
    silence_seconds: float,
) -> Reply:
    """Make a call and read its stream to the end. `show` is told about once a second what the model is at.

    Raises:
        anthropic.APIStatusError: the API refused the call, which costs nothing.
        BrokenCallError: the call broke after it was sent.
        NotSentError: the API cannot be reached.
        IntegrityError: the transcript was changed.
    """
    assembly, watch = Assembly(), _Watch(show)
    timeout = httpx2.Timeout(silence_seconds, connect=CONNECT_SECONDS)
    ask: Any = {"cast_to": object, "stream": True, "stream_cls": anthropic.AsyncStream[Any]}
    ask |= {"content": body, "options": {"headers": {**headers, **body.headers}, "timeout": timeout}}
    try:
        async with await client.post("/v1/messages", **ask) as answer:
            async for sent in anthropic.AsyncStream.raw_events(answer.response):
                event = json.loads(sent.data)
                if event["type"] == "error":
                    raise BrokenCallError(f"the API gave up: {event['error']['type']}", assembly.usage)
                assembly.add(event)
                watch.see(event)
        if assembly.is_whole:
            return assembly.reply()
    except (anthropic.APIConnectionError, httpx2.HTTPError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, OutlearnError):
            raise cause from None
        if isinstance(cause, NOT_SENT):
            raise NotSentError(str(cause)) from error
        raise BrokenCallError(f"{type(cause).__name__}: {cause}", assembly.usage) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenCallError(f"unreadable: {error!r}", assembly.usage) from error
    raise BrokenCallError("the stream ended too early", assembly.usage)


class _Watch:
    """Says what the model is at, in a few words, now and then."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._doing = ""
        self._characters = 0
        self._shown_at = time.monotonic()

    def see(self, event: dict[str, Any]) -> None:
        if event["type"] == "content_block_start":
            block = event["content_block"]
            self._doing = "thinking" if "thinking" in block["type"] else f"writing {block.get('name', 'an answer')}"
            self._characters = 0
        elif event["type"] == "content_block_delta":
            values = (value for name, value in event["delta"].items() if name != "type")
            self._characters += sum(len(value) for value in values if isinstance(value, str))
            if time.monotonic() - self._shown_at >= SHOW_SECONDS:
                self._shown_at = time.monotonic()
                self._show(f"{self._doing.replace('__', '.')}: {self._characters:,} characters so far")
