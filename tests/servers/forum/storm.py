"""Many clients post and vote over HTTP at once; the server is killed in the middle, and clients repeat what was not
answered. Then the database is compared with what was accepted.

    python tests/servers/forum/storm.py [--clients 64] [--writes 10000]

The test suite runs it in small.
"""

import argparse
import asyncio
import random
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2
from mcp import MCPError

from outlearn.identity import TokenFile
from outlearn.testing import ToolClient, connect_http

TARGETS = 10
Write = Callable[[ToolClient], Awaitable[object]]


@dataclass
class Accepted:
    """What the server said yes to."""

    posts: dict[tuple[str, str], str] = field(default_factory=dict)
    """Ids of posts, by author and request."""
    votes: dict[tuple[str, str], int] = field(default_factory=dict)
    """Last votes, by post and agent."""
    writes: int = 0
    repeated: int = 0


class Server:
    """The forum as a process on one port, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = free.getsockname()[1]
        tokens = ["--tokens", str(home / "tokens.json"), "--log-level", "error"]
        http = ["--transport", "http", "--port", str(self._port)]
        self._command = [sys.executable, "-m", "outlearn_forum", "--home", str(home), *http, *tokens]
        self.url = f"http://127.0.0.1:{self._port}/mcp"

    async def start(self) -> None:
        self._process = subprocess.Popen(self._command)
        async with httpx2.AsyncClient() as client:
            while self._process.poll() is None:
                try:
                    await client.get(self.url.removesuffix("/mcp") + "/healthz")
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
                else:
                    return
        raise RuntimeError("the server did not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@asynccontextmanager
async def serving(home: Path) -> AsyncIterator[Server]:
    server = Server(home)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


async def storm(home: Path, clients: int, writes: int) -> Accepted:
    """`writes` posts and votes in all; the server is killed after half of them."""
    tokens = TokenFile(home / "tokens.json")
    names = [f"agent-{number}" for number in range(clients)]
    issued = {name: tokens.issue(name) for name in ("host", *names)}
    accepted = Accepted()
    async with serving(home) as server, asyncio.TaskGroup() as group:
        async with connect_http(server.url, issued["host"]) as host:
            targets = [await finding(host, accepted, "host", f"target {number}") for number in range(TARGETS)]
        for name in names:
            group.create_task(act(server.url, issued[name], name, targets, writes // clients, accepted))
        while accepted.writes < writes // 2:
            await asyncio.sleep(0.01)
        server.kill()
        await server.start()
    return accepted


async def act(url: str, token: str, name: str, targets: list[str], writes: int, accepted: Accepted) -> None:
    """One agent's findings, replies and votes, in one connection as long as that holds."""
    left = planned(name, targets, writes, accepted)
    while left:
        try:
            async with connect_http(url, token) as client:
                while left:
                    await left[-1](client)
                    left.pop()
                    accepted.writes += 1
        except (ExceptionGroup, httpx2.HTTPError, MCPError):
            accepted.repeated += 1
            await asyncio.sleep(0.1)


def planned(name: str, targets: list[str], writes: int, accepted: Accepted) -> list[Write]:
    """What the agent will do."""
    rng = random.Random(name)
    found: list[Write] = []
    for number in range(writes):
        target, request, value = rng.choice(targets), f"{name}-{number}", rng.choice((-1, 0, 1))
        kinds: tuple[Write, ...] = (
            partial(finding, accepted=accepted, name=name, request=request),
            partial(reply, accepted=accepted, name=name, request=request, thread=target),
            partial(vote, accepted=accepted, name=name, post=target, value=value),
        )
        found.append(rng.choice(kinds))
    return found


async def finding(client: ToolClient, accepted: Accepted, name: str, request: str) -> str:
    given = {"title": request, "text": f"{request} says so", "kind": "insight", "request_id": request}
    accepted.posts[name, request] = (await client.call("post_finding", **given))["post_id"]
    return accepted.posts[name, request]


async def reply(client: ToolClient, accepted: Accepted, name: str, request: str, thread: str) -> None:
    given = {"thread_id": thread, "text": f"{request} answers", "request_id": request}
    accepted.posts[name, request] = (await client.call("reply", **given))["post_id"]


async def vote(client: ToolClient, accepted: Accepted, name: str, post: str, value: int) -> None:
    await client.call("vote", post_id=post, value=value)
    accepted.votes[post, name] = value


def faults(home: Path, accepted: Accepted) -> list[str]:
    """Where the database is not what was accepted."""
    with closing(sqlite3.connect(home / "forum.sqlite")) as database:
        posts = database.execute("SELECT author, request_id, post_id FROM posts").fetchall()
        votes = {(post, agent): value for post, agent, value in database.execute("SELECT * FROM votes")}
        scores = dict(database.execute("SELECT post_id, score FROM posts WHERE author = 'host'").fetchall())
        replies = sum(row[0] for row in database.execute("SELECT replies FROM posts"))
        indexed = database.execute(
            "SELECT count(*) FROM post_words WHERE post_words MATCH 'says OR answers'"
        ).fetchone()
        damage = database.execute("PRAGMA integrity_check").fetchone()[0]
    stored = {(author, request): post for author, request, post in posts}
    summed = Counter(dict.fromkeys(scores, 0))
    for (post, _), value in votes.items():
        summed[post] += value
    checks = {
        "posts lost, changed or stored twice": stored == accepted.posts and len(posts) == len(stored),
        "votes lost or changed": votes == {key: value for key, value in accepted.votes.items() if value},
        "scores are not the sums of votes": dict(summed) == scores,
        "replies miscounted": replies == sum(post.startswith("reply-") for post in accepted.posts.values()),
        "posts are missing in the index": indexed[0] == len(posts),
        f"the file is damaged: {damage}": damage == "ok",
    }
    return [fault for fault, fine in checks.items() if not fine]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--writes", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        accepted = asyncio.run(storm(Path(folder), options.clients, options.writes))
        seconds = time.perf_counter() - start
        print(f"{accepted.writes:,} writes accepted in {seconds:.0f} s, {accepted.repeated} repeated after the crash")
        found = faults(Path(folder), accepted) or "none"
        print(f"{len(accepted.posts):,} posts and {len(accepted.votes):,} votes; faults: {found}")


if __name__ == "__main__":
    main()
