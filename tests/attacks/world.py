"""A simulated evaluation: hidden labels, the real ledger, scoring and look at each question, and an attacker who is
given receipts for any answers under nine tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from outlearn.audit import AuditLog
from outlearn.errors import BudgetError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.seal import DITHER
from outlearn_evaluation.auditor import Auditor
from outlearn_evaluation.ledger import Admit, Answered, Ledger, Question
from outlearn_evaluation.scoring import Judge, Votes
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.submissions import Submission

ITEMS, WEAK, CEILING, AGENTS, SEEDS = 1263, 0.528, 0.7325, 9, 5
ABILITY, METHOD, SEED = 0.75, 0.16, 0.09  # shares of what decides whether an honest student is right
Vector = NDArray[np.float64]  # (items,) or (seeds, items), -1 or 1


@dataclass
class World:
    """One server with its own labels, split and noise. Attackers know what `ask` says, and nothing else."""

    rng: np.random.Generator
    ledger: Ledger
    admit: Admit = lambda *_: None
    answered: int = 0
    tokens: list[str] = field(default_factory=lambda: [f"agent-{number}" for number in range(AGENTS)])
    """Those that may still get answers, the next one first."""
    _numbers: Iterator[int] = field(default_factory=count)
    _runs: dict[str, Submission] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng = self.rng
        self.labels: Vector = np.where(rng.permutation(ITEMS) < ITEMS // 2, 1.0, -1.0)
        public = np.concatenate([half[: len(half) // 2] for half in self._classes()])
        self.public = np.sort(public)
        self.private = np.setdiff1d(np.arange(ITEMS), public)
        self.ability: Vector = rng.normal(size=ITEMS)
        weights = self.labels[self.public] + rng.normal(size=len(self.public))
        self.judge = Judge(weights, WEAK, CEILING - WEAK, dither=DITHER, key=rng.bytes(32))

    def _classes(self) -> list[NDArray[np.int64]]:
        return [self.rng.permutation(np.flatnonzero(self.labels == label)) for label in (-1, 1)]

    def ask(self, answers: Vector, against: str | None = None) -> Answered | None:
        """What the server tells about answers to all items, or None where no token gets an answer any more.

        Answers (items,) are those of every seed. Tokens take turns; what one is refused, the next one asks.
        """
        positive = np.broadcast_to(answers, (SEEDS, ITEMS))[:, self.public] > 0
        other = self._runs[against] if against else None
        while self.tokens:
            agent = self.tokens.pop(0)
            run = Submission(f"run-{next(self._numbers):08d}", "chat", "f", Votes(positive))
            asked = Question(run, agent, "m", self.judge.grade(run.votes), other)
            try:
                told, *_ = self.ledger.charge(asked, self.judge, Caller(agent=agent), self.admit)
            except (BudgetError, PermissionDeniedError):
                continue
            self.answered += 1
            self.tokens.append(agent)
            self._runs[run.run_id] = run
            return told
        return None

    def student(self, accuracy: float) -> Vector:
        """Answers of a student that is right anywhere with the same chance, (items,)."""
        return np.where(self.rng.random(ITEMS) < accuracy, self.labels, -self.labels)

    def run(self, accuracy: float) -> Vector:
        """Answers of an honest run, (seeds, items).

        Seeds of a run disagree .27 times as often as independent students would, and runs of different methods .46
        times, which is what 84 runs of the tiny math task did.
        """
        method, seeds = self.rng.normal(size=ITEMS), self.rng.normal(size=(SEEDS, ITEMS))
        sure = np.sqrt(ABILITY) * self.ability + np.sqrt(METHOD) * method + np.sqrt(SEED) * seeds
        return np.where(sure > ndtri(1 - accuracy), self.labels, -self.labels)

    def accuracies(self, answers: Vector) -> tuple[float, float]:
        """Points of accuracy, in [0, 100], on the public and on the private half."""
        right = answers == self.labels
        return 100 * float(right[..., self.public].mean()), 100 * float(right[..., self.private].mean())


@contextmanager
def world(folder: Path, seed: int) -> Iterator[World]:
    """A world whose agents' days are over, so that only their budgets in all and the team's count."""
    settings = EvaluationSettings(home=Path(mkdtemp(dir=folder)), daily_evaluations=30, database_url="sqlite://")
    ledger = Ledger(settings)
    auditor = Auditor(AuditLog(settings.vault), ledger.looks)
    try:
        yield World(np.random.default_rng(seed), ledger, auditor.admit)
    finally:
        ledger.engine.dispose()
