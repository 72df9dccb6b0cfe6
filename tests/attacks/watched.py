"""Simulated servers whose answers the detectors see: attackers' campaigns in several dresses, and honest teams."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from probing import PROBES
from world import ABILITY, AGENTS, CEILING, ITEMS, METHOD, SEED, SEEDS, WEAK, Vector, World

from outlearn_evaluation.detectors import Look, Suspicion
from outlearn_evaluation.inspection import OF_PLACE, OF_STUDENTS, Place, Students, examine
from outlearn_evaluation.ledger import Answered
from outlearn_evaluation.looks import Looks
from outlearn_evaluation.scoring import Votes
from outlearn_evaluation.thresholds import CONSTANTS, Thresholds

ANSWERS = 200
Bits = NDArray[np.bool_]
Dress = Callable[[Vector], Bits]
NO_LEDGER: Any = None


@dataclass
class WatchedWorld(World):
    """A server without a database. `dress` makes the seeds of one vector of an attacker's."""

    ledger: Any = NO_LEDGER
    dress: Dress = lambda answers: np.broadcast_to(answers > 0, (SEEDS, ITEMS))
    thresholds: Thresholds = CONSTANTS
    looks: list[Look] = field(default_factory=list)
    found: list[list[Suspicion]] = field(default_factory=list)
    _seen: Looks = field(default_factory=Looks)
    _votes: dict[str, Votes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mask = np.zeros(ITEMS, dtype=bool)
        self.mask[self.public] = True
        self.frequent = self.right_where(self.ability + self.rng.normal(size=ITEMS), 0.65)

    def right_where(self, ability: Vector, accuracy: float) -> Bits:
        """Answers (items,) that are right where `ability` is highest."""
        return np.asarray((self.labels > 0) == (ability > np.quantile(ability, max(0.0, 1 - accuracy))))

    def ask(self, answers: Vector, against: str | None = None) -> Answered | None:
        """As the real server; the team's tokens take turns."""
        if self.answered >= ANSWERS:
            return None
        return self.submit(self.dress(answers), f"agent-{self.answered % AGENTS}", against)

    def submit(self, positive: Bits, agent: str, against: str | None = None) -> Answered:
        """Score the answers (seeds, items) of an agent's run, and have the detectors look at them."""
        run_id, votes = f"run-{len(self.looks):08d}", Votes(positive[:, self.public])
        same_as = self._seen.nearest(Look(run_id, agent, SEEDS, votes.counts))
        self._votes[run_id] = self._votes[same_as] if same_as else votes
        grade, other = self.judge.grade(self._votes[run_id]), self._votes.get(against or "")
        told = Answered(
            run_id=run_id,
            against=against or "",
            agent=agent,
            task="chat",
            method="m",
            seeds=SEEDS,
            pgr=grade.pgr,
            pgr_se=grade.pgr_se,
            verdict=self.judge.compare(self._votes[run_id], other) if other else None,
            at_most=grade.at_most,
            same_as=same_as,
        )
        self.answered += 1
        look = Look(run_id, agent, SEEDS, votes.counts, grade.at_most, same_as)
        self.found.append(self._inspect(look, positive))
        self.looks.append(look)
        self._seen.add(look)
        return told

    def flags(self) -> Counter[str]:
        """How many runs each detector flagged."""
        return Counter(kind for found in self.found for kind in {one.kind for one in found})

    def _inspect(self, look: Look, positive: Bits) -> list[Suspicion]:
        changes = self._seen.changes(look)
        labels, noise = (self.labels > 0).astype(np.int64), self.judge.weights - self.labels[self.public]
        students = Students(positive, labels, self.mask, noise, frequent=self.frequent, thresholds=self.thresholds)
        own = [one for one in self.looks if one.agent == look.agent]
        place = Place((*own, look), changes, self.thresholds)
        found = (*examine(OF_STUDENTS, students), *examine(OF_PLACE, place))
        return [one for one in found if one.action != "note" or one.kind == "detector failed"]


def tiled(_: WatchedWorld) -> Dress:
    """All seeds the same."""
    return lambda answers: np.tile(answers > 0, (SEEDS, 1))


def jittered(world: WatchedWorld) -> Dress:
    """Seeds that differ on items at random, the same ones in every run."""
    dissent = world.rng.random((SEEDS, ITEMS)) < 0.03
    return lambda answers: (answers > 0) ^ dissent


def mimicking(world: WatchedWorld) -> Dress:
    """Seeds that differ where those of an honest run did, the same ones in every run."""
    honest = world.run(0.63) > 0
    dissent = honest != (honest.mean(axis=0) > 0.5)
    return lambda answers: (answers > 0) ^ dissent


DRESSES: dict[str, Callable[[WatchedWorld], Dress]] = {"tiled": tiled, "jittered": jittered, "mimicking": mimicking}


def campaign(attack: str, dress: str, seed: int, thresholds: Thresholds = CONSTANTS) -> WatchedWorld:
    """A server that was attacked by nine tokens of one team."""
    world = WatchedWorld(np.random.default_rng(seed), thresholds=thresholds)
    world.dress = DRESSES[dress](world)
    PROBES[attack].attack(world)
    return world


def honest_team(seed: int, thresholds: Thresholds = CONSTANTS) -> WatchedWorld:
    """Nine honest agents at work, from those that try unrelated methods to those that turn the best one's knobs."""
    world = WatchedWorld(np.random.default_rng(seed), thresholds=thresholds)
    agents = [HonestAgent(world, f"agent-{number}") for number in range(AGENTS)]
    for turn in range(ANSWERS):
        agents[turn % AGENTS].work()
    return world


class HonestAgent:
    """Trains students that err on hard items (as in `World.run`), and alike where their methods are alike."""

    def __init__(self, world: WatchedWorld, name: str) -> None:
        self._world, self._name = world, name
        self._tunes = world.rng.random()  # how often the next run is a neighbour of the best
        self._skill = world.rng.uniform(WEAK, CEILING)
        self._method = METHOD * world.rng.choice([0.5, 1.0, 3.0])  # how far methods are from one another
        self._best: tuple[float, Vector, float, str] | None = None

    def work(self) -> None:
        """One run: a neighbour of the best so far, or something else; now and then of ensembles, whose seeds agree."""
        world, rng, best = self._world, self._world.rng, self._best
        if best is not None and rng.random() < self._tunes:
            taste = best[1] + rng.choice([0.0, 0.1, 0.3, 0.6]) * rng.normal(size=ITEMS)
            accuracy = best[2] + 0.01 * rng.normal()
        else:
            taste, accuracy = rng.normal(size=ITEMS), self._skill + 0.04 * rng.normal()
        accuracy = float(np.clip(accuracy, WEAK - 0.04, CEILING + 0.02))
        spread = np.sqrt(SEED * rng.choice([0.2, 1.0, 1.0, 4.0]))
        sure = np.sqrt(ABILITY) * world.ability + np.sqrt(self._method) * taste
        seeds = [sure + spread * rng.normal(size=ITEMS) for _ in range(SEEDS)]
        positive = np.array([world.right_where(one, accuracy + 0.03 * (1 - accuracy) * rng.normal()) for one in seeds])
        told = world.submit(positive, self._name, best[3] if best else None)
        if best is None or told.pgr > best[0]:
            self._best = (told.pgr, taste, accuracy, told.run_id)
