"""Tiny tasks are genuine weak-to-strong problems: measured here, with real training."""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from outlearn.tasks import Baselines, PublicTask, SecretTask, load_baselines, load_public, load_secret
from outlearn_training.calibration.seed_training import train_teacher
from outlearn_training.fast.trainer import make_trainer
from outlearn_training.lab import Lab
from outlearn_training.model import LabelModel
from outlearn_training.prepare import prepare, tiny_task
from outlearn_training.sandbox.host import run_method

SHUFFLED = """
import numpy as np
def method(lab, seed):
    weak = np.random.default_rng(seed).permutation(lab.weak_labels())
    return lab.fit((weak > 0.5).astype(float))
"""
SEEDS = {"math": 5, "chat": 2}
"""How many seeds are trained; comparisons are long, so fewer of them."""


class Bench:
    """Trains methods on a shipped task and scores them on all its test items."""

    def __init__(self, home: Path, name: str) -> None:
        prepare(home, name)
        self.name = name
        self.task: PublicTask = load_public(home, name)
        self.secret: SecretTask = load_secret(home, name)
        self.baselines: Baselines = load_baselines(home, name)
        card = self.task.card
        self.trainer = make_trainer(LabelModel(card.student, card.student_tuning), card.max_tokens)

    def accuracies(self, source: str) -> list[float]:
        """Test accuracy of a method's student for each seed."""
        return [self._accuracy(source, seed) for seed in self.task.card.seeds[: SEEDS[self.name]]]

    def pgr(self, source: str) -> float:
        """Mean PGR of a method over the seeds."""
        weak, ceiling = self.baselines.weak_acc, self.baselines.ceiling_acc
        return (mean(self.accuracies(source)) - weak) / (ceiling - weak)

    def _accuracy(self, source: str, seed: int) -> float:
        (student,) = run_method(source, {}, seed, Lab(self.task, self.trainer, seed, lambda event: None))
        return float(((student.predict(self.secret.test) > 0.5) == self.secret.test_labels).mean())


@pytest.fixture(scope="module", params=SEEDS)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Bench(tmp_path_factory.mktemp(request.param), request.param)
    torch.set_num_threads(before)


def built_in(name: str) -> str:
    from outlearn_training.catalogue import find_method

    return find_method(name).info.source


def test_the_teacher_is_better_than_chance_and_far_below_the_ceiling(bench: Bench) -> None:
    assert bench.baselines.weak_acc > 0.6
    assert bench.baselines.ceiling_acc - bench.baselines.weak_acc > 0.12
    assert len(bench.baselines.per_seed) == 5


def test_vanilla_recovers_part_of_the_gap_and_logconf_more(bench: Bench) -> None:
    vanilla, logconf = bench.pgr(built_in("vanilla")), bench.pgr(built_in("logconf"))
    assert 0.1 < vanilla < 0.8
    assert logconf > vanilla + 0.05


def test_shuffled_weak_labels_teach_nothing(bench: Bench) -> None:
    assert mean(bench.accuracies(SHUFFLED)) == pytest.approx(0.5, abs=0.08)


def test_the_untrained_student_is_undecided_between_the_label_words(bench: Bench) -> None:
    card = bench.task.card
    undecided = bench.trainer.predict(None, [item.text for item in bench.task.pool[:50]], card.label_words)
    assert np.allclose(undecided, 0.5)


def test_the_shipped_calibration_is_what_training_gives(bench: Bench) -> None:
    task = tiny_task(bench.name)
    teacher = make_trainer(LabelModel(task[0].teacher, task[0].teacher_tuning), task[0].max_tokens)
    weak, weak_test = train_teacher(teacher, task, seed=0)
    shipped = bench.task.weak_labels(0)
    assert ((weak > 0.5) == (shipped > 0.5)).mean() > 0.97
    accuracy = ((weak_test > 0.5) == bench.secret.test_labels).mean()
    assert accuracy == pytest.approx(bench.baselines.per_seed[0].weak, abs=0.02)
