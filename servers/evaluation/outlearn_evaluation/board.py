"""The leaderboard as it is told: runs, and lines to hold them against. It is made anew where anything changed."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from sqlalchemy import Engine, event

from outlearn.errors import InvalidInputError
from outlearn.gap import public_gap
from outlearn.results import pgr_text
from outlearn.types import Leaderboard, LeaderboardLine
from outlearn_evaluation.commitment import Opened
from outlearn_evaluation.scoring import on_grid
from outlearn_evaluation.withheld import Withheld

MOST_KEPT = 16
Version = tuple[int, int]


@dataclass(frozen=True)
class _Kept:
    """A board, and what it was made of."""

    version: Version
    withheld: Withheld
    opened: Opened
    board: Leaderboard


class Boards:
    """Keeps boards that were made, each as long as the ledger, who is withheld and the sealed task stay as they are."""

    def __init__(self, engine: Engine) -> None:
        self._changes = Changes(engine)
        self._kept: dict[tuple[str, int], _Kept] = {}

    def get(self, limit: int, withheld: Withheld, opened: Opened, make: Callable[[], Leaderboard]) -> Leaderboard:
        """The board of a task with at most `limit` rows."""
        version = self._changes.version()  # before the board is made, or a change in between would stay unseen
        kept = self._kept.get((opened.task, limit))
        if kept and kept.version == version and kept.opened is opened and kept.withheld == withheld:
            return kept.board
        board = make()
        if version is not None:
            others = self._kept if len(self._kept) < MOST_KEPT else {}
            self._kept = others | {(opened.task, limit): _Kept(version, withheld, opened, board)}
        return board


class Changes:
    """Tells whether anybody, in whatever process, committed to a SQLite database."""

    def __init__(self, engine: Engine) -> None:
        file = engine.url.database or ""
        self._file = file if engine.dialect.name == "sqlite" and Path(file).is_file() else None
        self._connection: sqlite3.Connection | None = None
        self._closed = 0
        self._lock = Lock()
        event.listen(engine, "engine_disposed", self._close)

    def version(self) -> Version | None:
        """It is another one after each commit. None where the database is no file of SQLite's.

        SQLite counts, for each connection, what others commit: this is one of our own, on which nobody writes.
        """
        if self._file is None:
            return None
        with self._lock:
            self._connection = self._connection or sqlite3.connect(self._file, timeout=30, check_same_thread=False)
            (commits,) = self._connection.execute("PRAGMA data_version").fetchone()
            return self._closed, int(commits)

    def _close(self, _: Engine) -> None:
        with self._lock:
            if self._connection:
                self._connection.close()
            self._connection, self._closed = None, self._closed + 1


def board_lines(opened: Opened) -> tuple[LeaderboardLine, ...]:
    """The sanity lines of a task as answers are told, best first; none where PGR is undefined."""
    try:
        weak, gap = public_gap(opened.baselines, opened.secret)
    except InvalidInputError:
        return ()
    told = [(one.name, on_grid((one.accuracy - weak) / gap)) for one in opened.baselines.lines]
    lines = [LeaderboardLine(name=name, pgr=pgr, at_most=at_most) for name, (pgr, at_most) in told]
    ends = [LeaderboardLine(name="teacher", pgr=0.0), LeaderboardLine(name="ceiling", pgr=1.0)]
    return tuple(sorted(ends + lines, key=lambda one: -one.pgr))


def board_text(board: Leaderboard) -> str:
    """A line a run, best first, and one for the scale."""
    rows = [
        f"{row.rank}. PGR {pgr_text(row.pgr, row.at_most)} ± {row.pgr_se:.2f}, {row.seeds} seeds: {row.run_id} of "
        f"{row.agent}, {row.method}{' (nominated)' if row.nominated else ''}"
        for row in board.rows
    ]
    scale = ", ".join(f"{line.name} {pgr_text(line.pgr, line.at_most)}" for line in board.lines) or "no lines"
    return "\n".join([f"Task {board.task}", *(rows or ["no run was evaluated yet"]), f"for scale: {scale}"])
