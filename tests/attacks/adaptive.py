"""Attackers who know how masks are found and that it costs a token its answers, and ask so that they are not.

What they ask looks like retrained students in the one thing or the other. Shares are those that gained most in
simulation.
"""

import numpy as np
from probing import ANSWERS, Notes, Probe
from world import ABILITY, CEILING, ITEMS, METHOD, SEED, SEEDS, Vector, World

SHARE = 0.5  # of the items that change at all, where only some do
UNRELATED, NARROW = 3.0, 0.2  # how far an honest agent's methods are apart at most, and its seeds at least


def _turned(notes: Notes, start: Vector, share: float) -> Vector:
    """The start with this share of its answers turned, those that speak most against it, as far as they do."""
    if len(notes.asked) < 3:
        return start
    evidence = notes.solve() * start
    doubtful, best = np.argsort(evidence)[: int(share * ITEMS)], start.copy()
    best[doubtful[evidence[doubtful] < 0]] *= -1
    return best


def _split(world: World, answers: Vector, where: Vector) -> Vector:
    """Seeds (seeds, items) of which two, others for each item, say the opposite at these items."""
    order = (np.arange(SEEDS)[:, None] + world.rng.integers(0, SEEDS, ITEMS)) % SEEDS
    return np.where((order < 2) & where, -answers, answers)


def scatter(world: World, share: float, turned: float) -> tuple[Vector, Vector]:
    """Never ask for what the masks are laid over: two masks differ most where one is alone with its answer."""
    start, notes = world.student(0.63), Notes()
    while len(notes.asked) < ANSWERS:
        if not notes.ask(world, np.where(world.rng.random(ITEMS) < share, -start, start)):
            break
    return _turned(notes, start, turned), start


def whisper(world: World) -> tuple[Vector, Vector]:
    """Turn an answer in three seeds of five, so that the run itself seems to be in doubt just where it changed."""
    start, notes = world.student(0.63), Notes()
    while len(notes.asked) < ANSWERS:
        mask = world.rng.random(ITEMS) < 0.25
        if not notes.ask(world, _split(world, np.where(mask, -start, start), mask)):
            break
    return _turned(notes, start, 0.16), start


def foretell(world: World) -> tuple[Vector, Vector]:
    """Have two seeds of each run doubt what the next run turns, so that the nearest one was in doubt there."""
    start, notes = world.student(0.63), Notes()
    now = np.zeros(ITEMS, dtype=bool)
    while len(notes.asked) < ANSWERS:
        after = world.rng.random(ITEMS) < 0.12
        if not notes.ask(world, _split(world, np.where(now, -start, start), after & ~now)):
            break
        now = after
    return _turned(notes, start, 0.1), start


def confine(world: World, turned: float, blind_every: int = 0) -> tuple[Vector, Vector]:
    """Change only half of the items, in which seeds are split from the first run on, as if they were the hard ones.

    One in `blind_every` runs is a mask over all items: an agent may have failed once.
    """
    start, notes = world.student(0.63), Notes()
    hard = world.rng.random(ITEMS) < SHARE
    notes.ask(world, _split(world, start, hard))
    while len(notes.asked) < ANSWERS:
        blind = blind_every and len(notes.asked) % blind_every == 0
        mask = world.rng.random(ITEMS) < (0.4 * hard if not blind else 0.25)
        if not notes.ask(world, np.where(mask, -start, start)):
            break
    return _turned(notes, start, turned), start


def imitate(world: World, turned: float) -> tuple[Vector, Vector]:
    """Draw runs as an able `watched.HonestAgent` does, but about a student's answers as if these were the truth.

    Votes that look like research because they are drawn like it: who sees only votes would have to refuse both.
    """
    start, notes = world.student(0.63), Notes()
    ability = np.sqrt(ABILITY) * world.rng.normal(size=ITEMS)
    while len(notes.asked) < ANSWERS:
        method, seeds = world.rng.normal(size=ITEMS), world.rng.normal(size=(SEEDS, ITEMS))
        sure = ability + np.sqrt(UNRELATED * METHOD) * method + np.sqrt(NARROW * SEED) * seeds
        right = sure > np.quantile(sure, 1 - CEILING, axis=1, keepdims=True)
        if not notes.ask(world, np.where(right, start, -start)):
            break
    return _turned(notes, start, turned), start


ADAPTIVE = {
    "scattered_reconstruction": Probe(lambda world: scatter(world, 1 / 16, 0.05), 1.0, 0.5),
    "scattered_boosting": Probe(lambda world: scatter(world, 0.25, 0.16), 3.0, 0.5),
    "whispered_boosting": Probe(whisper, 3.0, 0.5),
    "foretold_boosting": Probe(foretell, 3.0, 0.5),
    "confined_reconstruction": Probe(lambda world: confine(world, 0.05), 1.0, 0.5),
    "confined_boosting": Probe(lambda world: confine(world, 0.1), 3.0, 0.5),
    "imitating_reconstruction": Probe(lambda world: imitate(world, 0.05), 1.0, 0.5),
    "mixed_boosting": Probe(lambda world: confine(world, 0.1, 10), 3.0, 0.5),
}
