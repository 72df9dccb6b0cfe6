"""The teacher as a noisy channel: expectation maximisation over the true labels.

Source: Bekker and Goldberger 2016, "Training deep neural-networks based on unreliable labels", after Dawid and Skene
1979. The teacher says what it says with a probability that depends on the true label. Its confidence is part of what
it says: in each of several bands of |p - 0.5| it errs at a rate of its own. A student's answer is the prior of an item;
prior and channel give the posterior, on which the next student is trained. The papers take errors to be random; a
teacher's are not, so what the student repeats of them looks like truth.
"""

from typing import Annotated

import numpy as np
from annotated_types import Interval

from outlearn_training.consistency import balanced


def method(
    lab,
    seed,
    noise: Annotated[float, Interval(ge=0, le=0.45)] = 0.35,
    bands: Annotated[int, Interval(ge=1, le=8)] = 4,
    first: Annotated[float, Interval(ge=0.1, le=2)] = 0.35,
    rounds: Annotated[int, Interval(ge=1, le=4)] = 2,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """A student after `first` epochs gives the first prior; `rounds` of estimating the channel and training follow.

    The first student answers what the teacher would say; the guess that the teacher errs at a rate of `noise` turns
    that into a first prior of the truth. Priors are balanced: half of them are above 0.5.
    """
    weak = lab.weak_labels()
    said = symbols(weak, bands)
    student = lab.fit((weak > 0.5).astype(float), epochs=first)
    for turn in range(rounds):
        prior = balanced(student.predict())
        prior = (prior - noise) / (1 - 2 * noise) if turn == 0 else prior
        posterior, _channel = estimate_channel(prior, said)
        wrong = np.where(weak > 0.5, 1 - posterior, posterior)
        lab.log(noise=wrong.mean(), overruled=(wrong > 0.5).mean())
        student = lab.fit(posterior, epochs=epochs)
    return student


def symbols(weak, bands):
    """What the teacher says of each item: its label and the band of its confidence. Returns (n,) in [0, 2 bands)."""
    confidence = np.abs(weak - 0.5)
    edges = np.quantile(confidence, np.linspace(0, 1, bands + 1)[1:-1])
    return np.searchsorted(edges, confidence) + bands * (weak > 0.5)


def estimate_channel(prior, said, steps=50):
    """Expectation maximisation with a fixed prior P(label = 1), (n,), kept in [0.01, 0.99], and symbols `said`, (n,).

    Returns the posterior P(label = 1), (n,), and the channel P(symbol | label), (2, symbols).
    """
    prior = np.clip(prior, 0.01, 0.99)
    posterior = prior
    for _ in range(steps):
        counts = np.stack([np.bincount(said, weights=1 - posterior), np.bincount(said, weights=posterior)]) + 1
        channel = counts / counts.sum(1, keepdims=True)
        joint = channel[:, said] * np.stack([1 - prior, prior])
        posterior = joint[1] / joint.sum(0)
    return posterior, channel
