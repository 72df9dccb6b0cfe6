"""The leaderboard as it is told: runs, and lines to hold them against."""

from outlearn.errors import InvalidInputError
from outlearn.results import pgr_text
from outlearn.types import Leaderboard, LeaderboardLine
from outlearn_evaluation.commitment import Opened
from outlearn_evaluation.scoring import on_grid, public_gap


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
