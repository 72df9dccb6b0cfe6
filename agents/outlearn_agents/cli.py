"""The `outlearn` command. What a command needs is imported when it runs, so that `outlearn --help` is quick."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outlearn.errors import InvalidInputError, OutlearnError
from outlearn_agents.calibrate import calibrate
from outlearn_agents.commitment import reveal, verify_commitment
from outlearn_agents.export import export
from outlearn_agents.options import DEFAULT_HOME, Home, Json, pairs
from outlearn_agents.prepare import prepare

if TYPE_CHECKING:
    from rich.console import Console

    from outlearn_agents.folder import RunFolder, TeamSpec
    from outlearn_agents.summary import Summary

app = typer.Typer(
    help="Teams of researchers that make a strong student outlearn its weak teacher.\n\n"
    "Begin with `outlearn demo`: three offline researchers, about two minutes, no network and no API key. Then, with "
    "ANTHROPIC_API_KEY set: `outlearn team runs/mine --researcher claude --minutes 60`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="The run folder, such as runs/mine.", show_default=False)
]


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

    At the end: a table of methods, the best finding, and report.html and summary.json in the run folder.
    """
    from outlearn_agents.directions import choose_directions
    from outlearn_agents.folder import RunFolder, next_folder
    from outlearn_agents.team import make_team

    folder = RunFolder(run or next_folder(Path("runs"), "demo"))
    if folder.spec_file.exists():
        spec = folder.read_spec()
    else:
        spec = make_team(task, choose_directions([], agents), seed=seed)
    # a fast machine would use up a day's evaluations before the time is over
    _work(folder, spec, seconds, as_json, {"evaluation": ["--daily-evaluations", "30"]})


@app.command()
def team(
    run: RunArgument,
    task: Annotated[str | None, typer.Option(help="The task; default math.")] = None,
    agents: Annotated[int | None, typer.Option(min=1, max=64, help="How many researchers; default 3.")] = None,
    direction: Annotated[
        list[str] | None, typer.Option(help="A starting direction, by name or as a text file; give it several times.")
    ] = None,
    researcher: Annotated[str | None, typer.Option(help="offline, claude or a plugin's; default offline.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the researcher: model=claude-opus-5-5 ...")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="Time for this session.")] = 30,
    seed: Annotated[int | None, typer.Option(help="Seed of the first researcher; the next has the next.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Training workers; default one a GPU, else one a core.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a team of researchers work in a run folder; in a folder where it worked before, it goes on.

    Ctrl-C once: agents finish what they are saying, and the report is written. Twice: everything ends now.
    """
    from outlearn_agents.directions import choose_directions
    from outlearn_agents.folder import RunFolder
    from outlearn_agents.team import make_team

    folder = RunFolder(run)
    spec = folder.read_spec() if folder.spec_file.exists() else None
    if spec is None or any(one not in (None, []) for one in (task, agents, direction, researcher, option, seed)):
        texts = choose_directions(direction or [], agents or max(3, len(direction or [])))
        wanted = make_team(task or "math", texts, researcher or "offline", seed or 0, pairs(option or []))
        if spec and (wanted.task, wanted.agents) != (spec.task, spec.agents):
            raise InvalidInputError(
                f"{str(run)!r} has another team already: leave out what describes a team to go on with it, "
                "or name another folder"
            )
        spec = spec or wanted
    _work(folder, spec, 60 * minutes, as_json, {"training": ["--workers", str(workers)]} if workers else {})


@app.command()
def report(run: RunArgument, as_json: Json = False) -> None:
    """Write summary.json and report.html of a run folder again, also after a team that was killed."""
    import anyio

    from outlearn_agents.at_rest import collect_at_rest
    from outlearn_agents.folder import RunFolder
    from outlearn_agents.team import write_summary

    folder = RunFolder(run)
    summary = anyio.run(collect_at_rest, folder, folder.read_spec())
    write_summary(folder, summary)
    _print(summary, folder, as_json)


app.command()(prepare)
app.command()(calibrate)
app.command()(export)
app.command()(reveal)
app.command("verify-commitment")(verify_commitment)


@app.command("testbed-table")
def results_table(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tiny tasks; default: all.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder for testbed.json and testbed.md.")] = Path("docs/results"),
    as_json: Json = False,
) -> None:
    """Run every method on the tiny tasks over five fresh seeds and write the results table. Takes minutes.

    What stands in the table about other tasks is kept.
    """
    from outlearn_agents.progress import progress_bar
    from outlearn_training.table import TABLE, as_markdown, make_table, write_table
    from outlearn_training.testbed import TESTBEDS

    with progress_bar("testbed") as report_progress:
        rows = make_table(tasks or list(TESTBEDS), report_progress)
    table = write_table(out, rows)
    typer.echo(TABLE.dump_json(table, indent=1).decode() if as_json else as_markdown(table))


@app.command()
def token(
    agent: Annotated[str, typer.Argument(help="Whose token it is, such as ada.", show_default=False)],
    home: Home = DEFAULT_HOME,
    tokens: Annotated[
        Path | None, typer.Option(help="The token file; default: tokens.json in the home folder.")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Sees every agent's runs and is never charged.")] = False,
    as_json: Json = False,
) -> None:
    """Make a bearer token for the tool servers; it is shown once. Servers take them with --tokens FILE."""
    import json

    from outlearn.identity import TokenFile

    path = tokens or home / "tokens.json"
    made = TokenFile(path).issue(agent, "operator" if operator else "agent")
    typer.echo(json.dumps({"agent": agent, "token": made, "file": str(path)}) if as_json else made)


@app.command()
def plugins(as_json: Json = False) -> None:
    """List servers, methods, researchers and data sources, built-in and other packages'. Nothing is imported."""
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
    _console().print(table)


def _work(
    folder: "RunFolder", spec: "TeamSpec", seconds: float, as_json: bool, server_options: dict[str, list[str]]
) -> None:
    """Run a team with progress on the screen, and print what came out."""
    import anyio

    from outlearn_agents.live import show
    from outlearn_agents.team import run_team

    with show(_console(to_stderr=as_json), seconds) as observe:
        summary = anyio.run(run_team, folder, spec, seconds, observe, server_options)
    if summary is None:
        typer.echo(f"stopped; `outlearn team {folder.root}` goes on, `outlearn report {folder.root}` sums up", err=True)
        raise typer.Exit(130)
    _print(summary, folder, as_json)


def _print(summary: "Summary", folder: "RunFolder", as_json: bool) -> None:
    from outlearn_agents.outcome import print_outcome

    if as_json:
        typer.echo(summary.model_dump_json(indent=1))
    else:
        print_outcome(_console(), summary, folder.report)


def _console(to_stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=to_stderr)


def main() -> None:
    """Run the command line; errors that the user can mend end in one line."""
    try:
        app()
    except OutlearnError as error:
        sys.stderr.write(f"outlearn: {error}\n")
        raise SystemExit(2) from None
