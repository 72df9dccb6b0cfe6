"""What a tool call costs: our servers' tools beside an echo tool on a bare `MCPServer`, in one run, interleaved.

    python benchmarks/tool_calls.py [--calls 200] [--rounds 5]

One client makes one call after another. The ratio is the median time of a call over that of the bare echo tool on the
same transport. Writes `benchmarks/results/tool_calls.json`.
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
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters, stdio_client
from mcp.server import MCPServer
from rich.console import Console
from rich.table import Table

from outlearn_training.prepare import prepare

RESULTS = Path(__file__).parent / "results" / "tool_calls.json"
BARE = "bare echo"
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
    process = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        while not ready.exists():
            await asyncio.sleep(0.05)
        async with Client(await _answering(json.loads(ready.read_text())["url"])) as client:
            yield client
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
            options = (
                [str(ready)] if name == BARE else ["--transport", "http", "--port", "0", "--ready-file", str(ready)]
            )
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


def serve_bare(transport: str, ready: str) -> None:
    """Serve the bare echo tool."""
    import uvicorn

    server = bare_server()
    if transport == "stdio":
        server.run("stdio")
        return
    config = uvicorn.Config(server.streamable_http_app(), "127.0.0.1", 0, log_level="error")
    socket = config.bind_socket()
    Path(ready).write_text(json.dumps({"url": f"http://127.0.0.1:{socket.getsockname()[1]}/mcp"}))
    uvicorn.Server(config).run(sockets=[socket])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="calls to each tool in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve-bare", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare:
        serve_bare(options.serve_bare[0], options.serve_bare[-1])
        return
    results = {}
    for transport in ("stdio", "http"):
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            results[transport] = asyncio.run(measure(transport, Path(folder), options.calls, options.rounds))
    table = Table("tool", "transport", "ms a call", "times the bare echo")
    for transport, medians in results.items():
        for name, value in medians.items():
            table.add_row(name, transport, f"{value:.2f}", f"{value / medians[BARE]:.2f}")
    Console().print(table)
    machine = {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    RESULTS.write_text(json.dumps({"ms_per_call": results, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
