"""The workers' side of the run queue: a worker claims one seed of a run at a time.

A worker goes on with the run that it is at; else it takes the first run in the line; else it helps with a run that
others are at. So one run has all idle devices, and many runs share them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from outlearn.database import open_database, reading, utc_now, writing
from outlearn.types import FINISHED, RunStatus
from outlearn_training.queue.line import read_line
from outlearn_training.queue.tables import UNFINISHED, Run, claimed_seeds, find_run, metadata, runs, update_run

MAX_ATTEMPTS = 3
DONE = {"full": "done: `evaluate` it", "pilot": "done: submit it as a full run to have it scored"}


@dataclass(frozen=True)
class Claim:
    """A seed of a run, for the worker that claimed it."""

    run: Run
    seed: int


@dataclass(frozen=True)
class _Running:
    """A run that has begun, and the claims on it."""

    row: Row[Any]
    claims: list[Row[Any]]

    @property
    def at_work(self) -> int:
        return sum(not claim.done for claim in self.claims)

    @property
    def is_open(self) -> bool:
        """Whether a seed can be claimed."""
        return len(self.claims) < len(self.row.seeds) and not self.row.cancel_requested


class Claims:
    """Claims on the runs of a database. Every change is one transaction; a killed worker loses and repeats nothing."""

    def __init__(self, url: str) -> None:
        self.engine = open_database(url, metadata)

    def claim(self, slot: int, is_alive: Callable[[int], bool], going_on: str = "") -> Claim | None:
        """Claim a seed for the worker in `slot`, or None where there is nothing to do.

        A seed of the run `going_on`; else of the first queued run in the line; else of the running run with the fewest
        seeds at work. Claims of workers that are not alive end; a run is queued again for that at
        most `MAX_ATTEMPTS` times.
        """
        if not self._unfinished():  # idle workers ask all the time, and must not hold the write lock for it
            return None
        with writing(self.engine) as connection:
            for running in _running(connection):
                dead = [one for one in running.claims if not one.done and (one.slot == slot or not is_alive(one.slot))]
                _bury(connection, running, dead)
            chosen = _choose(connection, list(_running(connection)), going_on)
            if chosen is None:
                return None
            taken = {claim.seed for claim in chosen.claims}
            seed = next(seed for seed in chosen.row.seeds if seed not in taken)
            connection.execute(claimed_seeds.insert().values(run_id=chosen.row.run_id, seed=seed, slot=slot))
            now = utc_now()
            changes: dict[str, Any] = {"claimed_at": now}
            if chosen.row.status == "queued":
                changes |= {"status": "running", "message": "starting", "started_at": chosen.row.started_at or now}
            update_run(connection, chosen.row.run_id, **changes)
            return Claim(Run.model_validate(chosen.row), seed)

    def report(self, claim: Claim, *, seconds: float, share: float, **values: Any) -> bool:
        """Record the share of a seed that is done, and the `seconds` since the last report. False: the run has ended,
        for which it is charged all the same, or is to end."""
        with writing(self.engine) as connection:
            row = find_run(connection, claim.run.run_id)
            values |= {"device_seconds": row.device_seconds + seconds}
            if row.status != "running":
                update_run(connection, row.run_id, device_seconds=values["device_seconds"])
                return False
            _update_claim(connection, claim, share=share)
            update_run(connection, row.run_id, progress=_progress(connection, row), **values)
            return not row.cancel_requested

    def seed_done(self, claim: Claim) -> None:
        """The seed is done; with the last one, so is the run."""
        with writing(self.engine) as connection:
            row = find_run(connection, claim.run.run_id)
            if row.status != "running":
                return
            _update_claim(connection, claim, share=1.0, done=True)
            done = sum(one.done for one in _claims(connection, row.run_id))
            update_run(connection, row.run_id, seeds_done=done, progress=_progress(connection, row))
            if done == len(row.seeds):
                _end(connection, row, "done", DONE[row.kind])

    def fail(self, run_id: str, message: str) -> None:
        """End a running run that failed, or that was to be cancelled. A run that ended already is left as it is."""
        with writing(self.engine) as connection:
            row = find_run(connection, run_id)
            if row.status == "running":
                _end(connection, row, "cancelled" if row.cancel_requested else "failed", message[:2000])

    def give_back(self, claim: Claim, reason: str = "its worker was stopped") -> None:
        """Give up a claim for a reason that is not the run's, which does not count as an attempt."""
        with writing(self.engine) as connection:
            row = find_run(connection, claim.run.run_id)
            if row.status == "running":
                _drop(connection, claim.run.run_id, [claim.seed])
                _requeue(connection, row, reason)

    def ended(self, agent: str) -> list[str]:
        """The agent's runs that have ended, the newest first."""
        query = select(runs.c.run_id).where(runs.c.agent == agent, runs.c.status.in_(FINISHED))
        with reading(self.engine) as connection:
            return list(connection.scalars(query.order_by(runs.c.number.desc())))

    def _unfinished(self) -> bool:
        with reading(self.engine) as connection:
            return connection.execute(select(runs.c.number).where(UNFINISHED).limit(1)).first() is not None


def _choose(connection: Connection, running: list[_Running], going_on: str) -> _Running | None:
    """The run to take a seed of."""
    for one in running:
        if one.row.run_id == going_on and one.is_open:
            return one
    if line := read_line(connection):
        row = connection.execute(select(runs).where(runs.c.number == line[0])).one()
        return _Running(row, _claims(connection, row.run_id))
    return min((one for one in running if one.is_open), key=lambda one: (one.at_work, one.row.number), default=None)


def _bury(connection: Connection, running: _Running, dead: list[Row[Any]]) -> None:
    """End the claims of dead workers, and whatever has nobody left who would end it."""
    row = running.row
    if dead:
        _drop(connection, row.run_id, [claim.seed for claim in dead])
        update_run(connection, row.run_id, attempts=row.attempts + 1)
    if dead and row.attempts + 1 >= MAX_ATTEMPTS:
        message = f"its worker died {row.attempts + 1} times while running it, probably for want of memory; use less"
        _end(connection, row, "failed", message)
    elif dead or row.cancel_requested:
        _requeue(connection, row, "its worker died")


def _requeue(connection: Connection, row: Row[Any], reason: str) -> None:
    """Queue a run again that nobody is at, or end it where that was asked for."""
    if any(not claim.done for claim in _claims(connection, row.run_id)):
        return
    if row.cancel_requested:
        _end(connection, row, "cancelled", "cancelled")
    else:
        update_run(connection, row.run_id, status="queued", message=f"queued again: {reason}")


def _end(connection: Connection, row: Row[Any], status: RunStatus, message: str) -> None:
    update_run(connection, row.run_id, status=status, message=message, finished_at=utc_now())


def _running(connection: Connection) -> Iterator[_Running]:
    claims = defaultdict[str, list[Row[Any]]](list)
    query = select(claimed_seeds).join(runs, runs.c.run_id == claimed_seeds.c.run_id)
    for claim in connection.execute(query.where(runs.c.status == "running")):
        claims[claim.run_id].append(claim)
    for row in connection.execute(select(runs).where(runs.c.status == "running").order_by(runs.c.number)).all():
        yield _Running(row, claims[row.run_id])


def _claims(connection: Connection, run_id: str) -> list[Row[Any]]:
    return list(connection.execute(select(claimed_seeds).where(claimed_seeds.c.run_id == run_id)))


def _update_claim(connection: Connection, claim: Claim, **values: Any) -> None:
    this = (claimed_seeds.c.run_id == claim.run.run_id) & (claimed_seeds.c.seed == claim.seed)
    connection.execute(claimed_seeds.update().where(this).values(**values))


def _drop(connection: Connection, run_id: str, seeds: list[int]) -> None:
    those = (claimed_seeds.c.run_id == run_id) & claimed_seeds.c.seed.in_(seeds) & claimed_seeds.c.done.is_(False)
    connection.execute(claimed_seeds.delete().where(those))


def _progress(connection: Connection, row: Row[Any]) -> float:
    return sum(float(claim.share) for claim in _claims(connection, row.run_id)) / len(row.seeds)
