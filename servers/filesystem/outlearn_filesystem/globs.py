"""Glob patterns over paths, matched name by name, so that no pattern takes exponential time."""

import re
from collections.abc import Sequence
from fnmatch import translate
from itertools import pairwise

from outlearn.errors import InvalidInputError

MAX_GLOB = 500
REMEMBERED = 1_000


class Glob:
    """`*`, `?` and `[abc]` match within a name, `**` any number of folders. Without a slash: a name at any depth."""

    def __init__(self, glob: str) -> None:
        if not glob.strip("/") or len(glob) > MAX_GLOB:
            raise InvalidInputError(
                f"glob {glob[:80]!r} must have 1 to {MAX_GLOB} characters, such as '*.py' or 'runs/**/*.json'"
            )
        parts = [part for part in glob.split("/") if part not in ("", ".")]
        if "/" not in glob:
            parts = ["**", *parts]
        self._parts = [part for before, part in pairwise(["", *parts]) if (before, part) != ("**", "**")]
        # `fnmatchcase` would keep 32,768 patterns: 300 MB where somebody makes them long
        self._match = {part: re.compile(translate(part)).match for part in self._parts if part != "**"}
        self._deep = sum(1 << place for place, part in enumerate(self._parts) if part == "**")
        self._steps: dict[str, int] = {}

    def matches(self, names: Sequence[str]) -> bool:
        """Whether the path with these components matches."""
        places = self._skip(1)  # bits: how many parts may be behind us
        for name in names:
            places = self._skip((places & self._deep) | ((places & self._step(name)) << 1))
        return bool(places >> len(self._parts))

    def _step(self, name: str) -> int:
        """Bits of the parts that match this name, remembered: folders' names come again and again."""
        if name not in self._steps:
            if len(self._steps) >= REMEMBERED:
                self._steps.clear()
            matching = {part for part, match in self._match.items() if match(name)}
            self._steps[name] = sum(1 << place for place, part in enumerate(self._parts) if part in matching)
        return self._steps[name]

    def _skip(self, places: int) -> int:
        """These places, and those behind a `**`, which may match nothing more."""
        return places | ((places & self._deep) << 1)
