"""The runs that were ever evaluated, by their hard answers."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import bindparam, select

from outlearn.transactions import Transaction
from outlearn_evaluation.scoring import Votes
from outlearn_evaluation.tables import submissions

_FILED = submissions.insert()
_KNOWN = select(submissions).where(submissions.c.run_id == bindparam("run_id"))


@dataclass(frozen=True)
class Submission:
    """A run, by what it answered."""

    run_id: str
    task: str
    fingerprint: str
    votes: Votes


def file_submission(write: Transaction, run: Submission) -> None:
    """File a run, once."""
    write.change(
        _FILED,
        run_id=run.run_id,
        task=run.task,
        fingerprint=run.fingerprint,
        seeds=len(run.votes.positive),
        counts=run.votes.counts.tobytes(),
        votes=np.packbits(run.votes.positive).tobytes(),
    )


def read_submission(read: Transaction, run_id: str) -> Submission | None:
    """A run as it was filed, by its own answers; None where it never was."""
    row = next(read.rows(_KNOWN, run_id=run_id), None)
    if row is None:
        return None
    items = len(row.counts)
    bits = np.unpackbits(np.frombuffer(row.votes, dtype=np.uint8), count=row.seeds * items)
    return Submission(row.run_id, row.task, row.fingerprint, Votes(bits.reshape(row.seeds, items).astype(bool)))
