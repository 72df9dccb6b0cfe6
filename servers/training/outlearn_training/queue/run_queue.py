"""The durable run queue, as servers see it. Every change is one transaction."""

import secrets
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select

from outlearn.database import as_utc, open_database, reading, utc_now, writing
from outlearn.errors import BudgetError, ConflictError
from outlearn.identity import Caller
from outlearn.requests import check_request_id
from outlearn.types import FINISHED, RunStatus, RunUsage, RunView
from outlearn_training.queue.device_budget import UNLIMITED, DeviceBudget, check_room, overspent
from outlearn_training.queue.line import read_line
from outlearn_training.queue.tables import UNFINISHED, Submission, claimed_seeds, find_run, metadata, runs, update_run

MIN_PROGRESS = 0.02
"""From where on the time left can be estimated."""
RECENT = 20
"""Finished runs by which a wait is estimated."""
EVER = 2**62


class Glance(NamedTuple):
    """What tells whether there is something new about a run."""

    status: RunStatus
    progress: float
    message: str


class RunQueue:
    """Runs in a database that servers and workers share."""

    def __init__(self, url: str) -> None:
        self.engine = open_database(url, metadata)

    def submit(
        self,
        submission: Submission,
        *,
        max_waiting: int,
        max_runs: int = EVER,
        max_source_bytes: int = EVER,
        budget: DeviceBudget = UNLIMITED,
        store: Callable[[], object] = lambda: None,
    ) -> RunView:
        """Queue a run. The same `request_id` again returns the run that it made.

        Args:
            store: stores the run's source; called where the run is let in, and before anybody sees it.

        Raises:
            ConflictError: the `request_id` was used for another submission.
            InvalidInputError: it is no request id.
            BudgetError: the agent has `max_waiting` unfinished runs, or had `max_runs` in all, or their different
                sources would be more than `max_source_bytes`, or device-seconds are short.
        """
        with writing(self.engine) as connection:
            known = _by_request(connection, submission)
            if known is not None:
                return _view(connection, known)
            if _unfinished(connection, submission.agent) >= max_waiting:
                raise BudgetError(f"you have {max_waiting} unfinished runs; wait for one, or `cancel_run` one")
            _check_kept(connection, submission, max_runs, max_source_bytes)
            note = check_room(connection, budget, submission)
            run_id = f"run-{secrets.token_hex(5)}"
            values = submission.model_dump() | {"run_id": run_id, "status": "queued", "metrics": {}}
            message = f"queued; {note}" if note else "queued"
            store()
            connection.execute(runs.insert().values(values | {"submitted_at": utc_now(), "message": message}))
            return _view(connection, find_run(connection, run_id))

    def view(self, run_id: str, caller: Caller) -> RunView:
        """A run of the caller's. Raises NotFoundError, also where it is another agent's."""
        with reading(self.engine) as connection:
            return _view(connection, find_run(connection, run_id, caller))

    def glances(self, run_ids: Iterable[str]) -> dict[str, Glance]:
        """How these runs are, by their ids, in one query. Whose they are is not asked."""
        columns = (runs.c.run_id, runs.c.status, runs.c.progress, runs.c.message)
        with reading(self.engine) as connection:
            rows = connection.execute(select(*columns).where(runs.c.run_id.in_(list(run_ids)))).all()
        return {row.run_id: Glance(row.status, round(row.progress, 3), row.message) for row in rows}

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
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
            line = read_line(connection) if any(row.status == "queued" for row in rows[:limit]) else []
            views = [_view(connection, row, line) for row in rows[:limit]]
        return views, rows[limit - 1].number if rows[limit:] else None

    def cancel(self, run_id: str, caller: Caller) -> RunView:
        """Cancel a queued run now, a running one within seconds, a finished one not at all."""
        with writing(self.engine) as connection:
            row = find_run(connection, run_id, caller)
            if row.status == "queued":
                update_run(connection, run_id, status="cancelled", message="cancelled", finished_at=utc_now())
            elif row.status == "running":
                update_run(connection, run_id, cancel_requested=True)
            return _view(connection, find_run(connection, run_id))

    def queue_again(self, run_id: str) -> None:
        """Queue a run again that failed or was cancelled, once no worker is at it. Seeds that are done stay done, and
        any other run is left as it is."""
        with writing(self.engine) as connection:
            row = find_run(connection, run_id)
            if row.status in FINISHED and row.status != "done":
                left = (claimed_seeds.c.run_id == run_id) & claimed_seeds.c.done.is_(False)
                connection.execute(claimed_seeds.delete().where(left))
                fresh: dict[str, Any] = {"attempts": 0, "cancel_requested": False, "finished_at": None}
                fresh["progress"] = row.seeds_done / len(row.seeds)
                update_run(connection, run_id, status="queued", message="queued again", **fresh)

    def end_overspent(self, budget: DeviceBudget) -> None:
        """Cancel the unfinished runs of agents whose device-seconds, or the team's, are spent."""
        with reading(self.engine) as connection:
            over = overspent(connection, budget)
        if not over:
            return
        with writing(self.engine) as connection:
            for row in overspent(connection, budget):
                if row.status == "queued":
                    message = "cancelled: the budget of device-seconds is spent"
                    update_run(connection, row.run_id, status="cancelled", message=message, finished_at=utc_now())
                else:
                    update_run(connection, row.run_id, cancel_requested=True)

    def waiting(self) -> int:
        """Number of unfinished runs."""
        with reading(self.engine) as connection:
            query = select(func.count()).select_from(runs).where(UNFINISHED)
            return int(connection.execute(query).scalar_one())


def _by_request(connection: Connection, submission: Submission) -> Row[Any] | None:
    if submission.request_id is None:
        return None
    query = select(runs).where(
        runs.c.agent == submission.agent, runs.c.request_id == check_request_id(submission.request_id)
    )
    row = connection.execute(query).one_or_none()
    same = row is None or (
        (row.source_sha256, row.params, row.kind, row.task)
        == (submission.source_sha256, submission.params, submission.kind, submission.task)
    )
    if not same:
        raise ConflictError(f"request_id {submission.request_id!r} was used for another run; use a new one")
    return row


def _unfinished(connection: Connection, agent: str) -> int:
    query = select(func.count()).select_from(runs).where(runs.c.agent == agent, UNFINISHED)
    return int(connection.execute(query).scalar_one())


def _check_kept(connection: Connection, submission: Submission, max_runs: int, max_source_bytes: int) -> None:
    """Let nobody fill the disk with what is kept of runs for good. A source that the agent used before is free.

    Raises BudgetError where the agent has had too many runs, or too much of different sources.
    """
    mine, others = runs.c.agent == submission.agent, runs.c.source_sha256 != submission.source_sha256
    if int(connection.scalar(select(func.count()).select_from(runs).where(mine)) or 0) >= max_runs:
        raise BudgetError(f"you have had {max_runs} runs, and may have no more; the operator can raise --max-runs")
    sources = select(func.max(runs.c.source_bytes).label("bytes")).where(mine, others).group_by(runs.c.source_sha256)
    held = int(connection.scalar(select(func.sum(sources.subquery().c.bytes))) or 0)
    if held + submission.source_bytes > max_source_bytes:
        raise BudgetError(
            f"the different files that you have submitted would be more than {max_source_bytes / 2**20:g} MiB; submit "
            "one of them again with other `params`, or a shorter one; the operator can raise --source-mb"
        )


def _view(connection: Connection, row: Row[Any], line: list[int] | None = None) -> RunView:
    ahead = None
    if row.status == "queued":
        ahead = (line or read_line(connection)).index(row.number)
    return RunView(
        run_id=row.run_id,
        agent=row.agent,
        task=row.task,
        method=row.method,
        params=row.params,
        kind=row.kind,
        status=row.status,
        seeds_done=row.seeds_done,
        seeds_total=len(row.seeds),
        progress=round(row.progress, 3),
        message=row.message,
        metrics=row.metrics,
        queue_position=ahead,
        expected_wait_seconds=None if ahead is None else _expected_wait(connection, ahead),
        submitted_at=as_utc(row.submitted_at),
        started_at=as_utc(row.started_at) if row.started_at else None,
        finished_at=as_utc(row.finished_at) if row.finished_at else None,
        device_seconds=round(row.device_seconds, 2),
        seconds_left=_seconds_left(connection, row),
        usage=RunUsage.model_validate(row.usage or {}),
    )


def _expected_wait(connection: Connection, ahead: int) -> float | None:
    """Seconds until a queued run with `ahead` runs before it starts, by what recent runs took of a device."""
    recent = select(runs.c.device_seconds).where(runs.c.status == "done").order_by(runs.c.number.desc()).limit(RECENT)
    took = [float(seconds) for seconds in connection.scalars(recent)]
    if not took:
        return None
    mean = sum(took) / len(took)
    running = runs.c.status == "running"
    claims = claimed_seeds.join(runs, runs.c.run_id == claimed_seeds.c.run_id)
    at_work = select(func.count()).select_from(claims).where(running, claimed_seeds.c.done.is_(False))
    devices = max(1, int(connection.execute(at_work).scalar_one()))
    shares_left = [1 - float(progress) for progress in connection.scalars(select(runs.c.progress).where(running))]
    return round(mean * (sum(shares_left) + ahead) / devices, 1)


def _seconds_left(connection: Connection, row: Row[Any]) -> float | None:
    """By what is done, how long that took and how many seeds are at work; None where there is nothing to go by."""
    if row.status != "running" or row.progress < MIN_PROGRESS:
        return None
    at_work = (claimed_seeds.c.run_id == row.run_id) & claimed_seeds.c.done.is_(False)
    devices = connection.execute(select(func.count()).select_from(claimed_seeds).where(at_work)).scalar_one()
    left: float = row.device_seconds * (1 - row.progress) / row.progress
    return round(left / max(1, devices), 1)
