"""A team at work on the screen, and what is printed when it has finished."""

from typing import TYPE_CHECKING

import typer

from outlearn.hints import command_line

if TYPE_CHECKING:
    from rich.console import Console

    from outlearn_agents.report.summary import Summary
    from outlearn_agents.run_folder import RunFolder, RunnerSettings, TeamSpec
    from outlearn_agents.spending.ledger import Budget


def work(
    folder: "RunFolder",
    spec: "TeamSpec",
    seconds: float,
    as_json: bool,
    settings: "RunnerSettings | None" = None,
    budget: "Budget | None" = None,
) -> None:
    """Run a team with progress on the screen, and print what came out."""
    import anyio

    from outlearn_agents.team.live import show
    from outlearn_agents.team.runner import run_team

    with show(console(to_stderr=as_json), seconds) as observe:
        summary = anyio.run(run_team, folder, spec, seconds, observe, settings, budget)
    if summary is None:
        again, report = (command_line("outlearn", command, folder.root) for command in ("team", "report"))
        typer.echo(f"stopped; `{again}` goes on, `{report}` sums up", err=True)
        raise typer.Exit(130)
    show_summary(summary, folder, as_json)


def show_summary(summary: "Summary", folder: "RunFolder", as_json: bool) -> None:
    """Print a summary for people, or as JSON."""
    from outlearn_agents.report.outcome import print_outcome

    if as_json:
        typer.echo(summary.model_dump_json(indent=1))
    else:
        print_outcome(console(), summary, folder.report)


def console(to_stderr: bool = False) -> "Console":
    """Where to print."""
    from rich.console import Console

    return Console(stderr=to_stderr)
