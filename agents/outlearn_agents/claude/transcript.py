"""The transcript: every message, on disk before it takes effect, so that a killed agent goes on where it was.

The conversation stays on disk: over days it is megabytes, which each request would hold several times. In memory is
where its messages stand in the file, and the last one. It is only ever appended to, also where the API has cleared a
tool result: thoughts are bound to all that was said before them, and a prompt cache to its bytes.
"""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from outlearn.errors import IntegrityError

Message = dict[str, Any]
Block = dict[str, Any]


class _Place(NamedTuple):
    """Where a message stands in the file, but for its opening brace."""

    start: int
    length: int


class Transcript:
    """A JSON-lines file of messages, usage and notes. What it holds since the last restart is the conversation.

    Args:
        path: the file.
        overhead: bytes of what is sent beside the conversation.
    """

    def __init__(self, path: Path, overhead: int = 0) -> None:
        self._path = path
        self._overhead = overhead
        self._places: list[_Place] = []
        self.last: Message | None = None
        """The conversation's last message."""
        self.is_compacted = False
        """Whether the conversation goes on from a summary."""
        self.turns = 0
        self.tokens = 0
        self.model = ""
        self.warned: set[str] = set()
        self.is_finished = False
        self.most_tokens = overhead
        """What the conversation can take at most: as the API last counted it, and a token for each byte since then."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for start, line in _read(path):
            self._take(json.loads(line), start, line)

    def __len__(self) -> int:
        """Messages of the conversation."""
        return len(self._places)

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

    def open_calls(self) -> list[Block]:
        """Tool calls of the last message: they have no answers yet."""
        if self.last is None or self.last["role"] != "assistant":
            return []
        return [block for block in self.last["content"] if block["type"] == "tool_use"]

    def messages(self) -> Iterator[bytes]:
        """The conversation's messages, each as JSON, read from the file one by one.

        Raises:
            IntegrityError: the file is not as it was left.
        """
        try:
            with self._path.open("rb") as file:
                for place in self._places:
                    yield _at(place, file)
        except (FileNotFoundError, EOFError) as error:
            raise IntegrityError(f"{str(self._path)!r} was changed while its agent is at work") from error

    @property
    def size(self) -> int:
        """Bytes of all messages."""
        return sum(1 + place.length for place in self._places)

    def _append(self, entry: dict[str, Any]) -> None:
        line = encode({"at": datetime.now(UTC).isoformat(), **entry}) + b"\n"
        with self._path.open("ab") as file:
            start = file.tell()
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._take(entry, start, line)

    def _take(self, entry: dict[str, Any], start: int, line: bytes) -> None:
        if entry["type"] == "message":
            self._take_message({"role": entry["role"], "content": entry["content"]}, _place(start, line))
        elif entry["type"] == "restart":
            self._places, self.last, self.is_compacted = [], None, False
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

    def _take_message(self, message: Message, place: _Place) -> None:
        if any(_is_compaction(block) for block in message["content"]):
            del self._places[1:]  # the API reads nothing that stands before a summary; a user must speak first
            self.is_compacted = True
        self._places.append(place)
        self.last = message
        if message["role"] == "user":
            self.most_tokens += place.length

    def _count(self, usage: dict[str, Any]) -> None:
        new = _sum(usage, "input_tokens", "output_tokens", "cache_creation_input_tokens")
        self.tokens += new
        self.most_tokens = new + _sum(usage, "cache_read_input_tokens")


def _sum(usage: dict[str, Any], *names: str) -> int:
    return sum(int(usage.get(name) or 0) for name in names)


def encode(value: Any) -> bytes:
    """A value as JSON, also where a model wrote half a character."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _place(start: int, line: bytes) -> _Place:
    begin = line.index(b'"role": ')  # a line begins with its time and type, which do not say so
    return _Place(start + begin, len(line) - begin - len(b"\n"))


def _at(place: _Place, file: BinaryIO) -> bytes:
    """The message at a place. Raises EOFError where there is none."""
    file.seek(place.start)
    message = b"{" + file.read(place.length)
    if len(message) <= place.length or not message.endswith(b"}"):
        raise EOFError
    return message


def _is_compaction(block: Block) -> bool:
    return block["type"] == "compaction" and bool(block.get("content"))


def _read(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines and where they begin, one by one; a last line that a crash cut off is removed."""
    whole = 0
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield whole, line
                    whole += len(line)
        if whole < path.stat().st_size:
            os.truncate(path, whole)
