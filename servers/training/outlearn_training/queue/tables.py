"""The tables of the run queue, and the rows as both of its sides need them."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
    select,
)

from outlearn.errors import NotFoundError
from outlearn.identity import Caller
from outlearn.requests import MAX_REQUEST_ID
from outlearn.types import RunKind

metadata = MetaData()
runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False, unique=True),
    Column("request_id", String(MAX_REQUEST_ID)),
    Column("agent", String(32), nullable=False, index=True),
    Column("task", String(48), nullable=False),
    Column("method", String(300), nullable=False),
    Column("source_sha256", String(64), nullable=False),
    Column("source_bytes", Integer, nullable=False),
    Column("params", JSON, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("seeds", JSON, nullable=False),
    Column("status", String(10), nullable=False, index=True),
    Column("attempts", Integer, nullable=False, default=0),  # how often it was queued again because workers died
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("seeds_done", Integer, nullable=False, default=0),
    Column("progress", Float, nullable=False, default=0.0),
    Column("message", String(2200), nullable=False, default=""),
    Column("metrics", JSON, nullable=False),
    Column("usage", JSON),
    Column("device_seconds", Float, nullable=False, default=0.0),
    Column("submitted_at", DateTime, nullable=False),
    Column("started_at", DateTime),
    Column("finished_at", DateTime),
    Column("claimed_at", DateTime),  # when a worker last took a seed of it
    UniqueConstraint("agent", "request_id"),
    Index("runs_by_spending", "agent", "status", "device_seconds", "seeds_done"),  # each submission sums over all runs
    Index("runs_by_claim", "agent", "claimed_at"),
)
claimed_seeds = Table(
    "claimed_seeds",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("seed", Integer, primary_key=True),
    Column("slot", Integer, nullable=False),
    Column("done", Boolean, nullable=False, default=False),
    Column("share", Float, nullable=False, default=0.0),
)
stored_weights = Table(
    "stored_weights",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

UNFINISHED = runs.c.status.in_(("queued", "running"))


class Submission(BaseModel):
    """A run to be queued."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    agent: str
    task: str
    method: str
    source_sha256: str
    source_bytes: int
    params: dict[str, Any]
    kind: RunKind
    seeds: tuple[int, ...]
    request_id: str | None = None


class Run(Submission):
    """A queued run, as a worker needs to know it."""

    run_id: str


def find_run(connection: Connection, run_id: str, caller: Caller | None = None) -> Row[Any]:
    """The row of a run. Raises NotFoundError, also where it is not the caller's."""
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None or (caller and not caller.is_operator and row.agent != caller.agent):
        raise NotFoundError(f"you have no run {run_id[:80]!r}; `list_runs` shows yours")
    return row


def update_run(connection: Connection, run_id: str, **values: Any) -> None:
    """Change columns of a run's row."""
    connection.execute(runs.update().where(runs.c.run_id == run_id).values(**values))
