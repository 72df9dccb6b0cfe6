"""Tasks whose nominations are closed: from then on nobody nominates their runs, and none is evaluated any more."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from outlearn.database import as_utc, utc_now
from outlearn.errors import ConflictError
from outlearn_evaluation.tables import finals

_CLOSED = select(finals).where(finals.c.task.in_(bindparam("tasks", expanding=True)))


def close(connection: Connection, task: str) -> datetime:
    """Close a task, once. Returns when that was."""
    query = select(finals.c.closed_at).where(finals.c.task == task)
    known = connection.execute(query).scalar_one_or_none()
    if known is None:
        known = utc_now()
        connection.execute(finals.insert().values(task=task, closed_at=known))
    return as_utc(known)


def refuse_closed(connection: Connection, tasks: Iterable[str]) -> None:
    """Raises ConflictError where one of the tasks is closed."""
    row = connection.execute(_CLOSED, {"tasks": tuple(tasks)}).first()
    if row is not None:
        raise closed(row.task, row.closed_at)


def closed(task: str, at: datetime) -> ConflictError:
    """What whoever comes later is told."""
    return ConflictError(
        f"the final of task {task!r} began at {at:%Y-%m-%d %H:%M} UTC: its runs cannot be nominated or evaluated any "
        "more. Write down what you learned"
    )
