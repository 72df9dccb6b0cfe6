"""Weigh each weak label by how sure the teacher is and by what the untrained student thinks of it.

Source: Liu and Tao 2016, "Classification with Noisy Labels by Importance Reweighting": a label counts as much as it is
probably right. That probability is the teacher's confidence here, times the student's prior, its zero-shot answer.
"""

from typing import Annotated

import numpy as np
from annotated_types import Interval


def method(
    lab,
    seed,
    teacher: Annotated[float, Interval(ge=0, le=4)] = 1.0,
    prior: Annotated[float, Interval(ge=0, le=4)] = 0.25,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Weights are `confidence ** teacher * agreement ** prior`, scaled so that both classes weigh the same.

    `confidence` is |2p - 1| of the weak label. `agreement` is the share of the pool that the student ranks as less
    likely to have this label; ranks, as its zero-shot answers are biased.
    """
    weak, own = lab.weak_labels(), lab.zero_shot()
    labels = (weak > 0.5).astype(float)
    rank = (own.argsort(kind="stable").argsort(kind="stable") + 0.5) / len(own)
    weights = np.abs(2 * weak - 1) ** teacher * np.where(labels == 1, rank, 1 - rank) ** prior
    for side in (labels == 1, labels == 0):
        weights[side] *= len(labels) / 2 / max(weights[side].sum(), 1e-9)
    lab.log(effective_items=weights.sum() ** 2 / (weights**2).sum())
    return lab.fit(labels, weights, epochs=epochs)
