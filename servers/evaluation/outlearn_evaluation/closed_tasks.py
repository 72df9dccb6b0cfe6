"""Tasks whose nominations are closed: from then on nobody nominates their runs, and none is evaluated any more."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import bindparam, select

from outlearn.database import as_utc, utc_now
from outlearn.errors import ConflictError
from outlearn.transactions import Transaction
from outlearn_evaluation.tables import finals

_CLOSE = finals.insert()
_CLOSED = select(finals).where(finals.c.task.in_(bindparam("tasks", expanding=True)))


def close(write: Transaction, task: str) -> datetime:
    """Close a task, once. Returns when that was."""
    known = next(write.rows(_CLOSED, tasks=[task]), None)
    if known:
        return as_utc(known.closed_at)
    now = utc_now()
    write.change(_CLOSE, task=task, closed_at=now)
    return as_utc(now)


def refuse_closed(read: Transaction, tasks: Iterable[str]) -> None:
    """Raises ConflictError where one of the tasks is closed."""
    row = next(read.rows(_CLOSED, tasks=list(tasks)), None)
    if row is not None:
        raise closed(row.task, row.closed_at)


def closed(task: str, at: datetime) -> ConflictError:
    """What whoever comes later is told."""
    return ConflictError(
        f"the final of task {task!r} began at {at:%Y-%m-%d %H:%M} UTC: its runs cannot be nominated or evaluated any "
        "more. Write down what you learned"
    )
