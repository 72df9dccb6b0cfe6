"""What the detectors look at: the students of a run by themselves, and a run among those evaluated before it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from outlearn.audit import AuditKind
from outlearn.tasks import Bits, Floats
from outlearn_evaluation.detectors import (
    Change,
    Look,
    Suspicion,
    floor_rate,
    majority_answer,
    near_duplicates,
    public_private_gap,
    random_masks,
    seeds_alike,
    seeds_apart,
    watermark,
)
from outlearn_evaluation.scoring import Votes
from outlearn_evaluation.thresholds import CONSTANTS, Thresholds


@dataclass(frozen=True)
class Students:
    """What a run's students answer on both halves, and the secrets that it is held against."""

    positive: Bits
    """(seeds, items)"""
    labels: NDArray[np.int64]
    """(items,)"""
    public: Bits
    """(items,) which items are public."""
    noise: Floats
    """(n,) for the public ones."""
    design_effect: float = 1.0
    frequent: Bits | None = None
    """(items,) where the task has groups."""
    thresholds: Thresholds = CONSTANTS

    @cached_property
    def right(self) -> Floats:
        """(items,) share of the seeds that are right."""
        return np.asarray((self.positive == self.labels).mean(axis=0), dtype=np.float64)

    @cached_property
    def votes(self) -> Votes:
        """What the public half says."""
        return Votes(self.positive[:, self.public])


@dataclass(frozen=True)
class Place:
    """A run when it was evaluated, after its agent's earlier ones of this version of the task."""

    runs: Sequence[Look]
    """The agent's, oldest first, this one the last."""
    changes: Sequence[Change]
    """What they changed."""
    thresholds: Thresholds = CONSTANTS


Seen = TypeVar("Seen")
OF_STUDENTS: dict[str, Callable[[Students], Suspicion | None]] = {
    "seeds apart": lambda seen: seeds_apart(seen.votes.positive, seen.labels[seen.public], seen.thresholds.apart),
    "seeds alike": lambda seen: seeds_alike(Look.of(seen.votes.positive), seen.thresholds.alike),
    "watermark": lambda seen: watermark(seen.votes.mean, seen.noise),
    "public-private gap": lambda seen: public_private_gap(seen.right, seen.public, seen.design_effect),
    "majority answer": lambda seen: (
        None if seen.frequent is None else majority_answer(seen.positive.mean(axis=0) > 0.5, seen.frequent, seen.labels)
    ),
}
OF_PLACE: dict[str, Callable[[Place], Suspicion | None]] = {
    "near-duplicate": lambda place: near_duplicates(place.runs),
    "floor rate": lambda place: floor_rate(place.runs),
    "random masks": lambda place: random_masks(place.changes, place.thresholds.doubt),
}


def examine(detectors: Mapping[str, Callable[[Seen], Suspicion | None]], seen: Seen) -> Iterator[Suspicion]:
    """What detectors find, each by itself: one that fails is a finding too, and the others go on."""
    for name, detector in detectors.items():
        try:
            found = detector(seen)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a detector must not lose an answer
            yield Suspicion(
                AuditKind.DETECTOR_FAILED, "note", {"detector": name, "error": f"{type(error).__name__}: {error}"}
            )
        else:
            if found is not None:
                yield found
