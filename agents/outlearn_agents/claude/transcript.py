"""The transcript: every message, on disk before it takes effect, so that a killed agent goes on where it was."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Block = dict[str, Any]


class Transcript:
    """A JSON-lines file of messages, usage and notes. What it holds since the last restart is the conversation.

    Args:
        path: the file.
        overhead: bytes of what is sent beside the conversation.
    """

    def __init__(self, path: Path, overhead: int = 0) -> None:
        self._path = path
        self._overhead = overhead
        self.messages: list[Message] = []
        self.turns = 0
        self.tokens = 0
        self.model = ""
        self.warned: set[str] = set()
        self.is_finished = False
        self.most_tokens = overhead
        """What the conversation can take at most: as the API last counted it, and a token for each byte since then."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for entry in _read(path):
            self._take(entry)

    def say(self, role: str, content: list[Block]) -> None:
        """Append a message."""
        self._append({"type": "message", "role": role, "content": content})

    def count(self, model: str, stop_reason: str | None, usage: dict[str, Any]) -> None:
        """Append what a model call used."""
        self._append({"type": "usage", "model": model, "stop_reason": stop_reason, "usage": usage})

    def note(self, text: str) -> None:
        """Append a remark that is no part of the conversation."""
        self._append({"type": "note", "text": text})

    def warn(self, key: str) -> None:
        """Append that the agent was told of this."""
        self._append({"type": "warned", "key": key})

    def restart(self, why: str) -> None:
        """Begin a new conversation; the old one stays in the file."""
        self._append({"type": "restart", "text": why})

    def finish(self) -> None:
        """Append that the agent has had its last turn."""
        self._append({"type": "finished"})

    @property
    def is_compacted(self) -> bool:
        """Whether the conversation goes on from a summary."""
        return any(_is_compaction(block) for message in self.messages[:2] for block in message["content"])

    def open_calls(self) -> list[Block]:
        """Tool calls of the last message: they have no answers yet."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return []
        return [block for block in self.messages[-1]["content"] if block["type"] == "tool_use"]

    def _append(self, entry: dict[str, Any]) -> None:
        line = _encode({"at": datetime.now(UTC).isoformat(), **entry})
        with self._path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["type"] == "message":
            self._take_message(entry["role"], entry["content"])
        elif entry["type"] == "restart":
            self.messages = []
            self.most_tokens = self._overhead
        elif entry["type"] == "usage":
            self.turns += 1
            self.is_finished = False
            self.model = entry["model"]
            self._count(entry["usage"])
        elif entry["type"] == "warned":
            self.warned.add(entry["key"])
        elif entry["type"] == "finished":
            self.is_finished = True

    def _take_message(self, role: str, content: list[Block]) -> None:
        if any(_is_compaction(block) for block in content):
            del self.messages[1:]  # the API reads nothing that stands before a summary; a user must speak first
        self.messages.append({"role": role, "content": content})
        if role == "user":
            self.most_tokens += len(_encode(content))

    def _count(self, usage: dict[str, Any]) -> None:
        new = _sum(usage, "input_tokens", "output_tokens", "cache_creation_input_tokens")
        self.tokens += new
        self.most_tokens = new + _sum(usage, "cache_read_input_tokens")


def _sum(usage: dict[str, Any], *names: str) -> int:
    return sum(int(usage.get(name) or 0) for name in names)


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _is_compaction(block: Block) -> bool:
    return block["type"] == "compaction" and bool(block.get("content"))


def _read(path: Path) -> Iterator[dict[str, Any]]:
    """The entries, one by one; a last line that a crash cut off is removed."""
    whole = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    whole += len(line)
                    yield json.loads(line)
        if whole < path.stat().st_size:
            os.truncate(path, whole)
