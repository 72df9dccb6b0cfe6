"""What the detectors look at, and the order in which they do: one case a run."""

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from outlearn.tasks import Floats
from outlearn_evaluation.detectors import (
    Bits,
    Change,
    Look,
    Suspicion,
    change,
    floor_rate,
    majority_answer,
    near_duplicates,
    public_private_gap,
    random_masks,
    seeds_alike,
    seeds_apart,
    watermark,
)


@dataclass(frozen=True)
class Case:
    """A run when it was evaluated, all that was evaluated before it, and the task's secrets."""

    run: Look
    earlier: Sequence[Look]
    """Everybody's of this version of the task, oldest first."""
    changes: Sequence[Change]
    """Of all its agent's runs up to this one."""
    positive: Bits
    """(seeds, items) on both halves."""
    labels: NDArray[np.int64]
    """(items,) of both halves."""
    public: Bits
    """(items,) which items are public."""
    noise: Floats
    """(n,) for the public ones."""
    design_effect: float = 1.0
    frequent: Bits | None = None
    """(items,) of both halves, where the task has groups."""

    @cached_property
    def own(self) -> list[Look]:
        """The agent's runs up to this one."""
        return [look for look in (*self.earlier, self.run) if look.agent == self.run.agent]

    @cached_property
    def right(self) -> Floats:
        """(items,) of both halves, share of the seeds that are right."""
        return np.asarray((self.positive == self.labels).mean(axis=0), dtype=np.float64)

    @cached_property
    def signs(self) -> Floats:
        """(n,) mean votes on the public half, in [-1, 1]."""
        return np.asarray(2.0 * self.positive[:, self.public].mean(axis=0) - 1)


Detector = Callable[[Case], Suspicion | None]
DETECTORS: dict[str, Detector] = {
    "near-duplicate": lambda case: near_duplicates(case.own),
    "seeds alike": lambda case: seeds_alike(case.run),
    "seeds apart": lambda case: seeds_apart(case.positive[:, case.public], case.labels[case.public]),
    "floor rate": lambda case: floor_rate(case.own),
    "random masks": lambda case: random_masks(case.changes),
    "watermark": lambda case: watermark(case.signs, case.noise),
    "public-private gap": lambda case: public_private_gap(case.right, case.public, case.design_effect),
    "majority answer": lambda case: (
        None if case.frequent is None else majority_answer(case.positive.mean(axis=0) > 0.5, case.frequent, case.labels)
    ),
}


def examine(case: Case) -> Iterator[Suspicion]:
    """What the detectors find, each by itself: one that fails is a finding too, and the others go on."""
    for name, detector in DETECTORS.items():
        try:
            found = detector(case)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a detector must not lose an answer
            yield Suspicion("detector failed", "note", {"detector": name, "error": f"{type(error).__name__}: {error}"})
        else:
            if found is not None:
                yield found


def changes_of(
    agent: str, looks: Sequence[Look], known: dict[str, Change | None], released: Set[str] = frozenset()
) -> list[Change]:
    """What each of an agent's runs changed, but for `released` ones; `known` keeps what was worked out, by run."""
    for number, look in enumerate(looks):
        if look.agent == agent and look.run_id not in known:
            known[look.run_id] = change(look, looks[:number])
    found = [known[look.run_id] for look in looks if look.agent == agent and look.run_id not in released]
    return [one for one in found if one is not None]
