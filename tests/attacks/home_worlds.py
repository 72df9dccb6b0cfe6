"""Simulated servers that are like a home: of so many items, with its teachers, ceilings and seeds, and the thresholds
that its calibration comes to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import probing
import watched
import world
from numpy.typing import NDArray

from outlearn.baseline_votes import SHIPPED, BaselineVotes, unpack_votes
from outlearn_evaluation.detectors import disagreement, strangers_disagreement
from outlearn_evaluation.thresholds import Thresholds, calibrated
from outlearn_training.prepare import CALIBRATIONS, tiny_task

Bits = NDArray[np.bool_]
TASKS, SIZES = ("math", "chat", "code"), (2000, 400, 100)
EQUAL = "equal_seeds"


@dataclass(frozen=True)
class Home:
    """A tiny task with so many of its test items; or one whose seeds agree on 99.9 % of them, and methods do not."""

    task: str
    items: int

    def __str__(self) -> str:
        return f"{self.task}_{self.items}"


ALL_HOMES = [Home(task, items) for task in TASKS for items in SIZES] + [Home(EQUAL, items) for items in (1263, 200)]


@contextmanager
def like(home: Home) -> Iterator[Thresholds]:
    """Worlds that are made within are like `home`; its thresholds. Honest runs come up to a PGR of 0.9 there, which the
    best of 16 runs with built-in methods did."""
    if home.task == EQUAL:
        with _constants(ITEMS=home.items, ABILITY=0.4999, METHOD=0.5, SEED=0.0001):
            yield _of_world()
        return
    votes, labels, public = _shipped(home)
    teachers, ceilings = ((one == labels).mean(axis=1) for one in (votes.teachers, votes.ceilings))
    alike = disagreement(votes.teachers.sum(axis=0), len(teachers)) / strangers_disagreement(teachers)
    seed = (0.3 / 0.27 * alike) ** 2  # a share of .09 is .27 of strangers' disagreement
    scale = {"WEAK": float(teachers.mean()), "CEILING": float(ceilings.mean())}
    with _constants(ITEMS=home.items, SEED=seed, ABILITY=1 - world.METHOD - seed, **scale):
        watched.CEILING = world.WEAK + 0.9 * (world.CEILING - world.WEAK) - 0.02
        yield calibrated(votes, labels, public)


def _shipped(home: Home) -> tuple[BaselineVotes, NDArray[np.int64], Bits]:
    """Votes, labels and public half of so many of a tiny task's test items."""
    _, _, secret = tiny_task(home.task)
    votes = unpack_votes((CALIBRATIONS / home.task / SHIPPED).read_bytes())
    rng, public = np.random.default_rng(home.items), secret.public_mask()
    halves = [rng.permutation(np.flatnonzero(half))[: home.items // 2] for half in (public, ~public)]
    rows = np.sort(np.concatenate(halves))
    some = BaselineVotes(votes.seeds, votes.teachers[:, rows], votes.ceilings[:, rows], votes.controls[:, rows])
    return some, secret.test_labels[rows], public[rows]


def _of_world() -> Thresholds:
    """Those of a calibration in the simulated world itself."""
    one = watched.WatchedWorld(np.random.default_rng(1))
    teachers, ceilings = one.run(world.WEAK) > 0, one.run(world.CEILING) > 0
    votes = BaselineVotes(tuple(range(world.SEEDS)), teachers, ceilings, teachers)
    return calibrated(votes, (one.labels > 0).astype(np.int64), one.mask)


@contextmanager
def _constants(**values: float) -> Iterator[None]:
    """Other constants in the modules that make worlds and attack them."""
    before = [
        (module, name, getattr(module, name))
        for module in (world, watched, probing)
        for name in values
        if hasattr(module, name)
    ]
    try:
        for module, name, _ in before:
            setattr(module, name, values[name])
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
