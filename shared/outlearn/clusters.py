"""Items of a group (a question, a program) are alike: many of them tell less than as many with nothing in common."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import InvalidInputError


def design_effect(values: NDArray[np.float64] | NDArray[np.bool_], groups: Sequence[str]) -> float:
    """By how much groups raise the variance of a mean over items.

    `G / (G - 1) * sum_g (sum_{i in g} d_i)^2` over `n / (n - 1) * sum_i d_i^2`, where `d_i` is item i's mean over seeds
    less the mean of all: the cluster-robust variance of the mean over the one of independent items.
    Sources: Kish, "Survey Sampling" (1965); Liang and Zeger, "Longitudinal data analysis" (1986).

    Args:
        values: (seeds, items).
        groups: (items,) names.

    Returns:
        At least 1; 1 where each item is its own group, or where all items are the same.

    Raises:
        InvalidInputError: there are fewer than two groups.
    """
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    count, n = int(members.max(initial=-1)) + 1, len(members)
    if count < 2:
        raise InvalidInputError(f"an error over new groups needs two of them among the test items, not {count}")
    deviations = np.mean(values, axis=0) - np.mean(values)
    alone = n / (n - 1) * np.square(deviations).sum()
    together = count / (count - 1) * np.square(np.bincount(members, weights=deviations)).sum()
    return max(1.0, float(together / alone)) if alone > 0 else 1.0
