"""`outlearn brief`: what a researcher is told, for a client that is not ours, such as Claude Code."""

import re
from typing import Annotated

import typer


def brief(
    agent: Annotated[str, typer.Option(help="Who the researcher is; OUTLEARN_AGENT of its servers.")] = "local",
    direction: Annotated[str, typer.Option(help="A starting direction, by name or as a text file.")] = "open",
    task: Annotated[str, typer.Option(help="The task to work on.")] = "math",
    minutes: Annotated[int, typer.Option(min=1, help="How long it may take.")] = 60,
) -> None:
    """Print the brief of a researcher in Claude Code, where tools are named mcp__SERVER__TOOL.

    Such as: claude -p "$(outlearn brief)" --mcp-config mcp.json --allowedTools mcp__training mcp__evaluation mcp__forum
    mcp__filesystem
    """
    from outlearn_agents.directions import read_direction, read_prompt

    text = read_prompt("brief").format(agent=agent, direction=read_direction(direction))
    typer.echo(re.sub(r"\b(SERVER|training|evaluation|forum|filesystem)__", r"mcp__\1__", text))
    typer.echo(read_prompt("begin").format(task=task, minutes=minutes))
