"""Servers in processes of their own, their clients in this one, and turns in which the clients call all at once."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

Call = tuple[str, dict[str, Any]]
Plan = Sequence[Sequence[Call]]
"""For each caller, the calls that it makes one after another."""
START_SECONDS = 60


@dataclass(frozen=True)
class Served:
    """A server's process and its clients: over HTTP one for each caller, over stdio one that all callers share."""

    process: psutil.Process
    clients: Sequence[Client]


@dataclass(frozen=True)
class Turn:
    """What the calls of a plan took."""

    calls: int
    seconds: float
    taken_ms: Sequence[float]
    server_cpu_seconds: float
    client_cpu_seconds: float

    @property
    def seconds_a_call(self) -> float:
        return self.seconds / self.calls


@asynccontextmanager
async def over_stdio(command: Sequence[str]) -> AsyncIterator[Served]:
    """`python COMMAND` as a child that speaks over stdin and stdout, with one client."""
    before = {child.pid for child in psutil.Process().children()}
    parameters = StdioServerParameters(command=sys.executable, args=list(command), env=_environment())
    async with Client(stdio_client(parameters, errlog=sys.stderr)) as client:
        (process,) = (child for child in psutil.Process().children() if child.pid not in before)
        yield Served(process, [client])


@asynccontextmanager
async def over_http(command: Sequence[str], folder: Path, tokens: Sequence[str]) -> AsyncIterator[Served]:
    """`python COMMAND`, which writes its URL to a file, with a client of its own for each token (they may repeat)."""
    ready = folder / "ready.json"
    with subprocess.Popen([sys.executable, *command, "--ready-file", str(ready)], env=_environment()) as server:
        try:
            url = await _url(server, ready)
            async with _clients(url, tokens) as clients:
                yield Served(psutil.Process(server.pid), clients)
        finally:
            server.terminate()


async def take_turn(served: Served, plan: Plan) -> Turn:
    """Make all calls of a plan; the callers go on side by side. Raises RuntimeError where a call fails."""
    taken: list[float] = []
    gc.collect()
    cpu, own_cpu, start = _cpu_seconds(served.process), time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number, calls in enumerate(plan):
            group.create_task(_make(served.clients[number % len(served.clients)], calls, taken))
    seconds = time.perf_counter() - start
    server_cpu = _cpu_seconds(served.process) - cpu
    return Turn(len(taken), seconds, taken, server_cpu, time.process_time() - own_cpu)


async def _make(client: Client, calls: Sequence[Call], taken: list[float]) -> None:
    for tool, arguments in calls:
        start = time.perf_counter()
        result = await client.call_tool(tool, arguments)
        taken.append(1000 * (time.perf_counter() - start))
        if result.is_error:
            raise RuntimeError(f"{tool} {arguments}: {result.content}")


@asynccontextmanager
async def _clients(url: str, tokens: Sequence[str]) -> AsyncIterator[Sequence[Client]]:
    """A client for each token, in a task of its own: opened one in the other, each would be slower than the last."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        ready = [asyncio.get_running_loop().create_future() for _ in tokens]
        for token, future in zip(tokens, ready, strict=True):
            group.create_task(_hold(url, token, future, over))
        yield await asyncio.gather(*ready)
        over.set()


async def _hold(url: str, token: str, ready: "asyncio.Future[Client]", over: asyncio.Event) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    # there is no TLS on loopback, and each client would read all certificates
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120, verify=False) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        ready.set_result(client)
        await over.wait()


async def _url(server: "subprocess.Popen[bytes]", ready: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if ready.exists():
            return str(json.loads(ready.read_text())["url"])
        await asyncio.sleep(0.05)
    raise RuntimeError(f"{server.args!r} did not start (exit status {server.poll()})")


def _environment() -> dict[str, str]:
    """What servers may know of ours: no settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OUTLEARN_")}


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
