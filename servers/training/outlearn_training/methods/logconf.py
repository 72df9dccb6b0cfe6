"""The auxiliary confidence loss: the student learns from the weak labels and, more and more, from its own opinion."""

from typing import Annotated, Literal

from annotated_types import Interval

from outlearn_training.losses import logconf


def method(
    lab,
    seed,
    alpha: Annotated[float, Interval(ge=0, le=0.95)] = 0.75,
    warmup: Annotated[float, Interval(ge=0.05, le=1)] = 0.2,
    labels: Literal["hard", "soft"] = "hard",
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """`alpha` is the final weight of the student's own opinion. Source: Burns et al. 2023, section 4.3."""
    weak = lab.weak_labels()
    targets = weak if labels == "soft" else (weak > 0.5).astype(float)
    return lab.fit(targets, loss=logconf(alpha, warmup), epochs=epochs)
