"""The runs that were ever evaluated, by their hard answers: nearly equal ones share the answer of the first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, Integer, LargeBinary, MetaData, String, Table, bindparam, select

from outlearn_evaluation.scoring import NEAR, Votes, distances

metadata = MetaData()
submissions = Table(
    "submissions",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("task", String(48), nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("seeds", Integer, nullable=False),
    Column("positive", Integer, nullable=False, index=True),  # positive votes in all: near runs have near sums
    Column("counts", LargeBinary, nullable=False),
    Column("votes", LargeBinary, nullable=False),
    Column("scored_as", String(40), nullable=False),
)
_FILED = submissions.insert()
_KNOWN = select(submissions).where(submissions.c.run_id == bindparam("run_id"))
_SCORED_NEAR = (
    select(submissions.c.run_id, submissions.c.counts)
    .where(submissions.c.positive.between(bindparam("least"), bindparam("most")))
    .where(submissions.c.fingerprint == bindparam("fingerprint"), submissions.c.scored_as == submissions.c.run_id)
    .order_by(submissions.c.run_id)
)


@dataclass(frozen=True)
class Submission:
    """A run, by what it answered."""

    run_id: str
    task: str
    fingerprint: str
    votes: Votes


def file_submission(connection: Connection, run: Submission) -> Submission:
    """File a run once, and return the one that it is scored as: the nearest scored one within 2 %, else itself.

    It must be the transaction's to write: of two near runs at once the second has to see the first.
    """
    known = connection.execute(_KNOWN, {"run_id": run.run_id}).one_or_none()
    if known is not None:
        return _scored_as(connection, run, known.scored_as)
    scored_as = _nearest(connection, run) or run.run_id
    values = {
        "run_id": run.run_id,
        "task": run.task,
        "fingerprint": run.fingerprint,
        "seeds": len(run.votes.positive),
        "positive": int(run.votes.positive.sum()),
        "counts": run.votes.counts.tobytes(),
        "votes": np.packbits(run.votes.positive).tobytes(),
        "scored_as": scored_as,
    }
    connection.execute(_FILED, values)
    return _scored_as(connection, run, scored_as)


def read_submission(connection: Connection, run_id: str) -> Submission | None:
    """A run as it was filed, by its own answers; None where it never was."""
    row = connection.execute(_KNOWN, {"run_id": run_id}).one_or_none()
    if row is None:
        return None
    items = len(row.counts)
    bits = np.unpackbits(np.frombuffer(row.votes, dtype=np.uint8), count=row.seeds * items)
    return Submission(row.run_id, row.task, row.fingerprint, Votes(bits.reshape(row.seeds, items).astype(bool)))


def _scored_as(connection: Connection, run: Submission, run_id: str) -> Submission:
    known = run if run.run_id == run_id else read_submission(connection, run_id)
    return known or run


def _nearest(connection: Connection, run: Submission) -> str | None:
    """The nearest scored run within 2 %. The index leaves those whose sum of votes is near, as theirs must be."""
    total, reach = int(run.votes.positive.sum()), int(NEAR * run.votes.positive.size)
    asked = {"least": total - reach, "most": total + reach, "fingerprint": run.fingerprint}
    rows = connection.execute(_SCORED_NEAR, asked).all()
    if not rows:
        return None
    others: NDArray[np.uint8] = np.frombuffer(b"".join(row.counts for row in rows), dtype=np.uint8)
    apart = distances(run.votes.counts, others.reshape(len(rows), -1), len(run.votes.positive))
    best = int(apart.argmin())
    return str(rows[best].run_id) if apart[best] <= NEAR else None
