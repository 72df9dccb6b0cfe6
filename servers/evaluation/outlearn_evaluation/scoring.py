"""PGR from receipts, with its standard error. Pure functions over arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import IntegrityError, InvalidInputError
from outlearn.receipts import Receipt
from outlearn.tasks import Baselines, Floats, SecretTask
from outlearn.types import Verdict

Z_ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Score:
    """A run's score on the public half of the test items."""

    pgr: float
    pgr_se: float
    correct: NDArray[np.bool_]  # (seeds, items)
    design_effect: float = 1.0


def score(receipts: Sequence[Receipt], secret: SecretTask, baselines: Baselines) -> Score:
    """PGR of a run: `(student - weak) / (ceiling - weak)`, accuracies being means over seeds on the public half.

    Not bounded: below 0 the student is worse than its teacher, above 1 better than one trained on the truth. A
    prediction of exactly 0.5 counts as label 0. The standard error is that of the student's accuracy for new items and
    new seeds, divided by the gap; the baselines count as fixed. Source of PGR: Burns et al. 2023, section 3.

    Raises:
        InvalidInputError: the gap between teacher and ceiling is not significant, so PGR is undefined.
        IntegrityError: the receipts are not of this task, or not of exactly the server's seeds.
    """
    check_receipts(receipts, secret, baselines)
    weak, gap = public_gap(baselines, secret)
    public = secret.public_mask()
    predicted = np.array([receipt.predictions for receipt in receipts])[:, public] > 0.5
    correct: NDArray[np.bool_] = predicted == secret.test_labels[public]
    error = standard_error(correct, baselines.design_effect)
    return Score(
        pgr=(correct.mean() - weak) / gap, pgr_se=error / gap, correct=correct, design_effect=baselines.design_effect
    )


def check_receipts(receipts: Sequence[Receipt], secret: SecretTask, baselines: Baselines) -> None:
    """Raises IntegrityError unless there is one receipt for each seed of the task, for its present data."""
    for receipt in receipts:
        if receipt.task_fingerprint != baselines.fingerprint or len(receipt.predictions) != len(secret.test):
            raise IntegrityError(
                f"run {receipt.run_id!r} is for another version of task {receipt.task!r}; run it again"
            )
    if (seeds := tuple(receipt.seed for receipt in receipts)) != baselines.seeds:
        raise IntegrityError(
            f"the run has receipts for the seeds {seeds}, not {baselines.seeds}; wait until `get_run` says it is done"
        )


def public_gap(baselines: Baselines, secret: SecretTask) -> tuple[float, float]:
    """The teachers' mean accuracy on the public half, and the ceiling's distance from it.

    Raises:
        InvalidInputError: the distance is within 1.645 standard errors of zero, or there is one seed or no test item:
            PGR is undefined.
    """
    if len(baselines.per_seed) < 2 or not secret.public_half:
        raise InvalidInputError("PGR is undefined without test items and at least two calibrated seeds; calibrate anew")
    weak = np.array([one.weak_public for one in baselines.per_seed])
    ceiling = np.array([one.ceiling_public for one in baselines.per_seed])
    n, gap = len(secret.public_half), float(ceiling.mean() - weak.mean())
    item_variance = baselines.design_effect * sum(p * (1 - p) / n for p in (weak.mean(), ceiling.mean()))
    seed_variance = sum(values.var(ddof=1) / len(values) for values in (weak, ceiling))
    if gap <= Z_ONE_SIDED_95 * math.sqrt(item_variance + seed_variance):
        raise InvalidInputError(
            f"the ceiling is {100 * gap:.1f} points above the teacher, which is not significant: PGR is undefined. "
            "Calibrate with a larger student or a weaker teacher"
        )
    return float(weak.mean()), gap


def standard_error(values: NDArray[np.bool_] | Floats, design_effect: float = 1.0) -> float:
    """Standard error of the mean of `values` (seeds, items), for new items and new seeds.

    `sqrt((MS_items + MS_seeds - MS_both) / (seeds * items))` with the mean squares of a two-way analysis of variance:
    noise that is neither the item's nor the seed's is in the first two, and would count twice. Never below the error
    from items or from seeds alone. `design_effect` multiplies the items' part, where new items come in groups.

    Raises:
        InvalidInputError: fewer than two seeds or items.
    """
    seeds, items = values.shape
    if seeds < 2 or items < 2:
        raise InvalidInputError(f"a standard error needs two seeds and two items, not {seeds} and {items}")
    by_item, by_seed = np.mean(values, axis=0), np.mean(values, axis=1)
    noise = values - by_item - by_seed[:, None] + np.mean(values)
    of_items, of_seeds = by_item.var(ddof=1) / items, by_seed.var(ddof=1) / seeds
    of_both = np.square(noise).sum() / ((seeds - 1) * (items - 1)) / (seeds * items)
    of_items, of_both = design_effect * of_items, design_effect * of_both
    return math.sqrt(max(of_items, of_seeds, of_items + of_seeds - of_both))


def compare(run: Score, other: Score) -> Verdict:
    """Whether `run` is better than `other`, paired by seed and item: better or worse where |z| > 1.645."""
    difference = run.correct.astype(float) - other.correct.astype(float)
    error = standard_error(difference, run.design_effect)
    if abs(difference.mean()) <= Z_ONE_SIDED_95 * error:
        return "no clear difference"
    return "better" if difference.mean() > 0 else "worse"
