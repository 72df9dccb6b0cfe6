"""The line in which queued runs wait. Agents take turns, so that nobody's queue keeps another agent's run waiting."""

from collections import Counter
from datetime import datetime

from sqlalchemy import Connection, func, select

from outlearn_training.queue.tables import claimed_seeds, runs


def read_line(connection: Connection) -> list[int]:
    """Numbers of the queued runs, in the order in which workers take them as things are.

    Each agent's first run comes before anybody's second. Among agents comes first who has the fewest seeds at work,
    then whose turn is longest ago; an agent's own runs come in the order in which they were submitted.
    """
    waiting = select(runs.c.number, runs.c.agent).where(runs.c.status == "queued").order_by(runs.c.number)
    queued = connection.execute(waiting).all()
    agents = {row.agent for row in queued}
    if len(agents) < 2:
        return [row.number for row in queued]
    busy, last = _at_work(connection), {agent: _last_turn(connection, agent) for agent in agents}
    turns = dict[str, tuple[int, datetime, int]]()  # those of the first round are those of all
    places, before = list[tuple[int, tuple[int, datetime, int], int]](), Counter[str]()
    for row in queued:
        turn = turns.setdefault(row.agent, (busy[row.agent], last[row.agent], row.number))
        places.append((before[row.agent], turn, row.number))
        before[row.agent] += 1
    return [place[-1] for place in sorted(places)]


def _at_work(connection: Connection) -> Counter[str]:
    """Seeds at work, by agent."""
    claims = claimed_seeds.join(runs, runs.c.run_id == claimed_seeds.c.run_id)
    at_work = (runs.c.status == "running") & claimed_seeds.c.done.is_(False)
    query = select(runs.c.agent, func.count().label("seeds")).select_from(claims).where(at_work).group_by(runs.c.agent)
    return Counter({row.agent: row.seeds for row in connection.execute(query)})


def _last_turn(connection: Connection, agent: str) -> datetime:
    """When a worker last took a seed of this agent's: a look at an index, however many runs there were."""
    found: datetime | None = connection.scalar(select(func.max(runs.c.claimed_at)).where(runs.c.agent == agent))
    return found or datetime.min
