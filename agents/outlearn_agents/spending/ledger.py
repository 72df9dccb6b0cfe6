"""What a team spends: one ledger that its agents' processes share, and budgets that hold before the money is gone.

A call's worst case is reserved before it is made and settled by what the API reports after it. Where a process dies in
between, the reservation counts as spent. Every agent also holds back what its last turn may cost, so that it can write
down what it knows when a budget is over. So the spent and the reserved never exceed a budget; a budget can only be
overrun by a call that costs more than its own worst case.
"""

import time
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Table, func, select, true

from outlearn.database import open_database, reading, sqlite_url, writing
from outlearn.errors import BudgetError
from outlearn_agents.spending.limits import NANO, Budget, Cost, Limits, Statement, lower
from outlearn_agents.spending.tables import calls, holds, limits, metadata, shifts

__all__ = ["NANO", "Budget", "Cost", "Ledger", "Limits", "Statement", "lower"]

HOUR = 3600.0
Scope = Literal["agent", "team"]


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

    def write_off(self, agent: str) -> None:
        """Count calls that a process of the agent died in as spent."""
        lost = {"spent_nanodollars": calls.c.nanodollars, "spent_tokens": calls.c.tokens, "is_lost": True}
        with writing(self._engine) as connection:
            values = lost | {"ended_at": time.time()}
            connection.execute(calls.update().where(calls.c.agent == agent, _open()).values(values))

    def leave(self, agent: str) -> None:
        """The agent makes no more calls: what it held back for its last turn is free."""
        with writing(self._engine) as connection:
            connection.execute(holds.delete().where(holds.c.agent == agent))

    def reserve(
        self, agent: str, worst: Cost, *, last_turn: Cost | None = None, own: Limits | None = None, model: str = ""
    ) -> int:
        """Set aside what a call may cost at worst. Returns its number, to be settled or cancelled.

        Args:
            worst: the most that the call may cost.
            last_turn: what is to stay there for the agent's last turn; None: this is it.
            own: limits of the agent's beside those of the ledger.

        Raises:
            BudgetError: a budget has no room for it; nothing was set aside.
        """
        with writing(self._engine) as connection:
            budget = _budget(connection)
            needed = worst + (last_turn or Cost())
            _check(connection, "agent", agent, lower(budget.agent, own or Limits()), needed)
            _check(connection, "team", agent, budget.team, needed)
            connection.execute(holds.delete().where(holds.c.agent == agent))
            if last_turn:
                values = {"agent": agent, "nanodollars": last_turn.nanodollars, "tokens": last_turn.tokens}
                connection.execute(holds.insert().values(values))
            row = {"agent": agent, "model": model, "nanodollars": worst.nanodollars, "tokens": worst.tokens}
            made = connection.execute(calls.insert().values(row | {"started_at": time.time(), "is_lost": False}))
            return int(made.inserted_primary_key[0])  # type: ignore[index]

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


def _check(connection: Connection, scope: Scope, agent: str, given: Limits, needed: Cost) -> None:
    """Raises BudgetError where `needed` does not fit below the limits."""
    whose = "your" if scope == "agent" else "the team's"
    whom = agent if scope == "agent" else None
    taken = _taken(connection, whom, but_hold_of=agent)
    after = taken + needed
    if given.dollars is not None and after.nanodollars > int(given.dollars * NANO):
        left = max(0.0, given.dollars - taken.dollars)
        raise BudgetError(
            f"{whose} budget of ${given.dollars:,.2f} has ${left:,.4f} left, and the next model call, with a last turn "
            f"after it, may cost ${needed.dollars:,.4f}"
        )
    if given.tokens is not None and after.tokens > given.tokens:
        raise BudgetError(
            f"{whose} budget of {given.tokens:,} tokens has {max(0, given.tokens - taken.tokens):,} left, and the next "
            f"model call, with a last turn after it, may take {needed.tokens:,}"
        )
    if given.hours is not None and _hours(connection, whom) >= given.hours:
        raise BudgetError(f"{whose} {given.hours:g} hours are over")


def _taken(connection: Connection, agent: str | None, but_hold_of: str) -> Cost:
    """What is spent or set aside, but for one agent's hold."""
    counted = calls.c.spent_nanodollars, calls.c.nanodollars, calls.c.spent_tokens, calls.c.tokens
    spent = _sums(connection, func.coalesce(*counted[:2]), func.coalesce(*counted[2:]), _of(calls, agent))
    others = _of(holds, agent) & (holds.c.agent != but_hold_of)
    return spent + _sums(connection, holds.c.nanodollars, holds.c.tokens, others)


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
