"""The `outlearn` command. What a command needs is imported when it runs, so that `outlearn --help` is quick."""

import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from outlearn.errors import OutlearnError
from outlearn_agents.commands.audit import audit, review
from outlearn_agents.commands.brief import brief
from outlearn_agents.commands.calibrate import calibrate
from outlearn_agents.commands.commitment import reveal, verify_commitment
from outlearn_agents.commands.compare import compare
from outlearn_agents.commands.demo import demo
from outlearn_agents.commands.export import export
from outlearn_agents.commands.finalize import finalize
from outlearn_agents.commands.inspect import inspect
from outlearn_agents.commands.plugins import plugins
from outlearn_agents.commands.prepare import prepare
from outlearn_agents.commands.report import report
from outlearn_agents.commands.team import team
from outlearn_agents.commands.testbed_table import results_table
from outlearn_agents.commands.token import token
from outlearn_agents.terminal.failing import said_by_system
from outlearn_agents.terminal.mistyped import refuse_mistyped


class InOrderOfUse(TyperGroup):
    """Lists commands as one comes to need them; typer would put groups last."""

    def list_commands(self, ctx: Any) -> list[str]:
        """`team` after `demo`, the others as they are registered."""
        others = [name for name in super().list_commands(ctx) if name not in FIRST]
        return [*FIRST, *others]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Say which command is meant, one of `team` too, where this is none. Raises InvalidInputError."""
        if args[0] not in self.commands:
            team_commands: list[str] = self.commands["team"].list_commands(ctx)  # type: ignore[attr-defined]
            refuse_mistyped(args[0], [*(f"team {name}" for name in team_commands), *self.commands])
        return super().resolve_command(ctx, args)


FIRST = ("demo", "team")
app = typer.Typer(
    cls=InOrderOfUse,
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


app.command()(demo)
app.add_typer(team, name="team")
for one in (report, compare, inspect, prepare, calibrate, brief, finalize, export, token, audit, review, reveal):
    app.command()(one)
app.command("verify-commitment")(verify_commitment)
app.command()(plugins)
app.command("testbed-table")(results_table)


def main() -> None:
    """Run the command line; errors that the user can mend end in one line."""
    try:
        app()
    except OutlearnError as error:
        sys.stderr.write(f"outlearn: {error}\n")
        raise SystemExit(2) from None
    except Exception as error:
        if not (words := said_by_system(error)):
            raise
        sys.stderr.write(f"outlearn: {words}\n")
        try:
            sys.stdout.flush()
        except OSError:
            with suppress(OSError):
                sys.stdout.close()  # or what it still holds would be tried again, and told of, at the end
        raise SystemExit(1) from None
