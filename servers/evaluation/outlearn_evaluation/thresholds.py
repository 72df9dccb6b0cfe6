"""The detectors' thresholds, from how a home's own teachers and ceilings differ; decision 22 has the reasons.

A threshold is a prediction bound for other seeds than those of the calibration, between limits that no calibration
moves: one whose seeds are all alike, or all apart, makes no detector flag everybody or nobody.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outlearn.baseline_votes import BaselineVotes, load_votes, votes_path
from outlearn.errors import IntegrityError
from outlearn.files import FileVersion, file_version
from outlearn.tasks import Bits, load_card, task_names
from outlearn_evaluation.commitment import open_task
from outlearn_evaluation.detectors import (
    ALIKE,
    APART,
    DOUBT,
    Change,
    Look,
    change,
    disagreement,
    strangers_disagreement,
)

FEWEST_SEEDS = 3
SURE_Z = 1.645  # one-sided, 95 in 100
RARE_Z = 2.054  # one-sided, 49 in 50
MOST_ALIKE, MOST_APART = 0.01, 0.95
ENSEMBLE = 8.0  # students of a seed, at most: they disagree with other seeds' by so much less, squared
LEAST_DOUBT, DOUBT_STEP = 0.15, 0.05
INFORMATIVE = 30.0  # weight of changes, below which their effects say little
NO_VOTES = (
    "constants, as the home has no votes of this task's baselines: `outlearn calibrate` again (for a tiny task, "
    "`outlearn prepare`) keeps them and trains nothing anew"
)


@dataclass(frozen=True)
class Thresholds:
    """What is in force for one task."""

    alike: float = ALIKE
    """Seeds that disagree on a smaller share of items are alike; 0 where equal seeds mean nothing."""
    apart: float = APART
    """Seeds that disagree on a larger share of what strangers would are apart."""
    doubt: float = DOUBT
    """A change with a smaller effect is blind."""
    source: str = "constants"
    calibrated: bool = False
    """Whether they are from votes of the home's own baselines."""


CONSTANTS = Thresholds()
FindThresholds = Callable[[str, str], Thresholds]
"""Those of a task, by its name and fingerprint."""


class ThresholdBook:
    """The thresholds of a home folder's tasks, worked out once for each version of a task and of its votes."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._known: dict[str, tuple[Path, FileVersion | None, Thresholds | None]] = {}

    def of(self, task: str, fingerprint: str) -> Thresholds:
        """Those of a version of a task; the constants where its baselines have no votes."""
        path, known, found = self._known.get(fingerprint) or (self._votes_path(task, fingerprint), None, None)
        version = file_version(path)  # they come after the task
        if found is None or known != version:
            found = self._work_out(task, fingerprint)
            self._known[fingerprint] = path, version, found
        return found

    def _votes_path(self, task: str, fingerprint: str) -> Path:
        return votes_path(self._home / "vault" / task, fingerprint)

    def _work_out(self, task: str, fingerprint: str) -> Thresholds:
        opened = open_task(self._home, task)
        try:
            votes = load_votes(self._home / "vault" / task, fingerprint)
        except IntegrityError as error:
            return Thresholds(source=f"constants, as {error}")
        if votes is None:
            return Thresholds(source=NO_VOTES)
        ours = fingerprint, opened.baselines.seeds, len(opened.secret.test)
        if (opened.baselines.fingerprint, votes.seeds, votes.teachers.shape[1]) != ours:
            return Thresholds(source="constants, as the votes in the vault are not of these baselines")
        if len(votes.seeds) < FEWEST_SEEDS or not opened.secret.public_half:
            return Thresholds(source="constants, as there are too few seeds or no test items")
        return calibrated(votes, opened.secret.test_labels, opened.secret.public_mask())


def in_force(home: Path) -> dict[str, Thresholds]:
    """Those of each task of a home folder, by the task's name."""
    book = ThresholdBook(home)
    return {name: book.of(name, load_card(home, name).fingerprint) for name in task_names(home)}


def calibrated(votes: BaselineVotes, labels: NDArray[np.int64], public: Bits) -> Thresholds:
    """Thresholds for runs of as many seeds as `votes` have. `labels` and `public` are (items,)."""
    teachers, ceilings = votes.teachers[:, public], votes.ceilings[:, public]
    return Thresholds(
        alike=min(_alike(teachers), _alike(ceilings)),
        apart=max(_apart(one, labels[public]) for one in (teachers, ceilings)),
        doubt=_doubt(teachers, ceilings),
        source=f"the votes of {len(votes.seeds)} teachers and {len(votes.seeds)} ceilings on {public.sum()} items",
        calibrated=True,
    )


def _alike(positive: Bits) -> float:
    """Seeds that are as alike as those of `positive` (seeds, n) disagree less than this once in fifty, for want of
    items, and ensembles of them on average more. The least that seeds differ in is an item on which one is alone."""
    seeds, n = positive.shape
    least = 2 / seeds / n

    def log_disagreement(rows: Sequence[int]) -> float:
        return math.log(max(_disagreement(positive[rows]), least / 100))

    low = math.exp(_predict(log_disagreement, seeds)[0])
    fewest = math.floor(max(0.0, math.sqrt(low / least) - RARE_Z / 2) ** 2)  # twice the root of a count has variance 1
    return float(max(0.0, min((fewest - 0.5) * least, low / math.sqrt(ENSEMBLE), MOST_ALIKE)))


def _apart(positive: Bits, labels: NDArray[np.int64]) -> float:
    """The largest share of strangers' disagreement that seeds like those of `positive` (seeds, n) come to."""
    strangers = strangers_disagreement((positive == labels).mean(axis=1))
    if strangers == 0:
        return APART

    def share(rows: Sequence[int]) -> float:
        return _disagreement(positive[rows]) / strangers

    return float(np.clip(_predict(share, len(positive))[1], APART, MOST_APART))


def _doubt(teachers: Bits, ceilings: Bits) -> float:
    """The least effect of retraining: a student of the truth after the teachers, which is as far as research can come,
    and a seed after others of its kind. In few steps, and never above the constant: what withholds tells no more."""
    farthest = change(Look.of(ceilings), [Look.of(teachers)])
    least = min(_retrained(teachers), _retrained(ceilings), _on_other_items(farthest) if farthest else DOUBT)
    return float(np.clip(math.floor(least / DOUBT_STEP + 1e-9) * DOUBT_STEP, LEAST_DOUBT, DOUBT))


def _on_other_items(found: Change) -> float:
    """The least effect that the same change has on as many other items; `1 / weight` is an effect's variance."""
    return found.effect - SURE_Z / math.sqrt(found.weight)


def _retrained(positive: Bits) -> float:
    """The least effect of another seed's changes; that of (seeds, n) where these change too little to tell."""
    seeds = len(positive)
    alone = [Look.of(positive[[row]]) for row in range(seeds)]
    found = [change(one, [other for other in alone if other is not one]) for one in alone]
    told = [one for one in found if one is not None]
    if len(told) < seeds or sum(one.weight for one in told) < INFORMATIVE:
        return DOUBT
    effects = np.array([one.effect for one in told])
    return float(effects.mean() - sure_t(seeds - 1) * effects.std(ddof=1) * math.sqrt(1 + 1 / seeds))


def _predict(statistic: Callable[[Sequence[int]], float], seeds: int) -> tuple[float, float]:
    """Bounds, each for 95 in 100, of a statistic of as many other seeds. Its error is the jackknife's over seeds, once
    for the seeds at hand and once for the others. Source: Efron and Tibshirani, "An Introduction to the Bootstrap"
    (1993), 11."""
    whole = statistic(range(seeds))
    left_out = [statistic([row for row in range(seeds) if row != out]) for out in range(seeds)]
    reach = sure_t(seeds - 1) * math.sqrt(2 * (seeds - 1) * float(np.var(left_out)))
    return whole - reach, whole + reach


def sure_t(df: int) -> float:
    """What 95 in 100 of Student's t are below, within 0.3 % from three degrees of freedom on, 1.2 % for two. (scipy's
    would cost a server 60 MiB.) Source: Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.7.5."""
    z = SURE_Z
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / df + second / df**2 + third / df**3


def _disagreement(positive: Bits) -> float:
    return disagreement(positive.sum(axis=0), len(positive))
