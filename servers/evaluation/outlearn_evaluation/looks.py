"""Evaluated runs by what they answered, in memory: the ledger only grows, so of it only what is new is read."""

from collections import defaultdict
from collections.abc import Set
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select

from outlearn.transactions import Transaction
from outlearn_evaluation.detectors import Change, Counts, Look, changed_from
from outlearn_evaluation.scoring import NEAR, distances
from outlearn_evaluation.tables import evaluations, submissions

LEAST_ROOM = 64
_SINCE = (
    select(
        *(evaluations.c[name] for name in ("number", "run_id", "agent", "at_most", "same_as")),
        *(submissions.c[name] for name in ("fingerprint", "seeds", "counts")),
    )
    .join(submissions, submissions.c.run_id == evaluations.c.run_id)
    .where(evaluations.c.number > bindparam("last"))
    .order_by(evaluations.c.number)
)


class Looks:
    """Everybody's evaluated runs of one version of a task, oldest first. They all have the same seeds and items."""

    def __init__(self) -> None:
        self._all: list[Look] = []
        self._places: dict[str, int] = {}
        self._by_agent: defaultdict[str, list[Look]] = defaultdict(list)
        self._counts: Counts = np.empty((0, 0), dtype=np.uint8)  # (room, items)
        self._bits: NDArray[np.uint64] = np.empty((0, 0), dtype=np.uint64)  # (room, words), and the next are (room,)
        self._scored = self._telling = np.empty(0, dtype=bool)
        self._yes: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # (items,) votes of telling runs
        self._changes: dict[int, Change | None] = {}  # of those that are here, by place
        self._asked: tuple[tuple[int, str, bytes], Change | None] = (0, "", b""), None  # of one that may come
        self._apart: tuple[tuple[int, bytes], NDArray[np.float64]] = (0, b""), np.empty(0)
        self._lock = Lock()

    def find(self, run_id: str) -> Look | None:
        """A run, where it was evaluated."""
        place = self._places.get(run_id)
        return None if place is None else self._all[place]

    def own_before(self, run: Look) -> list[Look]:
        """Those of this run's agent that were evaluated before it, which need not be among them."""
        with self._lock:
            return self._own_before(run)

    def nearest(self, run: Look) -> str | None:
        """Of those before this run that have answers of their own the nearest within 2 %, and of these the first."""
        with self._lock:
            place = self._place(run)
            scored = np.flatnonzero(self._scored[:place])
            if not len(scored):
                return None
            apart = self._distances(run, place)[scored]
            best = int(apart.argmin())
            return self._all[scored[best]].run_id if apart[best] <= NEAR else None

    def changes(self, run: Look, released: Set[str] = frozenset()) -> list[Change]:
        """What each run of this one's agent changed, up to this one; not those that are `released` or changed nothing.
        This one may be one that is only asked about."""
        with self._lock:
            runs = [*self._own_before(run), run]
            found = [self._change(one) for one in runs if one.run_id not in released]
            return [one for one in found if one is not None]

    def add(self, run: Look) -> None:
        """Add what was evaluated next. A run that is there already stays as it is."""
        with self._lock:
            place = self._place(run)
            if place < len(self._all):
                return
            if place == len(self._counts):
                self._make_room(run)
            self._counts[place], self._bits[place], self._scored[place] = run.counts, run.bits, run.same_as is None
            self._telling[place] = not run.is_degenerate
            if not run.is_degenerate:
                self._yes = self._yes + run.counts
            self._all.append(run)
            self._by_agent[run.agent].append(run)
            self._places[run.run_id] = place

    def _place(self, run: Look) -> int:
        return self._places.get(run.run_id, len(self._all))

    def _own_before(self, run: Look) -> list[Look]:
        place = self._place(run)
        return [one for one in self._by_agent[run.agent] if self._places[one.run_id] < place]

    def _change(self, run: Look) -> Change | None:
        """As `detectors.change`, worked out once, and quickly for a run after all others."""
        place = self._place(run)
        if place < len(self._all) and place in self._changes:
            return self._changes[place]
        key = place, run.agent, run.counts.tobytes()
        if key != self._asked[0]:
            self._asked = key, self._work_out(run, place)
        if place < len(self._all):
            self._changes[place] = self._asked[1]
        return self._asked[1]

    def _work_out(self, run: Look, place: int) -> Change | None:
        telling = np.flatnonzero(self._telling[:place])
        if not len(telling) or run.is_degenerate:
            return None
        base = self._all[telling[self._distances(run, place)[telling].argmin()]]
        newest = place == len(self._all)
        yes = self._yes if newest else self._counts[telling].sum(axis=0, dtype=np.int64)
        return changed_from(run, base, yes / (len(telling) * run.seeds))

    def _distances(self, run: Look, place: int) -> NDArray[np.float64]:
        """From all before it, (place,). Of the last run that was asked about they are kept."""
        key = place, run.counts.tobytes()
        if key != self._apart[0]:
            self._apart = key, distances(run.bits, self._bits[:place], run.seeds * len(run.counts))
        return self._apart[1]

    def _make_room(self, run: Look) -> None:
        """For twice as many runs as this one and those that are here."""
        if not self._all:
            self._yes = np.zeros(len(run.counts), dtype=np.int64)
            self._counts, self._bits = self._counts.reshape(0, len(run.counts)), self._bits.reshape(0, len(run.bits))
        room = max(LEAST_ROOM, 2 * len(self._all))
        self._counts, self._bits = _with_rows(self._counts, room), _with_rows(self._bits, room)
        self._scored, self._telling = _with_rows(self._scored, room), _with_rows(self._telling, room)


def _with_rows(known: NDArray[Any], rows: int) -> NDArray[Any]:
    """So many rows, these and zeros."""
    return np.concatenate([known, np.zeros((rows - len(known), *known.shape[1:]), dtype=known.dtype)])


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
