"""`outlearn token`: bearer tokens for the tool servers."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outlearn.errors import InvalidInputError
from outlearn.hints import command_line
from outlearn_agents.tasks import DEFAULT_HOME
from outlearn_agents.terminal.options import Home, Json

if TYPE_CHECKING:
    from outlearn.identity import Grant, Role


def token(
    agent: Annotated[str, typer.Argument(help="Whose token it is, such as ada.", show_default=False)] = "",
    home: Home = DEFAULT_HOME,
    tokens: Annotated[
        Path | None, typer.Option(help="The token file; default: tokens.json in the home folder.")
    ] = None,
    operator: Annotated[bool, typer.Option("--operator", help="Sees every agent's runs and is never charged.")] = False,
    days: Annotated[float | None, typer.Option(min=0.001, help="The token ends after so many days.")] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="A new token in place of those that AGENT has.")] = False,
    grace: Annotated[float, typer.Option(min=0, help="Seconds that a rotated token goes on working.")] = 60,
    revoke: Annotated[bool, typer.Option("--revoke", help="End AGENT's tokens now, in running servers too.")] = False,
    listed: Annotated[bool, typer.Option("--list", help="Who has tokens, since when and until when.")] = False,
    as_json: Json = False,
) -> None:
    """Make, rotate, revoke or list servers' bearer tokens.

    A token is shown once, when it is made. It works until its end, also where a team works in the home folder: each
    session of a team makes tokens of its own, and ends those of the session before and no others. Such as:

    outlearn token ada --home runs/mine --days 7
    """
    from outlearn.identity import TokenFile

    if rotate + revoke + listed > 1 or bool(agent) == listed or ((operator or days) and (rotate or revoke or listed)):
        raise InvalidInputError(
            "`outlearn token AGENT` makes a token, with --operator and --days if you like; "
            "or give AGENT --rotate, AGENT --revoke, or --list alone"
        )
    path = tokens or home / "tokens.json"
    file = TokenFile(path)
    known = file.grants() if listed or revoke or rotate else []  # which makes no folder where there is no file
    if listed:
        _print(known, as_json)
    elif revoke:
        ended = file.revoke(agent)
        typer.echo(json.dumps({"agent": agent, "revoked": ended}) if as_json else f"{agent}: {ended} revoked")
    else:
        lifetime = timedelta(days=days) if days else None
        role: Role = "operator" if operator else "agent"
        made = file.rotate(agent, timedelta(seconds=grace)) if rotate else file.issue(agent, role, lifetime)
        count = sum(grant.agent == agent for grant in file.grants())
        made_known = {"agent": agent, "token": made, "file": str(path), "tokens": count}
        typer.echo(json.dumps(made_known) if as_json else made)
        if count > 1 and not rotate:
            _tell_of_others(agent, count - 1, path)


def _tell_of_others(agent: str, others: int, path: Path) -> None:
    rotate, revoke = (
        command_line("outlearn", "token", agent, "--tokens", path, one) for one in ("--rotate", "--revoke")
    )
    typer.echo(
        f"{agent} had {others} token{' already, which goes' if others == 1 else 's already, which go'} on working: "
        f"`{rotate}` puts one in place of all, `{revoke}` ends all",
        err=True,
    )


def _print(grants: "list[Grant]", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([grant.model_dump(mode="json") for grant in grants]))
        return
    from rich.table import Table

    from outlearn_agents.terminal.working import console

    table = Table(box=None)
    for column in ("agent", "role", "created (UTC)", "rotated", "ends"):
        table.add_column(column)
    for grant in grants:
        table.add_row(grant.agent, grant.role, *map(_when, (grant.created_at, grant.rotated_at, grant.expires_at)))
    console().print(table)


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment else "-"
