"""Whether a run learned from the teacher at all: it is done again with weak labels turned round."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from outlearn.audit import AuditKind, Evidence
from outlearn.errors import NotFoundError
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.tasks import SecretTask, load_card, load_secret
from outlearn.types import RunView
from outlearn_evaluation.detectors import Suspicion

SEEDS = 2
LEAST = 0.05

Rerun = Callable[[str, Sequence[str], Path, Sequence[int]], Mapping[str, RunView]]
"""Does runs of a task again in a home folder, with these seeds and inverted weak labels."""


def check_teacher(home: Path, run_ids: Sequence[str], rerun: Rerun) -> Iterator[tuple[Receipt, Suspicion]]:
    """Each run's D, for the log. `home` is the home folder that the runs are of.

    Raises NotFoundError where a run has no receipts.
    """
    receipts = {run_id: _receipts(home, run_id) for run_id in run_ids}
    for task in sorted({found[0].task for found in receipts.values()}):
        chosen = [run_id for run_id, found in receipts.items() if found[0].task == task]
        seeds, into = load_card(home, task).seeds[:SEEDS], home / "vault" / task / "inverted"
        views, secret = rerun(task, chosen, into, seeds), load_secret(home, task)
        for run_id in chosen:
            view, first = views[run_id], receipts[run_id][0]
            if view.status != "done":
                evidence: Evidence = {"inverted_run": view.status, "message": view.message}
                yield first, Suspicion(AuditKind.TEACHER_DEPENDENCE, "note", evidence)
                continue
            own = accuracy((one for one in receipts[run_id] if one.seed in seeds), secret)
            yield first, judge(own, accuracy(ReceiptBook(into / "vault").read(view.run_id), secret))


def judge(own: float, inverted: float) -> Suspicion:
    """`D = acc(W) - acc(not W)`, both on the public half: under 5 points is not rankable as weak-to-strong.

    A student of inverted labels that learned nothing else is wrong where it was right: D is near 2 acc - 1. One that
    never looked at the teacher's labels has a D of 0.
    """
    difference = own - inverted
    evidence = {"d": difference, "accuracy": own, "inverted_accuracy": inverted, "least": LEAST}
    return Suspicion(
        AuditKind.TEACHER_DEPENDENCE,
        "quarantine" if difference < LEAST else "note",
        {k: round(v, 4) for k, v in evidence.items()},
    )


def accuracy(receipts: Iterable[Receipt], secret: SecretTask) -> float:
    """Mean accuracy over seeds on the public half."""
    positive = np.array([one.predictions for one in receipts]) > 0.5
    return float((positive == secret.test_labels)[:, secret.public_mask()].mean())


def _receipts(home: Path, run_id: str) -> tuple[Receipt, ...]:
    found = ReceiptBook(home / "vault").read(run_id)
    if not found:
        raise NotFoundError(f"run {run_id!r} has no receipts; give full runs that are done, or `nominees`")
    return found
