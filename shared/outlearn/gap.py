"""The gap between teacher and ceiling on the public half, and whether it is enough for PGR: one rule for all."""

import math
from dataclasses import dataclass

import numpy as np

from outlearn.errors import InvalidInputError
from outlearn.tasks import Baselines, SecretTask

Z_ONE_SIDED_95 = 1.645


@dataclass(frozen=True)
class Gap:
    """Mean accuracy of teachers and of ceilings on the public half, in [0, 1], and the standard error of their
    difference over seeds, items and items' groups."""

    weak: float
    ceiling: float
    error: float

    @property
    def size(self) -> float:
        """The ceiling's distance from the teachers; below 0 where it is worse."""
        return self.ceiling - self.weak

    @property
    def z(self) -> float:
        """The size over its standard error; infinite where there is no error."""
        return self.size / self.error if self.error else math.copysign(math.inf, self.size)

    @property
    def is_significant(self) -> bool:
        """Whether it is more than 1.645 standard errors: one-sided, 5 %. PGR is undefined where it is not."""
        return self.size > Z_ONE_SIDED_95 * self.error


def measure_gap(baselines: Baselines, items: int) -> Gap:
    """The gap on the `items` of the public half. The variance of an accuracy p over items is p (1 - p) / items, times
    the design effect; that over seeds is measured.

    Raises:
        InvalidInputError: there is one seed or no test item: PGR is undefined.
    """
    if len(baselines.per_seed) < 2 or not items:
        raise InvalidInputError("PGR is undefined without test items and at least two calibrated seeds; calibrate anew")
    weak = np.array([one.weak_public for one in baselines.per_seed])
    ceiling = np.array([one.ceiling_public for one in baselines.per_seed])
    of_items = baselines.design_effect * sum(p * (1 - p) / items for p in (weak.mean(), ceiling.mean()))
    of_seeds = sum(values.var(ddof=1) / len(values) for values in (weak, ceiling))
    return Gap(float(weak.mean()), float(ceiling.mean()), math.sqrt(of_items + of_seeds))


def public_gap(baselines: Baselines, secret: SecretTask) -> tuple[float, float]:
    """The teachers' mean accuracy on the public half of the test items, and the ceiling's distance from it.

    Raises:
        InvalidInputError: the distance is not significant, or cannot be measured: PGR is undefined.
    """
    gap = measure_gap(baselines, len(secret.public_half))
    if not gap.is_significant:
        raise InvalidInputError(
            f"the ceiling is {100 * gap.size:.1f} points above the teacher, which is not significant: PGR is "
            "undefined. Calibrate with a larger student or a weaker teacher"
        )
    return gap.weak, gap.size
