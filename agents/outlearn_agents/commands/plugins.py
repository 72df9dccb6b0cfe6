"""`outlearn plugins`: what is registered."""

import json

import typer

from outlearn_agents.terminal.options import Json
from outlearn_agents.terminal.working import console


def plugins(as_json: Json = False) -> None:
    """List servers, methods, researchers and sources.

    Built-in ones and other packages'. Nothing is imported. Such as:

    outlearn plugins --json
    """
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
