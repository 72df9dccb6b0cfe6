"""Agents with a forum in common."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from outlearn import ServerSettings
from outlearn.results import ResultBook, VerifiedResult, results_file
from outlearn.testing import ToolClient, connect
from outlearn_forum.server import build

RESULT = {"method": "logconf", "task": "math", "seeds": 5, "pgr": 0.6, "pgr_se": 0.05}
FINDING = {"title": "Sharp labels hurt", "text": "Training on sharpened weak labels lowers PGR.", "kind": "insight"}


@asynccontextmanager
async def team(home: Path, *agents: str) -> AsyncIterator[list[ToolClient]]:
    async with AsyncExitStack() as stack:
        servers = [build(ServerSettings(home=home, agent=agent)) for agent in agents]
        yield [await stack.enter_async_context(connect(server)) for server in servers]


def publish(home: Path, run_id: str, agent: str, pgr: float = 0.6, **fields: object) -> Path:
    result = {**RESULT, "run_id": run_id, "agent": agent, "pgr": pgr, **fields}
    ResultBook(home).publish(VerifiedResult.model_validate(result))
    return results_file(home)
