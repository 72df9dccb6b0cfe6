"""What a team spends: one ledger that its agents' processes share, and budgets that hold before the money is gone.

A call's worst case is reserved before it is made and settled by what the API reports after it. Where a process dies in
between, the reservation counts as spent. Every agent also holds back what its last turn may cost, so that it can write
down what it knows when a budget is over. So the spent and the reserved never exceed a budget; a budget can only be
overrun by a call that costs more than its own worst case.

An agent may wait for what others have set aside. Who waits is written down, so that of those who would wait for each
other the last one is told to leave.
"""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select, true

from outlearn.database import open_database, reading, sqlite_url, writing
from outlearn.errors import BudgetError
from outlearn_agents.spending.limits import NANO, Budget, Cost, Limits, Statement, lower
from outlearn_agents.spending.tables import calls, holds, limits, metadata, shifts, waits

__all__ = ["NANO", "Budget", "Cost", "Ledger", "Limits", "SetAsideError", "Statement", "lower"]

HOUR = 3600.0


class SetAsideError(BudgetError):
    """A budget has no room for a call as long as others keep what they have set aside."""


class Ledger:
    """The spending of a team, in a SQLite file. Every change is one transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = open_database(sqlite_url(path), metadata)

    def close(self) -> None:
        """Close the file."""
        self._engine.dispose()

    def set_budget(self, budget: Budget) -> None:
        """Replace the limits; agents at work go by them from their next call on."""
        rows = [
            {"scope": scope, "resource": name, "amount": value}
            for scope, group in (("agent", budget.agent), ("team", budget.team))
            for name, value in group.model_dump(exclude_none=True).items()
        ]
        with writing(self._engine) as connection:
            connection.execute(limits.delete())
            if rows:
                connection.execute(limits.insert(), rows)

    def budget(self) -> Budget:
        """The limits."""
        with reading(self._engine) as connection:
            return _budget(connection)

    def begin_shift(self, agent: str) -> int:
        """An agent's process begins to work. Returns the number of its shift."""
        now = time.time()
        with writing(self._engine) as connection:
            made = connection.execute(shifts.insert().values(agent=agent, started_at=now, seen_at=now))
            return int(made.inserted_primary_key[0])  # type: ignore[index]

    def seen(self, shift: int) -> None:
        """The process of this shift is still at work."""
        with writing(self._engine) as connection:
            connection.execute(shifts.update().where(shifts.c.shift == shift).values(seen_at=time.time()))

    def at_work(self) -> list[tuple[float, float]]:
        """From when to when any agent was at work, in Unix time, in order and apart: without pauses and breaks."""
        query = select(shifts.c.started_at, shifts.c.seen_at).order_by(shifts.c.started_at)
        found: list[tuple[float, float]] = []
        with reading(self._engine) as connection:
            for start, end in connection.execute(query):
                goes_on = found and start <= found[-1][1]
                begin, before = found.pop() if goes_on else (start, start)
                found.append((begin, max(before, end)))
        return found

    def write_off(self, agent: str) -> None:
        """Count calls that a process of the agent died in as spent."""
        lost = {"spent_nanodollars": calls.c.nanodollars, "spent_tokens": calls.c.tokens, "is_lost": True}
        with writing(self._engine) as connection:
            values = lost | {"ended_at": time.time()}
            connection.execute(calls.update().where(calls.c.agent == agent, _open()).values(values))
            connection.execute(waits.delete().where(waits.c.agent == agent))

    def leave(self, agent: str) -> None:
        """The agent makes no more calls: what it held back for its last turn is free."""
        with writing(self._engine) as connection:
            connection.execute(holds.delete().where(holds.c.agent == agent))
            connection.execute(waits.delete().where(waits.c.agent == agent))

    def reserve(
        self,
        agent: str,
        worst: Cost,
        *,
        last_turn: Cost | None = None,
        own: Limits | None = None,
        model: str = "",
        may_wait: bool = False,
    ) -> int:
        """Set aside what a call may cost at worst. Returns its number, to be settled or cancelled.

        Args:
            worst: the most that the call may cost.
            last_turn: what is to stay there for the agent's last turn; None: this is it.
            own: limits of the agent's beside those of the ledger.
            may_wait: on SetAsideError, the agent is going to wait and ask again until it gets another answer.

        Raises:
            BudgetError: a budget has no room for it; nothing was set aside.
            SetAsideError: it would have room, did others not have it set aside of whom some do not wait themselves.
        """
        with writing(self._engine) as connection:
            needed = worst + (last_turn or Cost())
            refusal = _refusal(connection, agent, _budget(connection), own or Limits(), needed)
            if may_wait or refusal is None:
                connection.execute(waits.delete().where(waits.c.agent == agent))
            if refusal is None:
                return _set_aside(connection, agent, model, worst, last_turn)
            if may_wait and isinstance(refusal, SetAsideError):
                connection.execute(waits.insert().values(agent=agent))
        raise refusal

    def settle(self, call: int, cost: Cost) -> None:
        """Replace a reservation by what the call did cost. Settled once, it stays so."""
        spent = {"spent_nanodollars": cost.nanodollars, "spent_tokens": cost.tokens, "ended_at": time.time()}
        with writing(self._engine) as connection:
            connection.execute(calls.update().where(calls.c.call == call, _open()).values(spent))

    def cancel(self, call: int) -> None:
        """Give a reservation back: the call was refused and costs nothing."""
        with writing(self._engine) as connection:
            connection.execute(calls.delete().where(calls.c.call == call, _open()))

    def agents(self) -> list[str]:
        """Who worked or spent."""
        with reading(self._engine) as connection:
            return sorted({*connection.scalars(select(shifts.c.agent)), *connection.scalars(select(calls.c.agent))})

    def statement(self, agent: str | None = None, own: Limits | None = None) -> Statement:
        """What an agent, or the team, has spent; `own` limits of the agent's take the ledger's place where lower."""
        with reading(self._engine) as connection:
            budget = _budget(connection)
            given = lower(budget.agent, own or Limits()) if agent is not None else budget.team
            return _statement(connection, agent, given)


def _budget(connection: Connection) -> Budget:
    given: dict[str, dict[str, Any]] = {"agent": {}, "team": {}}
    for row in connection.execute(select(limits)):
        given[row.scope][row.resource] = row.amount
    return Budget.model_validate(given)


def _set_aside(connection: Connection, agent: str, model: str, worst: Cost, last_turn: Cost | None) -> int:
    connection.execute(holds.delete().where(holds.c.agent == agent))
    if last_turn:
        values = {"agent": agent, "nanodollars": last_turn.nanodollars, "tokens": last_turn.tokens}
        connection.execute(holds.insert().values(values))
    row = {"agent": agent, "model": model, "nanodollars": worst.nanodollars, "tokens": worst.tokens}
    made = connection.execute(calls.insert().values(row | {"started_at": time.time(), "is_lost": False}))
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def _refusal(connection: Connection, agent: str, budget: Budget, own: Limits, needed: Cost) -> BudgetError | None:
    """Why `needed` does not fit below the limits, or None where it does."""
    whose, team = "the team's", budget.team
    mine, all_ = lower(budget.agent, own), _taken(connection, None, but_hold_of=agent)
    if why := (
        _short("your", mine, _taken(connection, agent, but_hold_of=agent), needed)
        or _late("your", mine, _hours(connection, agent))
        or _late(whose, team, _hours(connection, None))
        or _short(whose, team, _kept(connection, agent), needed)
    ):
        return BudgetError(why)
    if (why := _short(whose, team, all_, needed)) is None:
        return None
    others = _others_at_work(connection, agent)
    return SetAsideError(f"what is missing is set aside for {', '.join(others)}: {why}") if others else BudgetError(why)


def _short(whose: str, given: Limits, taken: Cost, needed: Cost) -> str | None:
    """What there is too little of for `needed`."""
    after = taken + needed
    if given.dollars is not None and after.nanodollars > int(given.dollars * NANO):
        left = max(0.0, given.dollars - taken.dollars)
        return (
            f"{whose} budget of ${given.dollars:,.2f} has ${left:,.4f} left, and the next model call, with a last turn "
            f"after it, may cost ${needed.dollars:,.4f}"
        )
    if given.tokens is not None and after.tokens > given.tokens:
        return (
            f"{whose} budget of {given.tokens:,} tokens has {max(0, given.tokens - taken.tokens):,} left, and the next "
            f"model call, with a last turn after it, may take {needed.tokens:,}"
        )
    return None


def _late(whose: str, given: Limits, hours: float) -> str | None:
    return f"{whose} {given.hours:g} hours are over" if given.hours is not None and hours >= given.hours else None


def _taken(connection: Connection, agent: str | None, but_hold_of: str) -> Cost:
    """What is spent or set aside, but for one agent's hold."""
    others = _of(holds, agent) & (holds.c.agent != but_hold_of)
    return _charged(connection, _of(calls, agent)) + _sums(connection, holds.c.nanodollars, holds.c.tokens, others)


def _kept(connection: Connection, agent: str) -> Cost:
    """What is spent for good, and what the agent itself has set aside for calls: no waiting frees it."""
    return _charged(connection, calls.c.ended_at.is_not(None) | (calls.c.agent == agent))


def _charged(connection: Connection, condition: Any) -> Cost:
    """What calls did cost, and at worst may cost where they are under way."""
    counted = calls.c.spent_nanodollars, calls.c.nanodollars, calls.c.spent_tokens, calls.c.tokens
    return _sums(connection, func.coalesce(*counted[:2]), func.coalesce(*counted[2:]), condition)


def _others_at_work(connection: Connection, agent: str) -> list[str]:
    """Other agents who have something set aside and do not wait themselves, so that they may free it."""
    having = select(calls.c.agent).where(_open()).union(select(holds.c.agent))
    return sorted({*connection.scalars(having)} - {*connection.scalars(select(waits.c.agent)), agent})


def _statement(connection: Connection, agent: str | None, given: Limits) -> Statement:
    mine = _of(calls, agent)
    spent = _sums(connection, calls.c.spent_nanodollars, calls.c.spent_tokens, mine & calls.c.ended_at.is_not(None))
    under_way = _sums(connection, calls.c.nanodollars, calls.c.tokens, mine & _open())
    reserved = under_way + _sums(connection, holds.c.nanodollars, holds.c.tokens, _of(holds, agent))
    count, lost = connection.execute(select(func.count(), func.sum(calls.c.is_lost)).where(mine)).one()
    return Statement(
        agent=agent,
        dollars=spent.dollars,
        tokens=spent.tokens,
        hours=_hours(connection, agent),
        calls=count,
        lost_calls=lost or 0,
        reserved_dollars=reserved.dollars,
        reserved_tokens=reserved.tokens,
        limits=given,
    )


def _sums(connection: Connection, nanodollars: Any, tokens: Any, condition: Any) -> Cost:
    row = connection.execute(select(func.sum(nanodollars), func.sum(tokens)).where(condition)).one()
    return Cost(int(row[0] or 0), int(row[1] or 0))


def _hours(connection: Connection, agent: str | None) -> float:
    seconds = connection.scalar(select(func.sum(shifts.c.seen_at - shifts.c.started_at)).where(_of(shifts, agent)))
    return float(seconds or 0.0) / HOUR


def _of(table: Table, agent: str | None) -> Any:
    return true() if agent is None else table.c.agent == agent


def _open() -> Any:
    return calls.c.ended_at.is_(None)
