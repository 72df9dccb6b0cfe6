"""What tool calls cost: requests a second and milliseconds, with 1, 9, 64 and 256 clients, over stdio and HTTP.

    python benchmarks/services.py [--quick] [--clients 1 9] [--tools search vote] [--transport http]

In every round each tool has a turn, two echo tools among them: one on a bare `mcp` server, one on a server of our kit;
and one of the bare server that answers with 8 KB, as many as ten findings have, to tell what length alone costs.
In a turn all clients call at once, each again as soon as it has its answer. Every server is a process of its own; the
clients, `mcp`'s, are in this one. Over HTTP there are so many clients, with connections of their own and the bearer
tokens of sixteen agents. Over stdio a server has one client: there "clients" are callers at once on one connection.
`evaluate` asks what was asked before; `evaluate_new` asks new questions about runs that ended when the round began. A
team has 200 of these in all, so its turns have few calls, and are held against turns of the echo tools with as few: the
first calls after a pause cost more than the next ones.

Writes `benchmarks/results/services.json`: `{"stdio": {tool: {clients: row}}, "http": {...}, "inside": ..., ...}`. A
row has `rps`; `p50_ms` and `p99_ms` of a call as its client sees it; the processor time of a call, the server's
`cpu_ms` and the clients' `client_cpu_ms`; and how many times the time of an echo its turns took, `vs_echo` for the bare
one, `vs_kit_echo` for the kit's: each turn is held against the echo's of its round, and the median is taken.
"""

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import tempfile
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import uvloop
from inside import measure_inside
from load import Plan, Served, Turn, over_http, over_stdio, take_turn
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rows import Rows, rows_of, table_of
from worlds import BARE, FEW_BARE, FEW_KIT, KIT, LONG, Tool, World, agent_of, make_tools

RESULTS = Path(__file__).parent / "results" / "services.json"
ECHOES = (BARE, KIT, LONG, FEW_BARE, FEW_KIT)
TRANSPORTS = ("stdio", "http")
FORUM = ("post", "reply", "vote", "search", "list_threads", "read_thread")
TOOLS = (*FORUM, "leaderboard", "evaluate", "evaluate_new", "read_file", "write_file")
SHARE_OF_FEW = 4
REST_SECONDS, REST_SECONDS_A_CALL = 1.5, 0.02
"""From when a run ends until it is asked about."""
QUICK = {"clients": [1, 9], "rounds": 2, "calls": 36, "findings": 2_000, "runs": 500, "json": None}


async def measure(world: World, transport: str, options: argparse.Namespace, progress: Progress) -> Rows:
    """The rows of one transport."""
    tools = {name: one for name, one in make_tools(world, transport).items() if name in {*ECHOES, *options.tools}}
    bar = progress.add_task(transport, total=len(options.clients) * (options.rounds + 1))
    found: Rows = {name: {} for name in tools}
    async with AsyncExitStack() as stack:
        servers = {tool.server for tool in tools.values()}
        served = await serve(stack, world, transport, servers, max(options.clients))
        gc.freeze()  # or each collection goes through all clients
        for clients in options.clients:
            turns = await rounds(tools, served, clients, options, lambda: progress.advance(bar))
            for name, row in rows_of(turns).items():
                found[name][clients] = row
    return found


async def serve(
    stack: AsyncExitStack, world: World, transport: str, servers: Collection[str], clients: int
) -> dict[str, Served]:
    """Start servers, and connect so many clients to each of them."""
    found = {}
    commands = world.commands(transport)
    tokens = [world.tokens[agent_of(caller, transport)] for caller in range(clients)]
    for name in sorted(servers):
        if transport == "stdio":
            found[name] = await stack.enter_async_context(over_stdio(commands[name]))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            found[name] = await stack.enter_async_context(over_http(commands[name], Path(folder), tokens))
    return found


async def rounds(
    tools: Mapping[str, Tool],
    served: Mapping[str, Served],
    clients: int,
    options: argparse.Namespace,
    advance: Callable[[], None],
) -> dict[str, list[Turn]]:
    """The turns of each tool, without those of the first round, which warms up."""
    turns: dict[str, list[Turn]] = {name: [] for name in tools}
    for number in range(options.rounds + 1):
        early = {name: plan(tool, clients, options) for name, tool in tools.items() if tool.early}
        await asyncio.sleep(REST_SECONDS + REST_SECONDS_A_CALL * sum(len(one) for its in early.values() for one in its))
        for name, tool in tools.items():
            asked = early.get(name) or plan(tool, clients, options)
            turn = await take_turn(served[tool.server], asked)
            turns[name] += [turn] if number else []
        advance()
    return turns


def plan(tool: Tool, clients: int, options: argparse.Namespace) -> Plan:
    """About so many calls of so many clients, and at least one of each."""
    calls = options.calls // SHARE_OF_FEW if tool.few else options.calls
    tool.before()
    return [[tool.ask(caller) for _ in range(max(1, calls // clients))] for caller in range(clients)]


def main() -> None:
    options = read_options()
    console = Console()
    raise_descriptors()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, console=console) as progress:
        bar = progress.add_task(f"{options.findings:,} findings, {options.runs:,} runs", total=1)
        world = World(Path(folder), options.findings, options.runs)
        inside = measure_inside(world.shared, world.ranked)
        progress.advance(bar)
        results = {one: uvloop.run(measure(world, one, options, progress)) for one in options.transport}
    for transport, rows in results.items():
        console.print(table_of(transport, rows))
    for name, figures in inside.items():
        console.print(f"inside: {name}: p50 {figures['p50_ms']} ms, p95 {figures['p95_ms']} ms")
    if options.json:
        sizes = {"findings": options.findings, "runs": options.runs, "rounds": options.rounds, "calls": options.calls}
        written = {**results, "inside": inside, "sizes": sizes, "machine": machine()}
        options.json.write_text(json.dumps(written, indent=1) + "\n")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="little of everything, and no file; other options still hold"
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 9, 64, 256])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, metavar="TOOL", help=", ".join(TOOLS))
    parser.add_argument("--transport", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--calls", type=int, default=96, help="in a turn, of all clients together")
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=10_000, help="on the leaderboard")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write the figures")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args()


def raise_descriptors() -> None:
    """Each client takes a descriptor, and many systems begin with 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def machine() -> dict[str, object]:
    """Where and when the figures were taken."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "mcp": version("mcp"),
    }


if __name__ == "__main__":
    main()
