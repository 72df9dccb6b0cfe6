"""Attacks on the evaluation's feedback. Each returns the attacker's best answers and those it began with.

Shares, rounds and ridges are those that gained most on the public half, of some dozens that were tried in simulation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

import numpy as np
from world import ITEMS, Vector, World

from outlearn_evaluation.ledger import Answered

ANSWERS = 200  # what the team's budget allows
RIDGE = 1.0  # in units of the mean square of a question
Attack = Callable[[World], tuple[Vector, Vector]]


def _blank(world: World) -> Vector:
    return np.where(world.rng.random(ITEMS) < 0.5, 1.0, -1.0)


def _flipped(world: World, answers: Vector, share: float) -> Vector:
    return np.where(world.rng.random(ITEMS) < share, -answers, answers)


def _sign(values: Vector, otherwise: Vector) -> Vector:
    return np.where(values == 0, otherwise, np.sign(values))


@dataclass
class Notes:
    """What an attacker asked and was told."""

    asked: list[Vector] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    first: Answered | None = None

    def ask(self, world: World, answers: Vector) -> bool:
        """Ask, and compare with the first question; False where the budget is used up."""
        told = world.ask(answers, self.first.run_id if self.first else None)
        if told is None:
            return False
        self.first = self.first or told
        self.asked.append(np.atleast_2d(answers).mean(axis=0))
        self.scores.append(told.pgr + 0.05 * {"better": 1, "worse": -1}.get(told.verdict or "", 0))
        return True

    def around(self, world: World, centre: Vector, share: float, until: int) -> None:
        """Ask for answers with random changes until there are so many in all, or no more are given."""
        while len(self.asked) < until and self.ask(world, _flipped(world, centre, share)):
            pass

    def solve(self) -> Vector:
        """Least squares with a ridge: what each item weighs."""
        asked, scores = np.array(self.asked), np.array(self.scores)
        asked, scores = asked - asked.mean(axis=0), scores - scores.mean()
        inner = asked @ asked.T
        ridge = RIDGE * np.trace(inner) / len(inner) * np.eye(len(inner))
        return np.asarray(asked.T @ np.linalg.solve(inner + ridge, scores))


def one_flip(world: World) -> tuple[Vector, Vector]:
    """Flip one answer at a time, and keep what the answer says is better."""
    best = start = world.student(0.63)
    first = top = world.ask(best)
    assert first is not None
    for item in range(ITEMS):
        tried = best.copy()
        tried[item] *= -1
        told = world.ask(tried, first.run_id)
        if told is None:
            break
        if told.pgr > top.pgr or told.verdict == "better":
            best, top = tried, told
    return best, start


def hill_climb(world: World) -> tuple[Vector, Vector]:
    """Flip five in a hundred, more than is nearly equal, and go on from the better ones."""
    best = start = world.student(0.63)
    top = world.ask(best)
    assert top is not None
    while told := world.ask(tried := _flipped(world, best, 0.05), top.run_id):
        if told.verdict == "better" or told.pgr > top.pgr:
            best, top = tried, told
    return best, start


def boost_blank(world: World) -> tuple[Vector, Vector]:
    """Random answers: a vote of all, each by how far what it was told is above the mean."""
    start, notes = _blank(world), Notes()
    notes.ask(world, start)
    notes.around(world, start, 0.5, ANSWERS)
    asked, scores = np.array(notes.asked), np.array(notes.scores)
    return _sign((scores - scores.mean()) @ (asked - asked.mean(axis=0)), start), start


def climb_from_blank(world: World) -> tuple[Vector, Vector]:
    """Random answers until some are above the lowest step; then changes of what was learned so far, in rounds."""
    best, notes = (start := _blank(world)), Notes()
    notes.around(world, start, 0.5, 40)
    for until in (80, 120, 160, ANSWERS):
        best = _sign(notes.solve(), best)
        notes.around(world, best, 0.2, until)
    return _sign(notes.solve(), best), start


def boost_informed(world: World) -> tuple[Vector, Vector]:
    """Many changes at once of a good student's answers, in two rounds: turn those that the answers speak most against.

    This is linear reconstruction with all that there is to know: PGR and verdicts, and the student as a prior.
    """
    best, notes = (start := world.student(0.63)), Notes()
    for until in (ANSWERS // 2, ANSWERS):
        notes.ask(world, best)
        notes.around(world, best, 0.25, until)
        for_start = notes.solve() * start
        doubtful = np.argsort(for_start)[: int(0.16 * ITEMS)]
        best = start.copy()
        best[doubtful[for_start[doubtful] < 0]] *= -1
    return best, start


def solve_labels(world: World) -> tuple[Vector, Vector]:
    """Linear reconstruction: read all labels off the least squares solution, from changes of a good student's answers.

    Nothing else counts as evidence, so that what it gains is what the answers alone give away.
    """
    start, notes = world.student(0.63), Notes()
    notes.ask(world, start)
    notes.around(world, start, 0.2, ANSWERS)
    return _sign(notes.solve(), start), start


def reconstruct(world: World) -> tuple[Vector, Vector]:
    """Linear reconstruction that keeps a good student's answers but for the 5 % most doubtful."""
    start, notes = world.student(0.63), Notes()
    notes.ask(world, start)
    notes.around(world, start, 1 / 16, ANSWERS)
    solved = notes.solve()
    doubtful = np.argsort(solved * start)[: ITEMS // 20]
    best = start.copy()
    best[doubtful] = np.sign(solved[doubtful])
    return best, start


@dataclass(frozen=True)
class Probe:
    """An attack, and the points of accuracy that it may gain on the public and on the private half."""

    attack: Attack
    public: float
    private: float


PROBES = {
    "one_flip": Probe(one_flip, 1.0, 0.5),
    "hill_climb": Probe(hill_climb, inf, 0.5),
    "blank_boosting": Probe(boost_blank, 7.0, 2.0),
    "climb_from_blank": Probe(climb_from_blank, inf, 2.0),
    "informed_boosting": Probe(boost_informed, 3.0, 0.5),
    "reconstruction": Probe(reconstruct, 1.0, 0.5),
    "reconstruction_of_labels": Probe(solve_labels, 1.0, 0.5),
}
