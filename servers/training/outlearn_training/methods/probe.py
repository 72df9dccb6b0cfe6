"""Train a linear probe on the untrained student's hidden states, and distil its answers into the student.

Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes"; for the difference of
means Marks and Tegmark 2023, "The Geometry of Truth". A probe has too few parameters to learn the teacher's mistakes
one by one; it finds a direction that is in the student already. The difference of means is not fitted to the labels at
all, and errors that are the same in both classes only shorten it.
"""

from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval

from outlearn_training.consistency import surest


def method(
    lab,
    seed,
    kind: Literal["logistic", "mean"] = "mean",
    ridge: Annotated[float, Interval(ge=1e-4, le=100)] = 1.0,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Probe for the hardened weak labels, and train on the share `keep` of the pool that is farthest from the median.

    `ridge` is the penalty on the logistic probe's weights, in items.
    """
    labels = (lab.weak_labels() > 0.5).astype(float)
    states = lab.embed().astype(float)
    states = (states - states.mean(0)) / (states.std(0) + 1e-6)
    direction = mean_difference(states, labels) if kind == "mean" else logistic(states, labels, ridge)
    targets, weights = surest(states @ direction, keep)
    lab.log(agrees_with_teacher=(targets == labels).mean())
    return lab.fit(targets, weights, epochs=epochs)


def mean_difference(states, labels):
    """From the mean of class 0 to the mean of class 1. Takes (n, D) and (n,), returns (D,)."""
    ones = labels > 0.5
    return states[ones].mean(0) - states[~ones].mean(0)


def logistic(states, labels, ridge, steps=20):
    """Ridge-penalised logistic regression by Newton's method; takes (n, D) and (n,), returns weights (D,)."""
    inputs = np.column_stack([states, np.ones(len(states))])
    penalty = np.diag([ridge] * states.shape[1] + [1e-6])  # none to speak of on the intercept
    weights = np.zeros(inputs.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (p - labels) + penalty @ weights
        curvature = (inputs * (p * (1 - p))[:, None]).T @ inputs + penalty
        weights -= np.linalg.solve(curvature, gradient)
    return weights[:-1]
