"""Iterated distillation: each generation is a fresh student, trained on all answers of the generation before.

Source: Furlanello et al. 2018, "Born-Again Neural Networks". Unlike `self_train` it keeps every item. Answers are
split at their median: without that, each generation hands on the teacher's preference for one label. The paper distils
probabilities; hard labels are the default, as a student of one epoch is undecided and hands that on too.
"""

from typing import Annotated, Literal

from annotated_types import Interval

from outlearn_training.consistency import balanced


def method(
    lab,
    seed,
    first: Annotated[float, Interval(ge=0.1, le=2)] = 0.35,
    rounds: Annotated[int, Interval(ge=1, le=4)] = 2,
    labels: Literal["hard", "soft"] = "hard",
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """`first` epochs on the weak labels, hardened, then `rounds` generations on the answers before, hard or soft."""
    student = lab.fit((lab.weak_labels() > 0.5).astype(float), epochs=first)
    for _ in range(rounds):
        own = balanced(student.predict())
        lab.log(mean_confidence=abs(2 * own - 1).mean())
        student = lab.fit(own if labels == "soft" else (own > 0.5).astype(float), epochs=epochs)
    return student
