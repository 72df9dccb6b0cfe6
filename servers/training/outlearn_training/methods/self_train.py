"""Self-training: an early student labels the pool, and a fresh one is trained on the answers it is surest of.

Source: Lee 2013, "Pseudo-Label", and Xie et al. 2020, "Self-training with Noisy Student". A student that has seen the
weak labels only briefly has learnt what they have in common, not yet their mistakes. Later rounds train on what the
student of the round before answers.
"""

from typing import Annotated

from annotated_types import Interval

from outlearn_training.consistency import surest


def method(
    lab,
    seed,
    first: Annotated[float, Interval(ge=0.1, le=2)] = 0.35,
    rounds: Annotated[int, Interval(ge=1, le=4)] = 2,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """`first` epochs on the weak labels, then `rounds` on the surest share `keep` of the student's own answers."""
    student = lab.fit((lab.weak_labels() > 0.5).astype(float), epochs=first)
    for _ in range(rounds):
        own = student.predict()
        labels, weights = surest(own, keep)
        lab.log(mean_answer=own.mean())
        student = lab.fit(labels, weights, epochs=epochs)
    return student
