"""Stop early: a student learns the simple and true part of its lessons first."""

from typing import Annotated

from annotated_types import Interval


def method(lab, seed, epochs: Annotated[float, Interval(ge=0.05, le=1)] = 0.25):
    """Vanilla training for a part of an epoch."""
    return lab.fit((lab.weak_labels() > 0.5).astype(float), epochs=epochs)
