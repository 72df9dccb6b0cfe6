"""A streamed message put together from its events, as plain data.

The SDK's own `messages.stream` does this with models of all that the API can say, which take 10 MB in every agent's
process and drop what they do not know. Here a block goes back to the API just as it came.
"""

import json
from dataclasses import dataclass
from typing import Any

from outlearn_agents.claude.transcript import Block

CUT_OFF = ("max_tokens", "refusal", "model_context_window_exceeded")
"""Stop reasons of an answer that may end anywhere, also in a tool's input."""


@dataclass(frozen=True)
class Reply:
    """A model's answer. Blocks are as the API sent them, signatures included."""

    content: list[Block]
    stop_reason: str | None
    usage: dict[str, Any]


class Assembly:
    """The message so far."""

    def __init__(self) -> None:
        self.usage: dict[str, Any] | None = None
        self.is_whole = False
        self._blocks: list[Block] = []
        self._inputs: dict[int, str] = {}
        self._stop_reason: str | None = None

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event. Raises ValueError where it does not fit to those before."""
        kind = event["type"]
        if kind == "message_start":
            self.usage = dict(event["message"]["usage"])
        elif kind == "content_block_start":
            self._blocks.append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            self._extend(int(event["index"]), event["delta"])
        elif kind == "message_delta":
            self._stop_reason = event["delta"].get("stop_reason")
            told = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
            self.usage = {**(self.usage or {}), **told}
        elif kind == "message_stop":
            self.is_whole = True

    def reply(self) -> Reply:
        """The whole message. Raises ValueError where an input is not JSON although the answer was not cut off."""
        for index, text in self._inputs.items():
            self._blocks[index]["input"] = self._parse(text)
        return Reply(self._blocks, self._stop_reason, self.usage or {})

    def _extend(self, index: int, delta: dict[str, Any]) -> None:
        if index >= len(self._blocks):
            raise ValueError(f"a part of block {index}, which did not begin")
        if delta["type"] == "input_json_delta":
            self._inputs[index] = self._inputs.get(index, "") + delta["partial_json"]
            return
        block = self._blocks[index]
        for name, value in delta.items():
            if name != "type" and value is not None:
                known = block.get(name)
                block[name] = known + value if isinstance(known, str) and isinstance(value, str) else value

    def _parse(self, text: str) -> Any:
        try:
            return json.loads(text or "{}")
        except ValueError:
            if self._stop_reason in CUT_OFF:
                return {}
            raise
