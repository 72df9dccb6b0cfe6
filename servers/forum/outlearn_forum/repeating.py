"""Lists and searches that are asked for again before anything changed: agents that begin a step ask for the same."""

from collections.abc import Callable, Hashable
from typing import TypeAlias

from mcp.types import CallToolResult
from sqlalchemy import Engine

from outlearn.changes import Changes, Moment
from outlearn.types import FindingList
from outlearn_forum.quoting import list_lines, quoted

MOST = 200
Answers: TypeAlias = dict[Hashable, tuple[FindingList, CallToolResult]]


class Repeating:
    """Gives an answer again while neither the database nor, as `holds` says, a verified number in it changed."""

    def __init__(self, engine: Engine, holds: Callable[[FindingList], bool]) -> None:
        self._changes = Changes(engine)
        self._holds = holds
        self._kept: tuple[Moment | None, Answers] = (None, {})

    def __call__(self, find: Callable[..., FindingList], **arguments: Hashable) -> CallToolResult:
        """The answer with what `find` finds. Raises what that raises."""
        known, asked = self._known(), (find, *arguments.items())
        if (kept := known.get(asked)) and self._holds(kept[0]):
            return kept[1]
        found = find(**arguments)
        answer = quoted(found, list_lines(found))
        if len(known) < MOST:
            known[asked] = found, answer
        return answer

    def _known(self) -> Answers:
        """What was found since the last change: none of it is older, as this is asked for before anything is read."""
        moment, (of, known) = self._changes.last(), self._kept
        if moment is None or moment != of:
            known = {}
            self._kept = moment, known
        return known
