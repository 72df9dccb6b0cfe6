"""Unsupervised elicitation: train the student on its own zero-shot answers, without the teacher."""

from typing import Annotated

import numpy as np
from annotated_types import Interval


def method(
    lab,
    seed,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Balance the zero-shot answers at their median and keep the share `keep` that is farthest from it.

    The untrained student's answers are biased towards one word; ranking them keeps what it knows and drops the bias.
    """
    scores = lab.zero_shot()
    rank = scores.argsort(kind="stable").argsort(kind="stable") / (len(scores) - 1)
    weights = (np.abs(rank - 0.5) >= (1 - keep) / 2).astype(float)
    lab.log(items=weights.sum(), mean_zero_shot=scores.mean())
    return lab.fit((rank > 0.5).astype(float), weights, epochs=epochs)
