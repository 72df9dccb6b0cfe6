"""PGR from receipts, with its standard error. Pure functions over arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import IntegrityError, InvalidInputError
from outlearn.receipts import Receipt
from outlearn.tasks import Baselines, Floats, SecretTask, TaskCard
from outlearn.types import Verdict

Z_ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Score:
    """A run's score on the public half of the test items."""

    pgr: float
    pgr_se: float
    correct: NDArray[np.bool_]  # (seeds, items)


def score(receipts: Sequence[Receipt], card: TaskCard, secret: SecretTask, baselines: Baselines) -> Score:
    """PGR of a run: `(student - weak) / (ceiling - weak)`, accuracies being means over seeds on the public half.

    The standard error has two components, items and seeds: `sqrt(var_items / n + var_seeds / S) / gap`. The baselines
    count as fixed. Source: Burns et al. 2023, section 3, for PGR.

    Raises:
        InvalidInputError: the gap between teacher and ceiling is not significant, so PGR is undefined.
        IntegrityError: the receipts are not of this task, or not of exactly the server's seeds.
    """
    check_receipts(receipts, card)
    weak, gap = public_gap(baselines, secret)
    public = secret.public_mask()
    predicted = np.array([receipt.predictions for receipt in receipts])[:, public] > 0.5
    correct: NDArray[np.bool_] = predicted == secret.test_labels[public]
    return Score(pgr=(correct.mean() - weak) / gap, pgr_se=standard_error(correct) / gap, correct=correct)


def check_receipts(receipts: Sequence[Receipt], card: TaskCard) -> None:
    """Raises IntegrityError unless there is one receipt for each seed of the task, for its present data."""
    for receipt in receipts:
        if receipt.task_fingerprint != card.fingerprint or len(receipt.predictions) != card.test_size:
            raise IntegrityError(f"run {receipt.run_id!r} is for another version of task {card.name!r}; run it again")
    if tuple(receipt.seed for receipt in receipts) != card.seeds:
        raise IntegrityError(f"the run has receipts for {len(receipts)} of the task's {len(card.seeds)} seeds")


def public_gap(baselines: Baselines, secret: SecretTask) -> tuple[float, float]:
    """The teachers' mean accuracy on the public half, and the ceiling's distance from it.

    Raises:
        InvalidInputError: the distance is within 1.645 standard errors of zero: PGR is undefined.
    """
    weak = np.array([one.weak_public for one in baselines.per_seed])
    ceiling = np.array([one.ceiling_public for one in baselines.per_seed])
    n, gap = len(secret.public_half), float(ceiling.mean() - weak.mean())
    item_variance = sum(p * (1 - p) / n for p in (weak.mean(), ceiling.mean()))
    seed_variance = sum(values.var(ddof=1) / len(values) for values in (weak, ceiling))
    if gap <= Z_ONE_SIDED_95 * math.sqrt(item_variance + seed_variance):
        raise InvalidInputError(
            f"the ceiling is {100 * gap:.1f} points above the teacher, which is not significant: PGR is undefined. "
            "Calibrate with a larger student or a weaker teacher"
        )
    return float(weak.mean()), gap


def standard_error(values: NDArray[np.bool_] | Floats) -> float:
    """Standard error of the mean of (seeds, items), for new items and new seeds.

    Raises:
        InvalidInputError: fewer than two seeds or items.
    """
    seeds, items = values.shape
    if seeds < 2 or items < 2:
        raise InvalidInputError(f"a standard error needs two seeds and two items, not {seeds} and {items}")
    of_items = np.mean(values, axis=0).var(ddof=1) / items
    of_seeds = np.mean(values, axis=1).var(ddof=1) / seeds
    return math.sqrt(of_items + of_seeds)


def compare(run: Score, other: Score) -> Verdict:
    """Whether `run` is better than `other`, paired by seed and item: better or worse where |z| > 1.645."""
    difference = run.correct.astype(float) - other.correct.astype(float)
    error = standard_error(difference)
    if abs(difference.mean()) <= Z_ONE_SIDED_95 * error:
        return "no clear difference"
    return "better" if difference.mean() > 0 else "worse"
