"""`outlearn brief`: what a researcher is told, for a client that is not ours, such as Claude Code."""

import re
from pathlib import Path
from typing import Annotated

import typer

from outlearn.tasks import prepared_names, task_names
from outlearn_agents.tasks import DEFAULT_HOME, FIRST_TASK, find_task
from outlearn_agents.terminal.options import Home


def brief(
    agent: Annotated[str, typer.Option(help="Who the researcher is; OUTLEARN_AGENT of its servers.")] = "local",
    direction: Annotated[str, typer.Option(help="A starting direction, by name or as a text file.")] = "open",
    task: Annotated[
        str | None, typer.Option(help="The task to work on; default: the home's only one, else its newest.")
    ] = None,
    minutes: Annotated[int, typer.Option(min=1, help="How long it may take.")] = 60,
    home: Home = DEFAULT_HOME,
) -> None:
    """Print a researcher's brief for Claude Code.

    Tools are named mcp__SERVER__TOOL there. --tools "" takes Claude Code's own tools away, which read the vault without
    asking; the three variables have it wait for the servers. Such as:

    \b
    MCP_CONNECTION_NONBLOCKING=0 MCP_CONNECT_TIMEOUT_MS=60000 MCP_TIMEOUT=60000 \\
    claude -p "Begin." --append-system-prompt "$(outlearn brief)" \\
      --mcp-config mcp.json --strict-mcp-config --tools "" --allowedTools \\
      mcp__training mcp__evaluation mcp__forum mcp__filesystem
    """
    from outlearn_agents.directions import read_direction, read_prompt

    is_empty = not (task_names(home) or prepared_names(home))
    chosen = find_task(home, task, (FIRST_TASK,) if is_empty else ())
    text = read_prompt("brief").format(agent=agent, direction=read_direction(direction))
    typer.echo(re.sub(r"\b(SERVER|training|evaluation|forum|filesystem)__", r"mcp__\1__", text))
    typer.echo(read_prompt("begin").format(task=chosen, minutes=minutes))
    if found := vault_in(Path.cwd(), home):
        typer.echo(
            f'note: {found} is within reach of Claude Code here: without --tools "" it reads the answers there '
            "unasked; --allowedTools takes no tool away",
            err=True,
        )


def vault_in(folder: Path, home: Path) -> Path | None:
    """A vault at or below `folder`, where homes usually lie; None where there is none."""
    homes = (home, folder, *folder.glob("runs/*"))
    vaults = (one / "vault" for one in homes if one.resolve().is_relative_to(folder.resolve()))
    return next((vault for vault in vaults if vault.is_dir()), None)
