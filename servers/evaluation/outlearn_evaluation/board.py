"""The leaderboard as it is told: runs, and lines to hold them against. It is made anew where anything changed."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from outlearn.changes import Changes, Moment
from outlearn.errors import InvalidInputError
from outlearn.gap import public_gap
from outlearn.results import pgr_text
from outlearn.types import Leaderboard, LeaderboardLine
from outlearn_evaluation.commitment import Opened
from outlearn_evaluation.scoring import on_grid
from outlearn_evaluation.withheld import Withheld

MOST_KEPT = 16


@dataclass(frozen=True)
class _Kept:
    """A board, and what it was made of."""

    version: Moment
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
        version = self._changes.last()  # before the board is made, or a change in between would stay unseen
        kept = self._kept.get((opened.task, limit))
        if kept and kept.version == version and kept.opened is opened and kept.withheld == withheld:
            return kept.board
        board = make()
        if version is not None:
            others = self._kept if len(self._kept) < MOST_KEPT else {}
            self._kept = others | {(opened.task, limit): _Kept(version, withheld, opened, board)}
        return board


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
