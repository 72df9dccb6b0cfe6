"""The durable run queue. Every change is one transaction; a killed server or worker loses and repeats nothing."""

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
    func,
    select,
)

from outlearn.database import as_utc, open_database, reading, utc_now, writing
from outlearn.errors import BudgetError, ConflictError, NotFoundError
from outlearn.identity import Caller
from outlearn.types import FINISHED, RunKind, RunStatus, RunUsage, RunView

MAX_ATTEMPTS = 3
MIN_PROGRESS = 0.02
"""From where on the time left can be estimated."""
metadata = MetaData()
runs = Table(
    "runs",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False, unique=True),
    Column("request_id", String(80)),
    Column("agent", String(32), nullable=False, index=True),
    Column("task", String(48), nullable=False),
    Column("method", String(300), nullable=False),
    Column("source_sha256", String(64), nullable=False),
    Column("params", JSON, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("seeds", JSON, nullable=False),
    Column("status", String(10), nullable=False, index=True),
    Column("slot", Integer),
    Column("attempts", Integer, nullable=False, default=0),
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
    UniqueConstraint("agent", "request_id"),
)


class Submission(BaseModel):
    """A run to be queued."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    agent: str
    task: str
    method: str
    source_sha256: str
    params: dict[str, Any]
    kind: RunKind
    seeds: tuple[int, ...]
    request_id: str | None = None


class Run(Submission):
    """A queued run, as a worker needs to know it."""

    run_id: str


class RunQueue:
    """Runs in a database that servers and workers share."""

    def __init__(self, url: str) -> None:
        self._engine = open_database(url, metadata)

    def submit(self, submission: Submission, *, max_waiting: int) -> RunView:
        """Queue a run. The same `request_id` again returns the run that it made.

        Raises:
            ConflictError: the `request_id` was used for another submission.
            BudgetError: the agent has `max_waiting` unfinished runs.
        """
        with writing(self._engine) as connection:
            known = _by_request(connection, submission)
            if known is not None:
                return _view(connection, known)
            if _unfinished(connection, submission.agent) >= max_waiting:
                raise BudgetError(f"you have {max_waiting} unfinished runs; wait for one, or `cancel_run` one")
            run_id = f"run-{secrets.token_hex(5)}"
            values = submission.model_dump() | {"run_id": run_id, "status": "queued", "metrics": {}}
            connection.execute(runs.insert().values(values | {"submitted_at": utc_now(), "message": "queued"}))
            return _view(connection, _row(connection, run_id))

    def view(self, run_id: str, caller: Caller) -> RunView:
        """A run of the caller's. Raises NotFoundError, also where it is another agent's."""
        with reading(self._engine) as connection:
            return _view(connection, _row(connection, run_id, caller))

    def page(
        self, caller: Caller, *, status: RunStatus | None, limit: int, before: int | None
    ) -> tuple[list[RunView], int | None]:
        """The caller's runs, newest first, with a cursor for older ones. An operator sees all agents' runs."""
        query = select(runs).order_by(runs.c.number.desc()).limit(limit + 1)
        if not caller.is_operator:
            query = query.where(runs.c.agent == caller.agent)
        if status:
            query = query.where(runs.c.status == status)
        if before is not None:
            query = query.where(runs.c.number < before)
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
            return [_view(connection, row) for row in rows[:limit]], rows[limit - 1].number if rows[limit:] else None

    def cancel(self, run_id: str, caller: Caller) -> RunView:
        """Cancel a queued run now, a running one within seconds, a finished one not at all."""
        with writing(self._engine) as connection:
            row = _row(connection, run_id, caller)
            if row.status == "queued":
                _update(connection, run_id, status="cancelled", message="cancelled", finished_at=utc_now())
            elif row.status == "running":
                _update(connection, run_id, cancel_requested=True)
            return _view(connection, _row(connection, run_id))

    def claim(self, slot: int, is_alive: Callable[[int], bool]) -> Run | None:
        """Take the next run for worker `slot`: agents with the fewest running runs first, then the oldest run.

        Runs of workers that are not alive are queued again, at most `MAX_ATTEMPTS` times.
        """
        if not self.waiting():  # idle workers ask all the time, and must not hold the write lock for it
            return None
        with writing(self._engine) as connection:
            for row in connection.execute(select(runs).where(runs.c.status == "running")).all():
                if row.slot == slot or not is_alive(row.slot):
                    _release(connection, row)
            busy = (
                select(func.count())
                .where(runs.c.status == "running", runs.c.agent == (waiting := runs.alias()).c.agent)
                .scalar_subquery()
            )
            chosen = connection.execute(
                select(waiting).where(waiting.c.status == "queued").order_by(busy, waiting.c.number).limit(1)
            ).one_or_none()
            if chosen is None:
                return None
            started = {"started_at": chosen.started_at or utc_now(), "attempts": chosen.attempts + 1}
            _update(connection, chosen.run_id, status="running", slot=slot, message="starting", **started)
            return Run.model_validate(chosen)

    def report(self, run_id: str, *, seconds: float, **values: Any) -> bool:
        """Record a running run's progress and the `seconds` it took since the last report. False: it was cancelled."""
        with writing(self._engine) as connection:
            row = _row(connection, run_id)
            if row.status != "running":
                return False
            _update(connection, run_id, device_seconds=row.device_seconds + seconds, **values)
            return not row.cancel_requested

    def finish(self, run_id: str, status: RunStatus, message: str) -> None:
        """End a running run. A run that ended already is left as it is."""
        with writing(self._engine) as connection:
            row = _row(connection, run_id)
            if row.status == "running":
                extra = {"progress": 1.0, "seeds_done": len(row.seeds)} if status == "done" else {}
                _update(
                    connection, run_id, status=status, message=message[:2000], slot=None, finished_at=utc_now(), **extra
                )

    def give_back(self, run_id: str) -> None:
        """Queue a running run again because its worker was told to end, which does not count as an attempt."""
        with writing(self._engine) as connection:
            row = _row(connection, run_id)
            if row.status == "running":
                _update(connection, run_id, attempts=row.attempts - 1)
                _release(connection, _row(connection, run_id), "its worker was stopped")

    def waiting(self) -> int:
        """Number of unfinished runs."""
        with reading(self._engine) as connection:
            query = select(func.count()).select_from(runs).where(runs.c.status.in_(("queued", "running")))
            return int(connection.execute(query).scalar_one())


def _release(connection: Connection, row: Row[Any], reason: str = "its worker died") -> None:
    """Give up a run whose worker does not go on."""
    if row.cancel_requested:
        _update(connection, row.run_id, status="cancelled", message="cancelled", slot=None, finished_at=utc_now())
    elif row.attempts >= MAX_ATTEMPTS:
        message = f"its worker died {row.attempts} times while running it, probably for want of memory; use less"
        _update(connection, row.run_id, status="failed", message=message, slot=None, finished_at=utc_now())
    else:
        _update(connection, row.run_id, status="queued", message=f"queued again: {reason}", slot=None)


def _update(connection: Connection, run_id: str, **values: Any) -> None:
    connection.execute(runs.update().where(runs.c.run_id == run_id).values(**values))


def _row(connection: Connection, run_id: str, caller: Caller | None = None) -> Row[Any]:
    row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if row is None or (caller and not caller.is_operator and row.agent != caller.agent):
        raise NotFoundError(f"you have no run {run_id[:80]!r}; `list_runs` shows yours")
    return row


def _by_request(connection: Connection, submission: Submission) -> Row[Any] | None:
    if submission.request_id is None:
        return None
    query = select(runs).where(runs.c.agent == submission.agent, runs.c.request_id == submission.request_id)
    row = connection.execute(query).one_or_none()
    same = row is None or (
        (row.source_sha256, row.params, row.kind, row.task)
        == (submission.source_sha256, submission.params, submission.kind, submission.task)
    )
    if not same:
        raise ConflictError(f"request_id {submission.request_id!r} was used for another run; use a new one")
    return row


def _unfinished(connection: Connection, agent: str) -> int:
    query = select(func.count()).select_from(runs).where(runs.c.agent == agent, runs.c.status.not_in(tuple(FINISHED)))
    return int(connection.execute(query).scalar_one())


def _view(connection: Connection, row: Row[Any]) -> RunView:
    ahead = None
    if row.status == "queued":
        query = select(func.count()).select_from(runs).where(runs.c.status == "queued", runs.c.number < row.number)
        ahead = int(connection.execute(query).scalar_one())
    seeds: Sequence[int] = row.seeds
    return RunView(
        run_id=row.run_id,
        agent=row.agent,
        task=row.task,
        method=row.method,
        params=row.params,
        kind=row.kind,
        status=row.status,
        seeds_done=row.seeds_done,
        seeds_total=len(seeds),
        progress=round(row.progress, 3),
        message=row.message,
        metrics=row.metrics,
        queue_position=ahead,
        submitted_at=as_utc(row.submitted_at),
        started_at=as_utc(row.started_at) if row.started_at else None,
        finished_at=as_utc(row.finished_at) if row.finished_at else None,
        device_seconds=round(row.device_seconds, 2),
        seconds_left=_seconds_left(row),
        usage=RunUsage.model_validate(row.usage or {}),
    )


def _seconds_left(row: Row[Any]) -> float | None:
    """By what is done and how long that took; None where there is nothing to go by."""
    if row.status != "running" or row.progress < MIN_PROGRESS:
        return None
    left: float = row.device_seconds * (1 - row.progress) / row.progress
    return round(left, 1)
