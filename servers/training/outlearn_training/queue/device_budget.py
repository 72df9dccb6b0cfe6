"""Budgets of device time, of an agent and of the team: kept when a run is submitted, and while it runs."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, true

from outlearn.errors import BudgetError
from outlearn_training.queue.tables import UNFINISHED, Submission, runs

WARN_AT = 0.8


@dataclass(frozen=True)
class DeviceBudget:
    """Seconds of devices that may be spent; None: any number."""

    agent_seconds: float | None = None
    team_seconds: float | None = None


UNLIMITED = DeviceBudget()


def check_room(connection: Connection, budget: DeviceBudget, submission: Submission) -> str:
    """What to tell the agent with its run, of a budget that is nearly spent.

    A run takes as long as those before it did for each seed, and so do those that are unfinished; the first is let in
    where anything is left.

    Raises:
        BudgetError: the run may be expected to exceed a budget.
    """
    notes = []
    for limit, agent, whose in _scopes(budget, submission.agent):
        spent = _spent(connection, agent)
        promised = _pace(connection, agent) * (_seeds_left(connection, agent) + len(submission.seeds))
        if spent >= limit or spent + promised > limit:
            raise BudgetError(
                f"{whose} budget of {limit:g} device-seconds has {max(0.0, limit - spent):.0f} left, and this run with "
                f"the unfinished ones may take {promised:.0f}; cancel one, or make do with the runs that there are"
            )
        if spent + promised >= WARN_AT * limit:
            notes.append(f"{whose} budget of {limit:g} device-seconds is {(spent + promised) / limit:.0%} used")
    return "; ".join(notes)


def overspent(connection: Connection, budget: DeviceBudget) -> list[Row[Any]]:
    """The unfinished runs of those whose device-seconds are spent."""
    unfinished = connection.execute(select(runs).where(UNFINISHED)).all()
    over = {
        name
        for name in {row.agent for row in unfinished}
        if any(_spent(connection, agent) >= limit for limit, agent, _ in _scopes(budget, name))
    }
    return [row for row in unfinished if row.agent in over]


def _scopes(budget: DeviceBudget, agent: str) -> list[tuple[float, str | None, str]]:
    given = ((budget.agent_seconds, agent, "your"), (budget.team_seconds, None, "the team's"))
    return [(limit, whom, whose) for limit, whom, whose in given if limit is not None]


def _spent(connection: Connection, agent: str | None) -> float:
    return float(connection.scalar(select(func.sum(runs.c.device_seconds)).where(_of(agent))) or 0.0)


def _pace(connection: Connection, agent: str | None) -> float:
    """Device-seconds that a seed takes; 0 before one is done."""
    query = select(func.sum(runs.c.device_seconds), func.sum(runs.c.seeds_done))
    seconds, seeds = connection.execute(query.where(_of(agent), runs.c.seeds_done > 0)).one()
    return float(seconds) / seeds if seeds else 0.0


def _seeds_left(connection: Connection, agent: str | None) -> int:
    rows = connection.execute(select(runs.c.seeds, runs.c.seeds_done).where(_of(agent), UNFINISHED))
    return sum(len(row.seeds) - row.seeds_done for row in rows)


def _of(agent: str | None) -> Any:
    return true() if agent is None else runs.c.agent == agent
