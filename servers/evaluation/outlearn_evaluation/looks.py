"""Evaluated runs by what they answered, in memory: the ledger only grows, so of it only what is new is read."""

import sys
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select

from outlearn.transactions import Transaction
from outlearn_evaluation.detectors import Change, Look, changed_from, yes_share
from outlearn_evaluation.scoring import NEAR, differing
from outlearn_evaluation.tables import evaluations, submissions

MOST_ASKED = 1_000
FAR = sys.maxsize, -1
_SINCE = (
    select(
        *(evaluations.c[name] for name in ("number", "run_id", "agent", "at_most", "same_as")),
        *(submissions.c[name] for name in ("fingerprint", "seeds", "counts")),
    )
    .join(submissions, submissions.c.run_id == evaluations.c.run_id)
    .where(evaluations.c.number > bindparam("last"))
    .order_by(evaluations.c.number)
)


@dataclass
class _Asked:
    """A run that is only asked about, and what is known of it up to now."""

    run: Look
    seen: int = 0
    """How many evaluated runs it was held against."""
    scored: tuple[int, int] = FAR
    """The nearest of those that have answers of their own: votes that differ, and its place."""
    telling: tuple[int, int] = FAR
    """The nearest of those that are not degenerate."""
    changed: tuple[int, Change | None] | None = None
    """What it changed, were it evaluated at this place."""

    def hold_against(self, evaluated: Sequence[Look], before: int) -> None:
        """Look at those before a place that were not looked at yet. Of equally near ones the first counts."""
        for place in range(self.seen, before):
            other = evaluated[place]
            apart = differing(self.run.bits, other.bits), place
            if other.same_as is None:
                self.scored = min(self.scored, apart)
            if not other.is_degenerate:
                self.telling = min(self.telling, apart)
        self.seen = before


class Looks:
    """Everybody's evaluated runs of one version of a task, oldest first. They all have the same seeds and items."""

    def __init__(self) -> None:
        self._all: list[Look] = []
        self._places: dict[str, int] = {}
        self._by_agent: defaultdict[str, list[int]] = defaultdict(list)
        self._changes: dict[int, Change | None] = {}  # of those that are here, by place
        self._asked: dict[str, _Asked] = {}
        self._telling = 0
        self._yes: NDArray[np.int64] = np.zeros(0, dtype=np.int64)  # (items,) votes of telling runs
        self._lock = Lock()

    def find(self, run_id: str) -> Look | None:
        """A run, where it was evaluated."""
        place = self._places.get(run_id)
        return None if place is None else self._all[place]

    def own_before(self, run: Look) -> list[Look]:
        """Those of this run's agent that were evaluated before it, which need not be among them."""
        with self._lock:
            return [self._all[place] for place in self._own_places(run.agent, self._place(run))]

    def nearest(self, run: Look) -> str | None:
        """Of those before this run that have answers of their own the nearest within 2 %, and of these the first.

        What is found is kept: who asks again has only those looked at that were evaluated since.
        """
        with self._lock:
            apart, place = self._held(run, self._place(run)).scored
            return self._all[place].run_id if apart / max(run.seeds * len(run.counts), 1) <= NEAR else None

    def changes(self, run: Look, released: Set[str] = frozenset()) -> list[Change]:
        """What each run of this one's agent changed, up to this one; not those that are `released` or changed nothing.
        This one may be one that is only asked about."""
        with self._lock:
            last, known = self._place(run), self._changes
            found = [
                known[place] if place in known else self._change(self._all[place], place)
                for place in self._own_places(run.agent, last)
                if not released or self._all[place].run_id not in released
            ]
            found += [] if run.run_id in released else [self._change(run, last)]
            return [one for one in found if one is not None]

    def add(self, run: Look) -> None:
        """Add what was evaluated next. A run that is there already stays as it is."""
        with self._lock:
            place = self._place(run)
            if place < len(self._all):
                return
            asked = self._asked.pop(run.run_id, None)
            if asked and asked.changed and asked.changed[0] == place and _same(asked.run, run):
                self._changes[place] = asked.changed[1]
            if not run.is_degenerate:
                self._telling += 1
                self._yes = self._yes + run.counts if len(self._yes) else run.counts.astype(np.int64)
            self._all.append(run)
            self._by_agent[run.agent].append(place)
            self._places[run.run_id] = place

    def _place(self, run: Look) -> int:
        return self._places.get(run.run_id, len(self._all))

    def _own_places(self, agent: str, before: int) -> list[int]:
        own = self._by_agent.get(agent, [])
        return own[: bisect_left(own, before)]

    def _held(self, run: Look, before: int) -> _Asked:
        """A run held against all before a place. It is kept where that is after all that were evaluated."""
        if before < len(self._all):
            asked = _Asked(run)
        else:
            known = self._asked.get(run.run_id)
            asked = known if known and _same(known.run, run) else _Asked(run)
            self._asked[run.run_id] = asked
            if len(self._asked) > MOST_ASKED:
                del self._asked[next(iter(self._asked))]
        asked.hold_against(self._all, before)
        return asked

    def _change(self, run: Look, place: int) -> Change | None:
        """As `detectors.change`, worked out once, and quickly for a run after all others."""
        if place in self._changes:
            return self._changes[place]
        asked = self._held(run, place)
        if asked.changed is None or asked.changed[0] != place:
            asked.changed = place, self._work_out(run, asked)
        if place < len(self._all):
            self._changes[place] = asked.changed[1]
        return asked.changed[1]

    def _work_out(self, run: Look, asked: _Asked) -> Change | None:
        if asked.telling == FAR or run.is_degenerate:
            return None
        base = self._all[asked.telling[1]]
        if asked.seen == len(self._all):
            return changed_from(run, base, self._yes / (self._telling * run.seeds))
        return changed_from(run, base, yes_share([one for one in self._all[: asked.seen] if not one.is_degenerate]))


def _same(one: Look, other: Look) -> bool:
    return one.bits == other.bits and one.agent == other.agent


class LookBook:
    """The evaluated runs of all tasks, as far as the ledger was read."""

    def __init__(self) -> None:
        self._last = 0
        self._versions: defaultdict[str, Looks] = defaultdict(Looks)
        self._lock = Lock()

    def of(self, fingerprint: str) -> Looks:
        """Those of one version of a task."""
        with self._lock:
            return self._versions[fingerprint]

    def read(self, read: Transaction, newest: int | None = None) -> None:
        """Read what was evaluated since the last time; nothing where the evaluation with this number was the newest."""
        with self._lock:
            if newest is not None and newest <= self._last:
                return
            for row in read.rows(_SINCE, last=self._last):
                counts = np.frombuffer(row.counts, dtype=np.uint8)
                look = Look(row.run_id, row.agent, row.seeds, counts, bool(row.at_most), row.same_as)
                self._versions[row.fingerprint].add(look)
                self._last = row.number

    def add(self, number: int, fingerprint: str, run: Look) -> None:
        """Add the evaluation that was committed with this number, all before it having been read."""
        with self._lock:
            self._versions[fingerprint].add(run)
            self._last = max(self._last, number)
