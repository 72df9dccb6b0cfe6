"""Single edits: where they are made, and their unified diffs, in linear time."""

import io

from outlearn.errors import ConflictError
from outlearn.paging import cut_text

CONTEXT_LINES = 3
MAX_DIFF_BYTES = 20_000
SHOWN_PLACES = 5


def split_lines(text: str) -> list[str]:
    """The lines with their ends. Only a newline ends a line, as in editors and `grep -n`."""
    return list(io.StringIO(text, newline="\n"))


def count_lines(text: str) -> int:
    """How many lines there are, the last one with or without its end."""
    return text.count("\n") + (text[-1:] not in ("", "\n"))


def line_start(text: str, number: int) -> int:
    """Where line `number` begins; lines count from 1, and there is such a line.

    Found by halves: to split 10 MB into lines would keep the server's other threads waiting for a second.
    """
    low, high, left = 0, len(text), number - 1  # it begins behind as many newlines as are left
    while left:
        middle = low + (high - low + 1) // 2
        passed = text.count("\n", low, middle)
        if passed < left:
            low, left = middle, left - passed
        elif middle - low == 1:
            return middle
        else:
            high = middle
    return low


def edit_diff(path: str, old: str, new: str) -> str:
    """The unified diff of `old` and `new` as one hunk: all from the first line that differs to the last.

    Cut after `MAX_DIFF_BYTES`. Empty where they are equal.
    """
    if old == new:
        return ""
    start = old.rfind("\n", 0, _common(old, new)) + 1
    old_end, new_end = _ends(old, new, start)
    before, after = _context_start(old, start), _context_end(old, old_end)
    spans = [
        _span(count_lines(old[:before]), count_lines(text[before:end]) + count_lines(old[old_end:after]))
        for text, end in ((old, old_end), (new, new_end))
    ]
    header = f"--- {path}\n+++ {path}\n@@ -{spans[0]} +{spans[1]} @@\n"
    parts = ((" ", old[before:start]), ("-", old[start:old_end]), ("+", new[start:new_end]), (" ", old[old_end:after]))
    lines = (sign + line for sign, part in parts for line in split_lines(part[: MAX_DIFF_BYTES + 1]))
    whole = (line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
    return cut_text(header + "".join(whole), MAX_DIFF_BYTES)


def find_once(path: str, text: str, old: str) -> int:
    """Where `old` begins. Raises ConflictError unless it stands there exactly once."""
    places: list[int] = []
    while len(places) < SHOWN_PLACES and (place := text.find(old, places[-1] + 1 if places else 0)) >= 0:
        places.append(place)
    if len(places) == 1:
        return places[0]
    if places:
        lines = ", ".join(str(text.count("\n", 0, place) + 1) for place in places)
        raise ConflictError(f"`old` stands in {path!r} more than once (lines {lines}); include more around it")
    hint = "; its lines end with \\r\\n" if "\r\n" in text and "\n" in old.replace("\r\n", "") else ""
    raise ConflictError(f"`old` is not in {path!r}, character for character{hint}; read the file again")


def _common(a: str, b: str) -> int:
    """How many leading characters are equal."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
    return low


def _ends(old: str, new: str, start: int) -> tuple[int, int]:
    """Where the lines begin, in `old` and in `new`, that both have at their ends, from `start` on at the earliest."""
    common = _common(old[start:][::-1], new[start:][::-1])
    if not all(len(text) - common == start or text[-common - 1] == "\n" for text in (old, new)):
        line = old.find("\n", len(old) - common) + 1  # the next one that is common as a whole
        common = len(old) - line if line else 0
    return len(old) - common, len(new) - common


def _context_start(text: str, start: int) -> int:
    for _ in range(CONTEXT_LINES):
        start = text.rfind("\n", 0, max(0, start - 1)) + 1
    return start


def _context_end(text: str, end: int) -> int:
    for _ in range(CONTEXT_LINES):
        end = text.find("\n", end) + 1 or len(text)
    return end


def _span(first: int, count: int) -> str:
    """A hunk's range; an empty one names the line before it."""
    return f"{first + (count > 0)},{count}"
