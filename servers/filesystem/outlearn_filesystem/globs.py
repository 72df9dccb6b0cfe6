"""Glob patterns over paths, matched name by name, so that no pattern takes exponential time."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from outlearn.errors import InvalidInputError

MAX_GLOB = 500


class Glob:
    """`*`, `?` and `[abc]` match within a name, `**` any number of folders. Without a slash: a name at any depth."""

    def __init__(self, glob: str) -> None:
        if not glob.strip("/") or len(glob) > MAX_GLOB:
            raise InvalidInputError(
                f"glob {glob[:80]!r} must have 1 to {MAX_GLOB} characters, such as '*.py' or 'runs/**/*.json'"
            )
        parts = [part for part in glob.split("/") if part not in ("", ".")]
        self._parts = parts if "/" in glob else ["**", *parts]

    def matches(self, names: Sequence[str]) -> bool:
        """Whether the path with these components matches."""
        places = self._skip({0})
        for name in names:
            places = self._skip({self._step(place, name) for place in places} - {-1})
        return len(self._parts) in places

    def _step(self, place: int, name: str) -> int:
        """The place in the pattern after `name`, or -1."""
        if place == len(self._parts):
            return -1
        if self._parts[place] == "**":
            return place
        return place + 1 if fnmatchcase(name, self._parts[place]) else -1

    def _skip(self, places: set[int]) -> set[int]:
        """These places, and those behind a `**` that matches nothing more."""
        for place in sorted(places):
            while place < len(self._parts) and self._parts[place] == "**":
                place += 1
                places.add(place)
        return places
