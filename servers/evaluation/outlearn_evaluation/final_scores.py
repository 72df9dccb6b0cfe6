"""Who is right about which test item when runs are done again: students between their teachers and the ceilings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import compress

import numpy as np

from outlearn.errors import InvalidInputError
from outlearn.tasks import Floats, SecretTask
from outlearn_evaluation.release import DIGITS, Interval
from outlearn_evaluation.statistics import Estimate, Right, compare, estimate_fall, estimate_pgr


def is_right(predictions: Floats, secret: SecretTask) -> Right:
    """Whether P(label = 1), (seeds, items), is on the side of the truth; 0.5 is an answer of 0."""
    return np.asarray((predictions > 0.5) == secret.test_labels, dtype=np.bool_)


@dataclass(frozen=True)
class Ends:
    """The two ends of PGR's scale with fresh seeds, as who is right about which test item."""

    weak: Right  # (seeds, items)
    ceiling: Right  # (seeds, items)
    groups: tuple[str, ...]
    private: Right  # (items,)

    @classmethod
    def of(cls, secret: SecretTask, weak: Floats, ceiling: Floats) -> "Ends":
        """From P(label = 1), (seeds, items)."""
        groups = tuple(item.group for item in secret.test)
        return cls(is_right(weak, secret), is_right(ceiling, secret), groups, ~secret.public_mask())

    def accuracy(self, right: Right) -> float:
        """On the private half."""
        return round(float(np.mean(right[:, self.private])), DIGITS)

    def pgr(self, student: Right, half: Right) -> Interval | None:
        """On the items in `half` (items,); None where PGR is undefined there."""
        student, weak, ceiling = (right[:, half] for right in (student, self.weak, self.ceiling))
        return _interval(partial(estimate_pgr, student, weak, ceiling, self.groups_of(half)))

    def fall(self, student: Right) -> Interval | None:
        """PGR on the public half less PGR on the private half; None where one is undefined."""
        return _interval(partial(estimate_fall, student, self.weak, self.ceiling, self.groups, ~self.private))

    def compare(self, one: Right, other: Right) -> Estimate:
        """By how much `one` is more accurate than `other` on the private half."""
        return compare(one[:, self.private], other[:, self.private], self.groups_of(self.private))

    def groups_of(self, half: Right) -> tuple[str, ...]:
        """The groups of the items in `half`."""
        return tuple(compress(self.groups, half))


def _interval(make: Callable[[], Estimate]) -> Interval | None:
    try:
        return Interval.of(make())
    except InvalidInputError:
        return None
