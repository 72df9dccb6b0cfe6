"""Fine-tune the student on the weak labels as they are: the baseline of weak-to-strong learning."""

from typing import Annotated, Literal

from annotated_types import Interval


def method(
    lab,
    seed,
    labels: Literal["hard", "soft"] = "hard",
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Train on the teacher's answers, hardened at 0.5 or soft. Source: Burns et al. 2023, section 3."""
    weak = lab.weak_labels()
    targets = weak if labels == "soft" else (weak > 0.5).astype(float)
    return lab.fit(targets, epochs=epochs)
