"""What a tool call costs: our servers' tools beside an echo tool on a bare `MCPServer`, in one run, interleaved.

    python benchmarks/tool_calls.py [--calls 200] [--rounds 5]

Two tables. In the first one client makes one call after another to each server. In the second 1, 9 and 64 clients call
`evaluate` at once over HTTP, and an echo tool on a bare server and on one of our kit's: with a question that was asked
before, and in the last round with new ones, which are charged and written, and of which a team has 200 in all. A ratio
is the median time of a call over that of the bare echo tool. Writes `benchmarks/results/tool_calls.json`.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mcp import Client, StdioServerParameters, stdio_client
from mcp.server import MCPServer
from rich.console import Console
from rich.table import Table

from outlearn.receipts import Receipt, ReceiptBook
from outlearn.server import make_server
from outlearn.settings import ServerSettings
from outlearn.tasks import load_card, load_secret, task_names
from outlearn_training.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "tool_calls.json"
BARE, KIT, AGAIN, NEW = "bare echo", "kit's echo", "evaluate, asked before", "evaluate, new question"
CROWDS = (1, 9, 64)
CALLS_AT_ONCE = 64  # in a round, of all clients together
OPEN_HTTP = ["--transport", "http", "--port", "0", "--unsafe-no-tokens"]
PLENTY = [f"--{whose}-evaluations=1000000" for whose in ("agent", "daily", "team")]
Call = tuple[str, dict[str, Any]]
TOOLS: dict[str, Call] = {
    "outlearn_training": ("list_runs", {}),
    "outlearn_evaluation": ("leaderboard", {}),
    "outlearn_forum": ("list_threads", {}),
    "outlearn_filesystem": ("list_directory", {}),
}


def bare_server() -> MCPServer[Any]:
    """An echo tool and nothing else."""
    server: MCPServer[Any] = MCPServer("bare")

    @server.tool()
    def echo(text: str) -> str:
        """Return the text."""
        return text

    return server


@asynccontextmanager
async def over_stdio(command: list[str]) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=sys.executable, args=command)
    async with Client(stdio_client(parameters, errlog=sys.stderr)) as client:
        yield client


@asynccontextmanager
async def over_http(command: list[str], ready: Path) -> AsyncIterator[Client]:
    async with serving(command, ready) as url, Client(url) as client:
        yield client


@asynccontextmanager
async def serving(command: list[str], ready: Path) -> AsyncIterator[str]:
    """The URL of a server that writes it to `ready`."""
    process = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        while not ready.exists():
            await asyncio.sleep(0.05)
        yield await _answering(json.loads(ready.read_text())["url"])
    finally:
        process.terminate()
        await process.wait()


async def _answering(url: str) -> str:
    """The URL, once a connection to it is accepted."""
    host, port = url.removeprefix("http://").removesuffix("/mcp").split(":")
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return url
    raise TimeoutError(f"no answer at {url}")


async def clients(transport: str, stack: AsyncExitStack, home: Path) -> dict[str, tuple[Client, Call]]:
    """A client of each server over `transport`, with the call to make."""
    bare, found = [__file__, "--serve-bare", transport], {}
    for name, (command, call) in {
        BARE: (bare, ("echo", {"text": "hello"})),
        **{
            f"{module.removeprefix('outlearn_')}: {call[0]}": (["-m", module, "--home", str(home)], call)
            for module, call in TOOLS.items()
        },
    }.items():
        if transport == "stdio":
            client = await stack.enter_async_context(over_stdio(command))
        else:
            ready = home / f"{name.split(':')[0]}.ready"
            options = [str(ready)] if name == BARE else [*OPEN_HTTP, "--ready-file", str(ready)]
            client = await stack.enter_async_context(over_http([*command, *options], ready))
        found[name] = (client, call)
    return found


async def measure(transport: str, home: Path, calls: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of a call, for each tool."""
    times: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        found = await clients(transport, stack, home)
        for _ in range(rounds + 1):
            for name, (client, (tool, arguments)) in found.items():
                start = time.perf_counter()
                for _ in range(calls):
                    result = await client.call_tool(tool, arguments)
                    if result.is_error:
                        raise RuntimeError(f"{name}: {result.content}")
                times.setdefault(name, []).append(1000 * (time.perf_counter() - start) / calls)
    return {name: statistics.median(values[1:]) for name, values in times.items()}  # the first round warms up


def file_runs(home: Path, runs: int) -> list[str]:
    """Sign receipts of finished runs that are right four times in five, on much the same items. Returns their ids."""
    task = next(iter(task_names(home)))
    card, secret, book = load_card(home, task), load_secret(home, task), ReceiptBook(home / "vault")
    rng, names = np.random.default_rng(0), [f"run-{i:010d}" for i in range(runs)]
    items = len(secret.test)
    ability = rng.normal(size=items)
    for name in names:
        of_method = ability + 0.5 * rng.normal(size=items)
        for seed in card.seeds:
            right = of_method + 0.3 * rng.normal(size=items) > -1
            sure = rng.uniform(0.5, 1, size=items)
            receipt = Receipt(
                run_id=name,
                agent="local",
                method="vanilla",
                method_sha256="0" * 64,
                task=task,
                task_fingerprint=card.fingerprint,
                seed=seed,
                weights_sha256=("1" * 64,),
                predictions=tuple(np.where(right == (secret.test_labels > 0), sure, 1 - sure).tolist()),
            )
            book.issue(receipt)
    return names


async def measure_crowds(home: Path, rounds: int) -> dict[int, dict[str, float]]:
    """Median milliseconds of a call when so many clients call at once, for each tool."""
    names = iter(file_runs(home, 1 + CALLS_AT_ONCE * len(CROWDS)))
    first = next(names)
    evaluation = ["-m", "outlearn_evaluation", "--home", str(home), *PLENTY, *OPEN_HTTP]
    asked: dict[str, Callable[[], Call]] = {
        BARE: lambda: ("echo", {"text": "hello"}),
        KIT: lambda: ("echo", {"text": "hello"}),
        AGAIN: lambda: ("evaluate", {"run_id": first}),
        NEW: lambda: ("evaluate", {"run_id": next(names)}),
    }
    async with AsyncExitStack() as stack:
        urls = {}
        for name, command in {
            BARE: [__file__, "--serve-bare", "http", str(home / "bare.url")],
            KIT: [__file__, "--serve-kit", str(home / "kit.url")],
            AGAIN: [*evaluation, "--ready-file", str(home / "evaluation.url")],
        }.items():
            urls[name] = await stack.enter_async_context(serving(command, Path(command[-1])))
        urls[NEW] = urls[AGAIN]
        return {crowd: await _crowd(urls, asked, crowd, rounds) for crowd in CROWDS}


async def _crowd(
    urls: dict[str, str], asked: dict[str, Callable[[], Call]], crowd: int, rounds: int
) -> dict[str, float]:
    times: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        found = {
            name: [await stack.enter_async_context(Client(url)) for _ in range(crowd)] for name, url in urls.items()
        }
        each = max(1, CALLS_AT_ONCE // crowd)
        for turn in range(rounds + 1):
            for name, crowded in found.items():
                if name == NEW and turn < rounds:
                    continue
                start = time.perf_counter()
                await asyncio.gather(*(_calls(client, asked[name], each) for client in crowded))
                times.setdefault(name, []).append(1000 * (time.perf_counter() - start) / (each * crowd))
    return {name: statistics.median(values[-rounds:]) for name, values in times.items()}


async def _calls(client: Client, asked: Callable[[], Call], calls: int) -> None:
    for _ in range(calls):
        result = await client.call_tool(*asked())
        if result.is_error:
            raise RuntimeError(f"{asked}: {result.content}")


def serve_bare(transport: str, ready: str) -> None:
    """Serve the bare echo tool."""
    server = bare_server()
    if transport == "stdio":
        server.run("stdio")
        return
    _serve(server, Path(ready))


def serve_kit(ready: str) -> None:
    """Serve an echo tool on a server of our kit."""
    server = make_server("kit", ServerSettings(unsafe_no_tokens=True), instructions="Echoes.")

    @server.tool()
    def echo(text: str) -> str:
        """Return the text."""
        return text

    _serve(server, Path(ready))


def _serve(server: MCPServer[Any], ready: Path) -> None:
    import uvicorn

    config = uvicorn.Config(server.streamable_http_app(), "127.0.0.1", 0, log_level="error")
    socket = config.bind_socket()
    ready.write_text(json.dumps({"url": f"http://127.0.0.1:{socket.getsockname()[1]}/mcp"}))
    uvicorn.Server(config).run(sockets=[socket])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="calls to each tool in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve-bare", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--serve-kit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare:
        serve_bare(options.serve_bare[0], options.serve_bare[-1])
        return
    if options.serve_kit:
        serve_kit(options.serve_kit)
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        crowds = asyncio.run(measure_crowds(Path(folder), options.rounds))
    for transport in ("stdio", "http"):
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            results[transport] = asyncio.run(measure(transport, Path(folder), options.calls, options.rounds))
    show("transport", results)
    show("clients", {str(crowd): medians for crowd, medians in crowds.items()})
    machine = {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    written = {"ms_per_call": results, "ms_per_call_by_clients": crowds, "machine": machine}
    RESULTS.write_text(json.dumps(written, indent=1) + "\n")


def show(by: str, results: dict[str, dict[str, float]]) -> None:
    """Print a table."""
    table = Table("tool", by, "ms a call", "times the bare echo")
    for group, medians in results.items():
        for name, value in medians.items():
            table.add_row(name, group, f"{value:.2f}", f"{value / medians[BARE]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
