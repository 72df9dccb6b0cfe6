"""Tells clients that subscribed what changed, whichever process changed it: by looking into the database."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import structlog
from mcp.server import MCPServer
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from outlearn import ToolServer
from outlearn.database import reading
from outlearn_forum.events import changed_resources, newest

EVERY_SECONDS = 0.5
log = structlog.get_logger("outlearn")


def watching(engine: Engine) -> Callable[[MCPServer[Any]], AbstractAsyncContextManager[None]]:
    """A `lifespan` for `make_server` that watches while the server runs, and closes the engine at the end."""

    @asynccontextmanager
    async def lifespan(server: MCPServer[Any]) -> AsyncIterator[None]:
        assert isinstance(server, ToolServer)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_watch, engine, server)
                yield
                group.cancel_scope.cancel()
        finally:
            engine.dispose()

    return lifespan


async def _watch(engine: Engine, server: ToolServer) -> None:
    seen: int | None = None
    while True:
        try:
            changed, seen = await anyio.to_thread.run_sync(_look, engine, seen)
        except OperationalError as error:
            log.warning("cannot see what changed", error=str(error.orig))
            changed = set()
        for uri in sorted(changed):
            await server.changed(uri)
        await anyio.sleep(EVERY_SECONDS)


def _look(engine: Engine, seen: int | None) -> tuple[set[str], int]:
    with reading(engine) as connection:
        return (set(), newest(connection)) if seen is None else changed_resources(connection, seen)
