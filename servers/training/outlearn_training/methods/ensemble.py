"""An ensemble: students that saw different parts of the pool, whose probabilities are averaged.

Source: Breiman 1996, "Bagging Predictors". Each student learns mistakes of its own share of the labels; what all of
them learn stays. Members are trained with the confidence loss by default: it lets them depart from the teacher.
"""

from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval


def method(
    lab,
    seed,
    members: Annotated[int, Interval(ge=2, le=8)] = 4,
    share: Annotated[float, Interval(ge=0.1, le=1)] = 0.75,
    loss: Literal["xent", "logconf"] = "logconf",
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """`members` students, each trained for `epochs` on a random `share` of the weak labels, with `loss`."""
    labels = (lab.weak_labels() > 0.5).astype(float)
    rng = np.random.default_rng(seed)
    students = []
    for _ in range(members):
        weights = np.zeros(len(labels))
        weights[rng.permutation(len(labels))[: max(1, round(share * len(labels)))]] = 1
        students.append(lab.fit(labels, weights, loss, epochs=epochs))
    return students
