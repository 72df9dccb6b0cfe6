"""The `outlearn` command. What a command needs is imported when it runs, so that `outlearn --help` is quick."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from outlearn.errors import OutlearnError
from outlearn_agents.commands.audit import audit, review
from outlearn_agents.commands.brief import brief
from outlearn_agents.commands.calibrate import calibrate
from outlearn_agents.commands.commitment import reveal, verify_commitment
from outlearn_agents.commands.compare import compare
from outlearn_agents.commands.export import export
from outlearn_agents.commands.finalize import finalize
from outlearn_agents.commands.inspect import inspect
from outlearn_agents.commands.options import Json, RunArgument
from outlearn_agents.commands.prepare import prepare
from outlearn_agents.commands.team import team
from outlearn_agents.commands.tokens import token
from outlearn_agents.commands.working import console, show_summary, work

app = typer.Typer(
    help="Teams of researchers that make a strong student outlearn its weak teacher.\n\n"
    "Begin with `outlearn demo`: three offline researchers, about two minutes, no network and no API key. Then, with "
    "ANTHROPIC_API_KEY set: `outlearn team runs/mine --researcher claude --minutes 60`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"outlearn {version('outlearn')}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    run: Annotated[
        Path | None, typer.Option(help="Run folder; default: the next free runs/demo, runs/demo-2, ...")
    ] = None,
    seconds: Annotated[float, typer.Option(min=10, help="Time for research, start and end not counted.")] = 110,
    agents: Annotated[int, typer.Option(min=1, max=64, help="How many offline researchers.")] = 3,
    task: Annotated[str, typer.Option(help="The task, one of the tiny testbed.")] = "math",
    seed: Annotated[int, typer.Option(help="Seed of the researchers' searches.")] = 0,
    as_json: Json = False,
) -> None:
    """Watch three offline researchers raise PGR, with real training of tiny Qwen3 models: about two minutes.

    At the end: a table of methods, the best finding, and report.html and summary.json in the run folder. Such as:

    outlearn demo --seconds 60 --agents 2
    """
    from outlearn_agents.directions import choose_directions
    from outlearn_agents.team.folder import RunFolder, next_folder
    from outlearn_agents.team.runner import make_team

    folder = RunFolder(run or next_folder(Path("runs"), "demo"))
    if folder.spec_file.exists():
        spec = folder.read_spec()
    else:
        # a fast machine would use up a day's evaluations before the time is over
        spec = make_team(task, choose_directions([], agents), seed=seed)
        spec = spec.with_server_options("evaluation", ["--daily-evaluations", "30"])
    work(folder, spec, seconds, as_json)


@app.command()
def report(run: RunArgument, as_json: Json = False) -> None:
    """Write summary.json and report.html of a run folder again, also after a team that was killed.

    Such as: outlearn report runs/mine --json
    """
    import anyio

    from outlearn_agents.report.at_rest import collect_at_rest
    from outlearn_agents.team.folder import RunFolder
    from outlearn_agents.team.runner import write_summary

    folder = RunFolder(run)
    summary = anyio.run(collect_at_rest, folder, folder.read_spec())
    write_summary(folder, summary)
    show_summary(summary, folder, as_json)


app.add_typer(team, name="team")
app.command()(prepare)
app.command()(calibrate)
app.command()(brief)
app.command()(compare)
app.command()(inspect)
app.command()(export)
app.command()(finalize)
app.command()(reveal)
app.command()(audit)
app.command()(review)
app.command("verify-commitment")(verify_commitment)
app.command()(token)


@app.command("testbed-table")
def results_table(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tiny tasks; default: all.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder for testbed.json and testbed.md.")] = Path("docs/results"),
    as_json: Json = False,
) -> None:
    """Run every method on the tiny tasks over five fresh seeds and write the results table. Takes minutes.

    What stands in the table about other tasks is kept. Such as:

    outlearn testbed-table math --out results
    """
    from outlearn_agents.commands.progress import progress_bar
    from outlearn_training.table import TABLE, as_markdown, make_table, write_table
    from outlearn_training.testbed import TESTBEDS

    with progress_bar("testbed") as report_progress:
        rows = make_table(tasks or list(TESTBEDS), report_progress)
    table = write_table(out, rows)
    typer.echo(TABLE.dump_json(table, indent=1).decode() if as_json else as_markdown(table))


@app.command()
def plugins(as_json: Json = False) -> None:
    """List servers, methods, researchers and data sources, built-in and other packages'. Nothing is imported.

    Such as: outlearn plugins --json
    """
    import json

    from rich.table import Table

    from outlearn.registry import METHODS, RESEARCHERS, SERVERS, SOURCES, Registry

    found = {group: Registry(group).describe() for group in (SERVERS, METHODS, RESEARCHERS, SOURCES)}
    if as_json:
        typer.echo(json.dumps({group: [one.model_dump() for one in some] for group, some in found.items()}))
        return
    table = Table(box=None)
    for column in ("group", "name", "target", "package"):
        table.add_column(column, overflow="fold")
    for group, some in found.items():
        for one in some:
            table.add_row(group, one.name, one.target, f"{one.distribution} {one.version}")
    console().print(table)


def main() -> None:
    """Run the command line; errors that the user can mend end in one line."""
    try:
        app()
    except OutlearnError as error:
        sys.stderr.write(f"outlearn: {error}\n")
        raise SystemExit(2) from None
