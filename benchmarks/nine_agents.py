"""How long tool calls take for nine agents on this machine while it trains: `python benchmarks/nine_agents.py`.

Four real servers, real tiny training on as many workers as there are cores, and nine clients that call tools as agents
do, with a second of thought between two calls. Prints JSON: milliseconds by tool, and over all calls.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio

from outlearn.identity import TokenFile
from outlearn.toolbox import Toolbox, open_toolbox, url_in
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.team.processes import SERVERS
from outlearn_agents.team.servers import ServerProcesses
from outlearn_training.prepare import prepare

THOUGHT_SECONDS = 1.0
CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("forum", "list_threads", {}),
    ("forum", "search", {"query": "labels"}),
    ("training", "list_runs", {}),
    ("training", "list_methods", {}),
    ("evaluation", "leaderboard", {}),
    ("evaluation", "get_budget", {}),
    ("filesystem", "read_file", {"path": "notebook.md"}),
    ("filesystem", "write_file", {"path": "notebook.md", "text": "One line.\n" * 50}),
    ("filesystem", "grep", {"pattern": "line"}),
)


class Clock:
    """Milliseconds of each call, by tool."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)

    async def call(self, tools: Toolbox, server: str, tool: str, arguments: dict[str, Any]) -> Any:
        """Call a tool and note how long it took."""
        start = time.perf_counter()
        answer = await tools.call(server, tool, arguments)
        self.taken[f"{server}.{tool}"].append(1000 * (time.perf_counter() - start))
        return answer


async def agent(name: str, urls: dict[str, Any], token: str, clock: Clock, end: float) -> None:
    """Call tools until the end, with always a run or two in the queue."""
    rng = random.Random(name)
    async with open_toolbox(urls, token=token) as tools:
        await tools.call("filesystem", "write_file", {"path": "notebook.md", "text": "line\n"})
        run: dict[str, Any] | None = None
        while time.monotonic() < end:
            if run is None or run["status"] in ("done", "failed", "cancelled"):
                answer = await clock.call(tools, "training", "submit_run", {"method": "vanilla", "kind": "pilot"})
            else:
                answer = await clock.call(tools, "training", "get_run", {"run_id": run["run_id"]})
            run = None if answer.is_error else answer.content
            await clock.call(tools, *rng.choice(CALLS))
            title = f"{name} {rng.random()} {rng.random()}"
            if rng.random() < 0.1:
                post = {"title": title, "text": f"{title}: labels", "kind": "insight"}
                await clock.call(tools, "forum", "post_finding", post)
            await anyio.sleep(rng.uniform(0, 2 * THOUGHT_SECONDS))


async def measure(home: Path, agents: int, seconds: float) -> dict[str, Any]:
    """Run servers and agents."""
    folder, clock = RunFolder(home), Clock()
    prepare(home, "math")
    tokens = {f"agent{number}": TokenFile(folder.tokens).issue(f"agent{number}") for number in range(agents)}
    servers = ServerProcesses(folder, {}, restarts=0)
    try:
        await servers.start()
        urls = {name: url_in(folder.ready(name)) for name in SERVERS}
        load = os.getloadavg()[0]
        async with anyio.create_task_group() as group:
            for name, token in tokens.items():
                group.start_soon(agent, name, urls, token, clock, time.monotonic() + seconds)
    finally:
        await servers.end()
    return {
        "agents": agents,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load, 1),
        "all": summary([one for taken in clock.taken.values() for one in taken]),
        "by_tool": {name: summary(taken) for name, taken in sorted(clock.taken.items())},
    }


def summary(taken: list[float]) -> dict[str, float]:
    """Percentiles of milliseconds."""
    ordered = sorted(taken)
    at = {f"p{share}": round(ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1) for share in (50, 95, 99)}
    return {"calls": len(ordered), **at}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        print(json.dumps(asyncio.run(measure(Path(home), given.agents, given.seconds)), indent=1))


if __name__ == "__main__":
    main()
