"""Attacks on the evaluation's feedback. Each returns the attacker's best answers and those it began with."""

from collections.abc import Callable

import numpy as np
from world import ITEMS, Vector, World

ATTEMPTS = 5_000
Attack = Callable[[World], tuple[Vector, Vector]]


def _blank(world: World) -> Vector:
    return np.where(world.rng.random(ITEMS) < 0.5, 1.0, -1.0)


def _flipped(world: World, answers: Vector, share: float) -> Vector:
    return np.where(world.rng.random(ITEMS) < share, -answers, answers)


def one_flip(world: World) -> tuple[Vector, Vector]:
    """Flip one answer at a time, and keep what the answer says is better."""
    best = start = world.student(0.63)
    first = world.ask(best)
    assert first is not None
    top = first.pgr
    for item in range(ATTEMPTS):
        tried = best.copy()
        tried[item % ITEMS] *= -1
        told = world.ask(tried, first.run_id)
        if told is not None and (told.pgr > top or told.verdict == "better"):
            best, top = tried, told.pgr
    return best, start


def hill_climb(world: World) -> tuple[Vector, Vector]:
    """Flip three in a hundred, just more than is nearly equal, and go on from the better ones."""
    best = start = world.student(0.63)
    first = world.ask(best)
    assert first is not None
    top, named = first.pgr, first.run_id
    for _ in range(ATTEMPTS):
        tried = _flipped(world, best, 0.05)
        told = world.ask(tried, named)
        if told is None:
            break
        if told.verdict == "better" or told.pgr > top:
            best, top, named = tried, told.pgr, told.run_id
    return best, start


def boost_blank(world: World) -> tuple[Vector, Vector]:
    """Random answers: a vote of those that scored, and of those told better than the first, against the worse ones."""
    start, total = _blank(world), np.zeros(ITEMS)
    first = world.ask(start)
    assert first is not None
    for _ in range(ATTEMPTS):
        tried = _blank(world)
        told = world.ask(tried, first.run_id)
        if told is None:
            break
        score = {"better": 1.0, "worse": -1.0}.get(told.verdict or "", 0.0)
        total += score * (tried - start) + (0.0 if told.at_most else 1.0 + 10 * (told.pgr - 0.15)) * tried
    return np.where(total == 0, start, np.sign(total)), start


def boost_informed(world: World, share: float = 0.3) -> tuple[Vector, Vector]:
    """Many changes of a good student's answers at once: regress what is told on what was changed."""
    start = world.student(0.63)
    first = world.ask(start)
    assert first is not None
    changes, scores = [], []
    for _ in range(ATTEMPTS):
        tried = _flipped(world, start, share)
        told = world.ask(tried, first.run_id)
        if told is None:
            break
        changes.append(tried)
        scores.append(told.pgr + 0.1 * {"better": 1, "worse": -1}.get(told.verdict or "", 0))
    slope = (np.array(scores) - np.mean(scores)) @ (np.array(changes) - np.mean(changes, axis=0))
    doubtful = np.argsort(slope * start)[: ITEMS // 8]  # where the evidence is most against the student
    best = start.copy()
    best[doubtful] = np.where(slope[doubtful] == 0, start[doubtful], np.sign(slope[doubtful]))
    return best, start


def reconstruct(world: World) -> tuple[Vector, Vector]:
    """Linear reconstruction: least squares with a ridge for the labels, from blocks of items answered otherwise."""
    start = world.student(0.63)
    asked, scores = [start], [_pgr(world, start)]
    for _ in range(ATTEMPTS):
        tried = start.copy()
        block = world.rng.choice(ITEMS, size=ITEMS // 16, replace=False)
        tried[block] *= -1
        told = world.ask(tried)
        if told is None:
            break
        asked.append(tried)
        scores.append(told.pgr)
    matrix, told_all = np.array(asked) - np.mean(asked, axis=0), np.array(scores) - np.mean(scores)
    solved = matrix.T @ np.linalg.solve(matrix @ matrix.T + 50 * np.eye(len(matrix)), told_all)
    doubtful = np.argsort(solved * start)[: ITEMS // 20]
    best = start.copy()
    best[doubtful] = np.sign(solved[doubtful])
    return best, start


def _pgr(world: World, answers: Vector) -> float:
    told = world.ask(answers)
    assert told is not None
    return told.pgr


ATTACKS: dict[str, Attack] = {
    "one_flip": one_flip,
    "hill_climb": hill_climb,
    "blank_boosting": boost_blank,
    "informed_boosting": boost_informed,
    "reconstruction": reconstruct,
}
