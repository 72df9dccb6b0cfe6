"""A team at work on the screen, and what is printed when it has finished."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from outlearn.errors import OutlearnError
from outlearn.hints import command_line
from outlearn_agents.terminal.failing import said_by_system

if TYPE_CHECKING:
    from rich.console import Console

    from outlearn_agents.report.summary import Summary
    from outlearn_agents.run_folder import RunFolder, RunnerSettings, TeamSpec
    from outlearn_agents.spending.ledger import Budget

WIDE = 1000
"""Columns where nobody looks at a terminal: tables in files are not folded."""


def work(
    folder: "RunFolder",
    spec: "TeamSpec",
    seconds: float,
    as_json: bool,
    settings: "RunnerSettings | None" = None,
    budget: "Budget | None" = None,
) -> None:
    """Run a team with progress on the screen, and print what came out. Exits with 1 where all agents failed."""
    import anyio

    from outlearn_agents.team.live import show
    from outlearn_agents.team.runner import run_team
    from outlearn_agents.team.status import why_all_failed

    warn_of_no_pgr(folder.root, spec.task)
    with show(console(to_stderr=as_json), seconds) as observe:
        summary = anyio.run(run_team, folder, spec, seconds, observe, settings, budget)
    if summary is None:
        again, report = (command_line("outlearn", command, folder.root) for command in ("team", "report"))
        typer.echo(f"stopped; `{again}` goes on, `{report}` sums up", err=True)
        raise typer.Exit(130)
    show_summary(summary, folder, as_json)
    if why_all_failed(folder):
        raise typer.Exit(1)


def show_summary(summary: "Summary", folder: "RunFolder", as_json: bool) -> None:
    """Print a summary for people, or as JSON."""
    from outlearn_agents.report.outcome import print_outcome
    from outlearn_agents.team.status import why_all_failed

    if as_json:
        typer.echo(summary.model_dump_json(indent=1))
    else:
        print_outcome(console(), summary, folder.report, why_all_failed(folder))


def warn_of_no_pgr(home: Path, task: str) -> None:
    """Say before the work begins that none of it can be scored, where that is so."""
    from outlearn_agents.tasks import why_no_pgr

    if why := why_no_pgr(home, task):
        typer.echo(f"warning: task {task}: {why}", err=True)


def renew_report(home: Path) -> None:
    """Bring the report of a home folder up to date. Where that fails, what was asked for is done all the same."""
    from outlearn_agents.report.at_rest import write_report_again

    try:
        write_report_again(home)
    except (OutlearnError, OSError) as error:
        again = command_line("outlearn", "report", home)
        words = said_by_system(error) or error
        typer.echo(f"warning: the report is not up to date ({words}); `{again}` writes it again", err=True)


def console(to_stderr: bool = False) -> "Console":
    """Where to print. What is no terminal has room for every table, or COLUMNS."""
    from rich.console import Console

    made = Console(stderr=to_stderr)
    return made if made.is_terminal or "COLUMNS" in os.environ else Console(stderr=to_stderr, width=WIDE)
