"""Means over seeds and items with their errors, PGR with its interval, and comparisons. Pure functions over arrays.

All take answers as right or wrong, (seeds, items), on the same seeds and items. Nothing is hidden from whoever calls
these: unlike the answers to agents, they look at labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import InvalidInputError
from outlearn.tasks import Floats

Right = NDArray[np.bool_]
LEVEL = 0.95
GAP_LEVEL = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean for new seeds and new items. `se**2` is `se_items**2 + se_seeds**2`; `df` are its degrees of freedom."""

    value: float
    se: float
    se_items: float
    se_seeds: float
    df: float

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - self._reach()

    @property
    def high(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + self._reach()

    @property
    def p_value(self) -> float:
        """Two-sided, for the hypothesis that the mean is 0; 1 where nothing differs from 0."""
        from scipy.stats import t

        return float(2 * t.sf(abs(self.value) / self.se, self.df)) if self.se > 0 else float(self.value == 0)

    def _reach(self) -> float:
        from scipy.stats import t

        return float(self.se * t.ppf((1 + LEVEL) / 2, self.df))


def estimate(values: Floats | Right, groups: Sequence[str]) -> Estimate:
    """The mean of `values` and its error, for new seeds and for new items that come in groups.

    Variance: `MS_groups + MS_seeds - MS_both`, mean squares of the groups' totals in a two-way analysis of variance, as
    variances of the mean; noise that is neither the item's nor the seed's is in the first two, and would count twice.
    Never below what one of the three gives alone, so the seeds' part is never negative, and intervals are somewhat too
    wide where seeds have no effect. Degrees of freedom are Satterthwaite's: `seeds - 1` where all of it is from seeds,
    `groups - 1` where all is from items.
    Sources: Satterthwaite, "An approximate distribution of estimates of variance components" (1946); Searle, Casella
    and McCulloch, "Variance Components" (1992), 4.3; Liang and Zeger (1986) for the groups.

    Args:
        values: (seeds, items).
        groups: (items,) names; where each item has its own, items are independent.

    Raises:
        InvalidInputError: fewer than two seeds or two groups.
    """
    seeds, items = values.shape
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    count = int(members.max(initial=-1)) + 1
    if min(seeds, count) < 2:
        raise InvalidInputError(f"an error needs two seeds and two groups of items, not {seeds} and {count}")
    deviations = values - np.mean(values)
    totals = np.stack([np.bincount(members, weights=row) for row in deviations])  # (seeds, groups)
    by_group, by_seed = totals.mean(axis=0), deviations.mean(axis=1)
    noise = totals - by_group - np.outer(by_seed, np.bincount(members))
    scale = count / (count - 1) / items**2
    of_items, of_seeds = scale * np.square(by_group).sum(), by_seed.var(ddof=1) / seeds
    of_both = scale * np.square(noise).sum() / (seeds * (seeds - 1))
    variance = max(of_items, of_seeds, of_both, of_items + of_seeds - of_both)
    spread = of_items**2 / (count - 1) + of_seeds**2 / (seeds - 1) + of_both**2 / ((count - 1) * (seeds - 1))
    return Estimate(
        value=float(np.mean(values)),
        se=float(np.sqrt(variance)),
        se_items=float(np.sqrt(of_items)),
        se_seeds=float(np.sqrt(max(0.0, variance - of_items))),
        df=float(variance**2 / spread) if spread > 0 else float(seeds - 1),
    )


def estimate_pgr(student: Right, weak: Right, ceiling: Right, groups: Sequence[str]) -> Estimate:
    """`PGR = (student - weak) / (ceiling - weak)` of mean accuracies, with an error that counts all three as estimated.

    The error is that of PGR's linear part, the mean of `(student - (1 - PGR) weak - PGR ceiling) / gap`: it has in it
    how the three go together on the same items and for the same seed, whose teacher the student learnt from.
    Sources: Burns et al. 2023, section 3, for PGR; Cochran, "Sampling Techniques" (1977), 6.3, for the linear part.

    Raises:
        InvalidInputError: the gap between teacher and ceiling is not significant (one-sided, 5 %): PGR is undefined.
    """
    value, linear = _linear(student, weak, ceiling, groups)
    return replace(estimate(linear, groups), value=value)


def estimate_fall(student: Right, weak: Right, ceiling: Right, groups: Sequence[str], public: Right) -> Estimate:
    """PGR on the items in `public` (items,) less PGR on the others. Raises InvalidInputError as `estimate_pgr` does."""
    halves = [(public, 1.0), (~public, -1.0)]
    fall, linear = 0.0, np.zeros(student.shape)
    for half, sign in halves:
        value, part = _linear(student[:, half], weak[:, half], ceiling[:, half], np.asarray(groups)[half].tolist())
        fall += sign * value
        linear[:, half] = sign * part * len(public) / half.sum()
    return replace(estimate(linear, groups), value=fall)


def compare(one: Right, other: Right, groups: Sequence[str]) -> Estimate:
    """By how much `one` is more accurate than `other`, paired by seed and item."""
    return estimate(_minus(one, other), groups)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values for all hypotheses together. Source: Holm, "A simple sequentially rejective procedure" (1979)."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if p_values else []


def _linear(student: Right, weak: Right, ceiling: Right, groups: Sequence[str]) -> tuple[float, Floats]:
    """PGR, and for each seed and item what it adds to PGR's error; the mean of that is 0."""
    gap = estimate(_minus(ceiling, weak), groups)
    if gap.value <= 0 or gap.p_value > 2 * GAP_LEVEL:
        raise InvalidInputError(
            f"the ceiling is {100 * gap.value:.1f} ± {100 * gap.se:.1f} points above the teacher, which is not "
            "significant: PGR is undefined"
        )
    value = (float(np.mean(student)) - float(np.mean(weak))) / gap.value
    return value, np.asarray((student - (1 - value) * weak - value * ceiling) / gap.value)


def _minus(one: Right, other: Right) -> Floats:
    return np.subtract(one, other, dtype=np.float64)
