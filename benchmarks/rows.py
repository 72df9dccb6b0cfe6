"""The rows of a benchmark of tool calls: from turns to figures, to a table and to JSON."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from load import Turn
from rich.table import Column, Table
from worlds import BARE, FEW_BARE, FEW_KIT, KIT

Row = dict[str, float]
Rows = dict[str, dict[int, Row]]
"""By tool, then by number of clients."""
BAR = 1.5
BOUND = ("search", "list_threads", "read_thread", "leaderboard", "evaluate", "evaluate_new", "read_file")
FEW = (FEW_BARE, FEW_KIT, "evaluate_new")


def rows_of(turns: Mapping[str, Sequence[Turn]]) -> dict[str, Row]:
    """The row of each tool, the two echo tools' among them."""
    echoes = {name: (FEW_BARE, FEW_KIT) if name in FEW else (BARE, KIT) for name in turns}
    return {name: make_row(its, *(turns[echo] for echo in echoes[name])) for name, its in turns.items()}


def make_row(turns: Sequence[Turn], bare: Sequence[Turn], kit: Sequence[Turn]) -> Row:
    """The figures of a tool with so many clients. Turns are in the order of their rounds."""
    calls = sum(turn.calls for turn in turns)
    p50, p99 = np.percentile([one for turn in turns for one in turn.taken_ms], (50, 99))
    figures = {
        "rps": calls / sum(turn.seconds for turn in turns),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_ms": 1000 * sum(turn.server_cpu_seconds for turn in turns) / calls,
        "client_cpu_ms": 1000 * sum(turn.client_cpu_seconds for turn in turns) / calls,
        "vs_echo": _ratio(turns, bare),
        "vs_kit_echo": _ratio(turns, kit),
    }
    return {name: round(value, 3) for name, value in figures.items()}


def table_of(transport: str, rows: Rows) -> Table:
    """A table of one transport; reads over the bar are marked."""
    figures = ("clients", "calls/s", "p50 ms", "p99 ms", "CPU ms", "x echo", "x kit")
    table = Table(Column("tool", min_width=12), *figures, title=transport)
    table.caption = f"CPU: the server's. x: times the bare echo and the kit's; over {BAR} is red where it is not to be."
    for tool, by_clients in rows.items():
        for clients, row in by_clients.items():
            millis = [f"{row[name]:.1f}" for name in ("p50_ms", "p99_ms", "cpu_ms")]
            ratios = [_marked(row[name], tool) for name in ("vs_echo", "vs_kit_echo")]
            table.add_row(tool, str(clients), f"{row['rps']:.0f}", *millis, *ratios)
    return table


def _ratio(turns: Sequence[Turn], echo: Sequence[Turn]) -> float:
    """How many times the echo's time a call takes: the median over rounds."""
    pairs = zip(turns, echo, strict=True)
    return statistics.median(mine.seconds_a_call / its.seconds_a_call for mine, its in pairs)


def _marked(ratio: float, tool: str) -> str:
    return f"[red]{ratio:.2f}[/]" if tool in BOUND and ratio > BAR else f"{ratio:.2f}"
