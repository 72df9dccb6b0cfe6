"""What is shown while a team works: a live page on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from outlearn.results import pgr_text
from outlearn.types import Finding, LeaderboardRow, RunView
from outlearn_agents.team.watch import AgentView, TeamView
from outlearn_agents.words import clean, duration, failures, method_label, shorten

STYLES = ("cyan", "magenta", "green", "yellow", "blue", "red")
BOARD_ROWS = 8
FEED_ROWS = 7
ACTIVE = ("queued", "running")
AT_WORK = ("running", "waiting")
BEGINNING = "starting the servers"
WARMING = "workers are starting (loading PyTorch)"
ENDING = "agents finish what they are saying"


@contextmanager
def show(console: Console, seconds: float) -> Iterator[Callable[[TeamView], None]]:
    """A function to call with each view of a team that works for `seconds`."""
    if not console.is_terminal:
        lines = PlainLines(console)
        lines.say(BEGINNING)
        yield lines
        return
    with Live(Text(BEGINNING), console=console, refresh_per_second=4) as live:
        yield lambda view: live.update(page(view, seconds))


class PlainLines:
    """Prints what changed since the first view, one line each: what that one shows, an earlier session told."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._seen: set[str] = set()
        self._states: dict[str, str] = {}
        self._is_first = True

    def __call__(self, view: TeamView) -> None:
        for run in reversed(view.runs):
            text = f"{run.agent}: {method_label(run.method, run.params)} {run.status} ({run.run_id})"
            text += f": {shorten(run.message, 200)}" if run.status == "failed" else ""
            self._once(f"{run.run_id} {run.status}", text)
        for row in view.leaderboard:
            text = f"{row.agent}: {row.run_id} has PGR {pgr_text(row.pgr, row.at_most)} ± {row.pgr_se:.2f}"
            self._once(f"{row.run_id} evaluated", text)
        for finding in view.findings:
            self._once(finding.finding_id, f"{finding.author}: posted {finding.kind} {finding.title!r}")
        self._is_first = False
        if view.workers_start:
            self._once("workers", WARMING)
        if is_ending(view):
            self._once("ending", ENDING)
        for agent in view.agents:
            if agent.state != self._states.get(agent.name, "running"):
                self.say(f"{agent.name}: {agent.now}")
            self._states[agent.name] = agent.state

    def _once(self, key: str, text: str) -> None:
        if key not in self._seen:
            self._seen.add(key)
            if not self._is_first:
                self.say(text)

    def say(self, text: str) -> None:
        """Print a line, after the time since the beginning."""
        line = f"[{time.monotonic() - self._start:6.1f} s] {' '.join(clean(text).split())}"
        with suppress(SystemExit):  # nobody reads us any more, and rich prints to nowhere from now on
            self._console.print(Text(line), soft_wrap=True)


def is_ending(view: TeamView) -> bool:
    """Whether the time is over, or somebody asked the team to stop, and agents have yet to leave."""
    return view.seconds_left <= 0 and any(agent.state in AT_WORK for agent in view.agents)


def page(view: TeamView, seconds: float) -> RenderableType:
    """The live page."""
    styles = {agent.name: STYLES[index % len(STYLES)] for index, agent in enumerate(view.agents)}
    head = Table.grid(padding=(0, 1), expand=True)
    head.add_column(no_wrap=True)
    head.add_column(ratio=1)
    head.add_column(no_wrap=True)
    bar = ProgressBar(total=seconds, completed=seconds - view.seconds_left)
    left = f"{duration(view.seconds_left)} left"
    left = ENDING if is_ending(view) else f"{WARMING}, {left}" if view.workers_start else left
    head.add_row(Text(f"outlearn · {view.task}", style="bold"), bar, Text(left))
    halves = Table.grid(padding=(0, 1), expand=True)
    halves.add_column(ratio=1)
    halves.add_column(ratio=1)
    halves.add_row(_board(view.leaderboard, view.runs, styles), _feed(view.findings, styles))
    active = [run for run in view.runs if run.status in ACTIVE]
    failed = Text(failures(run.message for run in view.runs if run.status == "failed"), style="red")
    return Group(head, Text(), _agents(view.agents, styles), Text(), _runs(active, styles), failed, halves)


def _table(*columns: tuple[str, int], title: str) -> Table:
    """A table with columns of fixed widths; one of width 0 takes what is left."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), expand=True)
    for header, width in columns:
        ratio = None if width else 1
        table.add_column(
            header, header_style="dim", no_wrap=True, overflow="ellipsis", width=width or None, ratio=ratio
        )
    return table


def _agents(agents: tuple[AgentView, ...], styles: dict[str, str]) -> Table:
    table = _table(("agent", 8), ("direction", 0), ("doing", 0), title="Agents")
    for agent in agents:
        table.add_row(Text(agent.name, style=styles[agent.name]), clean(agent.direction), Text(clean(agent.now)))
    return table


def _runs(runs: list[RunView], styles: dict[str, str]) -> Table:
    table = _table(("agent", 8), ("run", 0), ("", 20), ("", 9), title="Runs")
    for run in reversed(runs[:8]):
        done = f"{run.seeds_done}/{run.seeds_total} seeds" if run.status == "running" else "queued"
        label = Text(clean(shorten(method_label(run.method, run.params), 60)))
        bar = ProgressBar(total=1.0, completed=run.progress, width=20)
        table.add_row(Text(run.agent, style=styles.get(run.agent, "")), label, bar, done)
    return table


def _board(rows: tuple[LeaderboardRow, ...], runs: tuple[RunView, ...], styles: dict[str, str]) -> Table:
    table = _table(("PGR", 14), ("method", 0), ("agent", 8), title="Leaderboard")
    params = {run.run_id: run.params for run in runs}
    for row in rows[:BOARD_ROWS]:
        label = Text(clean(method_label(row.method, params.get(row.run_id, {}))))
        table.add_row(
            f"{pgr_text(row.pgr, row.at_most):>6} ± {row.pgr_se:.2f}",
            label,
            Text(row.agent, style=styles.get(row.agent, "")),
        )
    return table


def _feed(findings: tuple[Finding, ...], styles: dict[str, str]) -> Table:
    table = _table(("", 8), ("", 10), ("", 0), title="Forum")
    for finding in reversed(findings[-FEED_ROWS:]):
        author = Text(finding.author, style=styles.get(finding.author, ""))
        table.add_row(author, Text(finding.kind, style="dim"), Text(clean(finding.title)))
    return table
