"""Tells clients that subscribed what changed, whichever process changed it: by looking into the database."""

from functools import partial

import anyio
import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from outlearn import ToolServer
from outlearn.database import reading, working_until_end
from outlearn.server import Lifespan
from outlearn_forum.events import changed_resources, newest

EVERY_SECONDS = 0.5
log = structlog.get_logger("outlearn")


def watching(engine: Engine) -> Lifespan:
    """A `lifespan` for `make_server` that watches while the server runs, and closes the engine at the end."""
    return working_until_end(engine, partial(_watch, engine))


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
