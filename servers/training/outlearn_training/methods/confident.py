"""Train only on the items of which the teacher is most confident.

Source: Guo and Yang 2024, "Improving Weak-to-Strong Generalization with Reliability-Aware Alignment", which drops the
labels that the teacher is unsure of. Each class is filtered by itself, so that both keep their share.
"""

from typing import Annotated

import numpy as np
from annotated_types import Interval


def method(
    lab,
    seed,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Keep the share `keep` of the pool with the largest |p - 0.5|, half of it in each class, and harden its labels."""
    weak = lab.weak_labels()
    confidence = np.abs(weak - 0.5)
    weights = np.zeros(len(weak))
    for side in (weak > 0.5, weak <= 0.5):
        rows = np.flatnonzero(side)
        best = rows[np.argsort(-confidence[rows], kind="stable")]
        weights[best[: max(1, round(keep * len(weak) / 2))]] = 1
    lab.log(items=weights.sum())
    return lab.fit((weak > 0.5).astype(float), weights, epochs=epochs)
