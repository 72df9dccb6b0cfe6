"""Odd values for every argument of every tool of all four servers, made from the tools' own schemas."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
from floods import NoWorkers
from homes import RUNS, file_run, toy_home
from mcp.server.mcpserver.exceptions import ToolError
from measure import Figure

from outlearn.server import ToolServer
from outlearn.testing import ToolClient, connect

SECONDS = 5.0
TEXTS = {
    "empty": "",
    "NUL": "a\0b",
    "lone_surrogate": "\ud800",
    "noncharacter": "\uffff\ufffe",
    "turned_round": "\u202eabc\u2066",
    "combining": "a" + "\u0301" * 5000,
    "terminal": "\x1b[2J\x1b]0;x\x07",
    "300_letters": "a" * 300,
    "10_megabytes": "a" * 10_000_000,
    "deep_path": "a/" * 3000,
    "dots": "../" * 100 + "etc/passwd",
    "number": "1" * 5000,
    "sql": "'; drop table runs; -- \" or 1=1 %",
    "format": "{0.__class__} %s %n ${HOME} `id` $(id)",
    "run": RUNS[0],
}
NUMBERS: tuple[Any, ...] = (-1, 0, 2**31, 2**63, 2**64, 10**30, -(10**30), 1.5, float(10**300), True)
OTHERS: tuple[Any, ...] = (None, [], {}, [[]] * 50, {"a": {"b": [1, None]}}, ["a" * 300] * 200)
PLAUSIBLE = {"string": "a", "integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}


def servers(home: Path) -> dict[str, ToolServer]:
    """The four servers on one home."""
    from outlearn_evaluation.server import build as evaluation
    from outlearn_evaluation.settings import EvaluationSettings
    from outlearn_filesystem.server import build as filesystem
    from outlearn_filesystem.settings import FilesystemSettings
    from outlearn_forum.server import build as forum
    from outlearn_forum.settings import ForumSettings
    from outlearn_training.server import build as training
    from outlearn_training.settings import TrainingSettings

    return {
        "training": training(TrainingSettings(home=home, agent="ada"), NoWorkers()),
        "evaluation": evaluation(EvaluationSettings(home=home, agent="ada")),
        "forum": forum(ForumSettings(home=home, agent="ada")),
        "filesystem": filesystem(FilesystemSettings(home=home, agent="ada", search_seconds=2)),
    }


def calls(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arguments, one of which is odd, by what it is; the others are such as one would give."""
    properties = schema.get("properties", {})
    plain = {name: _plausible(properties[name]) for name in schema.get("required", [])}
    for name in properties:
        odd = itertools.chain(TEXTS.items(), ((str(n), n) for n in NUMBERS), ((str(o)[:30], o) for o in OTHERS))
        for what, value in odd:
            yield f"{name}={what}", plain | {name: value}
    yield "nothing", {}
    yield "more", plain | {"agent": "bob", "role": "operator", "self": 1, "": 1}


def _plausible(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    return PLAUSIBLE[schema.get("type", "string")]


def oddities(folder: Path) -> Iterator[Figure]:
    """For each server: calls that crashed, the slowest one, and whether it still answers. Crashes are not explained."""
    home = toy_home(folder)
    file_run(home, RUNS[0])
    for name, server in servers(home).items():
        made, bad, slowest = anyio.run(_abuse, server)
        if bad:
            print(f"  {name}: {bad[:20]}")
        yield Figure(f"{name}_odd_calls", float(made))
        yield Figure(f"{name}_crashes", float(len(bad)), 0.0)
        yield Figure(f"{name}_slowest_call_seconds", slowest, SECONDS)


async def _abuse(server: ToolServer) -> tuple[int, list[str], float]:
    made, bad, slowest = 0, list[str](), 0.0
    async with connect(server) as client:
        tools = (await client.client.list_tools()).tools
        for tool in tools:
            for what, arguments in calls(tool.input_schema):
                start = time.monotonic()
                if not await _answers(client, tool.name, arguments):
                    bad.append(f"{tool.name} {what}")
                made, slowest = made + 1, max(slowest, time.monotonic() - start)
        assert len(await client.tools()) == len(tools)
    return made, bad, slowest


async def _answers(client: ToolClient, tool: str, arguments: dict[str, Any]) -> bool:
    """Whether the call is answered, or refused with a reason."""
    try:
        await client.call(tool, **arguments)
    except ToolError as error:
        return str(error) != f"Error executing tool {tool}" and "Traceback" not in str(error)
    except TypeError:
        return True  # the client cannot even send it
    return True
