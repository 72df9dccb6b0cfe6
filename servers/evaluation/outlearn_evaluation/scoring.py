"""PGR from secret weights, with a standard error that tells nothing of the labels. Pure functions over arrays.

Each public item has one weight `w = y + g` (y is its label as -1 or 1, g ~ N(0, 1), drawn once). A run's votes are
`s`, -1 or 1 for each seed and item; their mean over seeds is `S`. As `E[g] = 0`, `mean(S * w)` is an unbiased estimate
of `mean(S * y) = 2 * accuracy - 1`. A run's score is that, with noise of its own; all that is ever told of a run, PGR
and verdicts, is computed from its one score.
"""

import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import IntegrityError
from outlearn.gap import Z_ONE_SIDED_95, public_gap
from outlearn.receipts import Receipt
from outlearn.seal import Seal
from outlearn.tasks import Baselines, Bits, Floats, SecretTask
from outlearn.types import Verdict

GRID = 0.05
FLOOR = 0.10
NEAR = 0.02


@dataclass(frozen=True)
class Votes:
    """Hard answers of a run on the public half of the test items."""

    positive: Bits  # (seeds, items)

    @cached_property
    def mean(self) -> Floats:
        """Means over seeds of votes as -1 or 1, (items,), in [-1, 1]."""
        return np.asarray(2.0 * self.positive.mean(axis=0) - 1)

    @cached_property
    def counts(self) -> NDArray[np.uint8]:
        """How many seeds vote 1, (items,)."""
        return np.asarray(self.positive.sum(axis=0), dtype=np.uint8)


@dataclass(frozen=True)
class Grade:
    """PGR as it is told: on a grid, or `at_most` its lowest step."""

    pgr: float
    at_most: bool
    pgr_se: float


@dataclass(frozen=True)
class Judge:
    """Scores and compares votes on one task."""

    weights: Floats  # (items,)
    weak: float
    gap: float
    seed_variance: float = 0.0
    design_effect: float = 1.0
    dither: float = 0.0
    key: bytes = b""

    def score(self, votes: Votes) -> float:
        """The accuracy `(1 + mean(S * (w + h))) / 2` that everything told of these votes comes from.

        h ~ N(0, dither^2) for each item is noise of these votes alone: the same votes have the same noise whenever they
        are scored, others have other noise, and whoever has the key can work it out again. Only its mean is drawn.
        """
        asked = len(votes.positive).to_bytes(4, "big") + votes.counts.tobytes()
        drawn = np.random.default_rng(int.from_bytes(hmac.digest(self.key, asked, "sha256"), "big")).normal()
        return (1 + float(np.mean(votes.mean * self.weights))) / 2 + math.sqrt(self._own_variance(votes)) * float(drawn)

    def grade(self, votes: Votes) -> Grade:
        """PGR `(score - weak) / gap` on a grid of 0.05, or at most 0.10.

        The ends of the scale count as fixed. Not bounded above: more than 1 is better than a student trained on the
        truth. Source of PGR: Burns et al. 2023, section 3; of answers from noisy labels: randomized response, and
        Dwork et al. 2015, "The reusable holdout".
        """
        told, at_most = on_grid((self.score(votes) - self.weak) / self.gap)
        return Grade(told, at_most, round(self._error(votes, told), 2))

    def compare(self, run: Votes, other: Votes) -> Verdict:
        """Whether `run` is better than `other`, paired by item: better or worse where |z| > 1.645.

        What is told as at most 0.10 counts as 0.10: a verdict would tell otherwise what PGR does not.
        """
        lowest = self.weak + FLOOR * self.gap
        by = max(self.score(run), lowest) - max(self.score(other), lowest)
        items = self._item_variance((run.mean - other.mean) / 2)
        seeds = self.seed_variance * (1 / len(run.positive) + 1 / len(other.positive))
        error = math.sqrt(items + seeds + self._own_variance(run) + self._own_variance(other))
        if abs(by) <= Z_ONE_SIDED_95 * error:
            return "no clear difference"
        return "better" if by > 0 else "worse"

    def _error(self, votes: Votes, told: float) -> float:
        """Standard error of PGR from what is told already and the votes: labels and weights have no part in it."""
        items = self._item_variance(votes.mean / 2, self.weak + told * self.gap - 0.5) + self._own_variance(votes)
        return math.sqrt((items + self.seed_variance / len(votes.positive)) / self.gap**2 + GRID**2 / 12)

    def _item_variance(self, values: Floats, mean: float = 0.0) -> float:
        """Variance of `mean(values * w)` over new items and noise, given its expectation: E[w^2] is 2 for any labels.

        `(d * (mean(v^2) - mean^2) + mean(v^2)) / n`: the labels' part, with the design effect d, and the noise's.
        """
        square = float(np.mean(np.square(values)))
        return (self.design_effect * max(square - mean**2, 0.0) + square) / len(values)

    def _own_variance(self, votes: Votes) -> float:
        """Variance that noise of its own gives a score."""
        return self.dither**2 * float(np.mean(np.square(votes.mean / 2))) / len(votes.mean)


def make_judge(weights: Floats, baselines: Baselines, secret: SecretTask, seal: Seal) -> Judge:
    """The judge of a task. Raises InvalidInputError where PGR is undefined."""
    weak, gap = public_gap(baselines, secret)
    ends = ([getattr(one, end) for one in baselines.per_seed] for end in ("weak_public", "ceiling_public"))
    seed_variance = max(float(np.var(end, ddof=1)) for end in ends)
    return Judge(weights, weak, gap, seed_variance, baselines.design_effect, seal.dither, bytes.fromhex(seal.nonce))


def on_grid(pgr: float) -> tuple[float, bool]:
    """The nearest step of 0.05, and whether that is no more than 0.10, below which all is told as 0.10."""
    step = GRID * round(pgr / GRID)
    return (FLOOR, True) if step < FLOOR + GRID / 2 else (round(step, 2), False)


def unary(counts: NDArray[np.uint8], seeds: int) -> int:
    """`counts`, (items,), with a bit for each (seed, item) vote, whatever the order of the seeds: whether more than so
    many seeds vote 1."""
    return int.from_bytes(np.packbits(counts > np.arange(seeds, dtype=np.uint8)[:, None]).tobytes(), "big")


def differing(bits: int, others: int) -> int:
    """The (seed, item) votes in which two runs must differ at least, whatever the order of the seeds.

    The runs are as `unary` makes them. With one seed it is the Hamming distance. Runs of equal `counts` get equal
    answers, so seeds that change places hide nothing.
    """
    return (bits ^ others).bit_count()


def read_answers(receipts: Sequence[Receipt], secret: SecretTask, baselines: Baselines) -> Bits:
    """A run's hard answers on both halves, (seeds, items). A prediction of exactly 0.5 is one for label 0.

    Raises IntegrityError: the receipts are not of this task, or not of exactly the server's seeds.
    """
    check_receipts(receipts, secret, baselines)
    predicted = np.array([receipt.predictions for receipt in receipts]).reshape(len(receipts), len(secret.test))
    return np.asarray(predicted > 0.5)


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
