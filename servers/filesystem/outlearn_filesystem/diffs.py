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


def edit_diff(path: str, old: str, new: str) -> str:
    """The unified diff of `old` and `new` as one hunk: all from the first line that differs to the last.

    Cut after `MAX_DIFF_BYTES`. Empty where they are equal.
    """
    if old == new:
        return ""
    before, after = split_lines(old), split_lines(new)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    first, last = max(0, head - CONTEXT_LINES), min(tail, CONTEXT_LINES)
    old_end, new_end = len(before) - tail, len(after) - tail
    body = [" " + line for line in before[first:head]]
    body += ["-" + line for line in before[head:old_end]]
    body += ["+" + line for line in after[head:new_end]]
    body += [" " + line for line in before[old_end : old_end + last]]
    spans = _span(first, old_end + last - first), _span(first, new_end + last - first)
    header = f"--- {path}\n+++ {path}\n@@ -{spans[0]} +{spans[1]} @@\n"
    lines = (line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in body)
    return cut_text(header + "".join(lines), MAX_DIFF_BYTES)


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


def _common(a: list[str], b: list[str]) -> int:
    """How many leading elements are equal."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _span(first: int, count: int) -> str:
    """A hunk's range; an empty one names the line before it."""
    return f"{first + (count > 0)},{count}"
