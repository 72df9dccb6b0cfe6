"""What a calibration trains for each seed: a teacher, a ceiling and a control. Their predictions are kept."""

import io
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outlearn.files import write_atomic
from outlearn.prepared import Parts
from outlearn.tasks import FineTuning, Floats, Item, TaskCard
from outlearn_training.fast.trainer import make_trainer, student_trainer
from outlearn_training.lab import prompts_for
from outlearn_training.losses import xent
from outlearn_training.model import LabelModel, Weights
from outlearn_training.places import is_to_be_fetched
from outlearn_training.trainer import PlainTrainer, further

OnProgress = Callable[[str, float], None]
STAGES = 3


@dataclass(frozen=True)
class SeedPredictions:
    """P(label = 1) for one seed: by the teacher for pool (n,) and test (m,), and for the test items (m,) by students
    trained on the pool's truth and on its shuffled weak labels, and by the untrained student with zero-shot words."""

    weak_pool: Floats
    weak_test: Floats
    ceiling_test: Floats
    shuffled_test: Floats
    zero_shot_test: Floats


@dataclass(frozen=True)
class Stage:
    """One of the three trainings of a seed, for `report`: steps are nine tenths of it, predictions the last one."""

    report: OnProgress
    what: str
    index: int

    def on_step(self, step: int, steps: int, _loss_nats: float = 0.0) -> None:
        """Take a step of the training."""
        self.report(self.what, (self.index + 0.9 * step / steps) / STAGES)

    def on_items(self, done: int, items: int) -> None:
        """Take predicted items."""
        self.report(self.what, (self.index + 0.9 + 0.1 * done / items) / STAGES)


class KeptSeeds:
    """The predictions of a task's seeds, in the vault. Other settings or data are another task, with another folder."""

    def __init__(self, home: Path, card: TaskCard) -> None:
        self._folder = home / "vault" / card.name / "calibration" / card.fingerprint[:16]

    def path(self, seed: int) -> Path:
        """Where a seed's predictions are kept."""
        return self._folder / f"seed-{seed}.npz"

    def read(self, seed: int) -> SeedPredictions | None:
        """None where there are none, or where the file is damaged and the seed must be trained again."""
        try:
            with np.load(self.path(seed), allow_pickle=False) as arrays:
                return SeedPredictions(**{name: np.asarray(arrays[name], dtype=np.float64) for name in arrays.files})
        except (FileNotFoundError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def missing(self, seeds: Iterable[int]) -> list[int]:
        """The seeds that are to be trained."""
        return [seed for seed in seeds if self.read(seed) is None]

    def write(self, seed: int, found: SeedPredictions) -> None:
        """Keep a seed's predictions."""
        self._folder.parents[2].mkdir(parents=True, exist_ok=True, mode=0o700)
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, **vars(found))
        write_atomic(self.path(seed), data.getvalue(), mode=0o600)


class SeedTrainer:
    """Trains a task's seeds in this process; both models are loaded before the first one."""

    def __init__(self, task: Parts) -> None:
        self._task = task
        self._models: tuple[PlainTrainer, PlainTrainer] | None = None

    def train(self, seed: int, report: OnProgress) -> SeedPredictions:
        """All of one seed; `report` is called with what is being trained and the share of the seed that is done."""
        card, pool, secret = self._task
        teacher, student = self._models = self._models or _load(card, report)
        names = ("teacher", "ceiling", "shuffled control")
        stages = [Stage(report, f"{name}, seed {seed}", index) for index, name in enumerate(names)]
        weak_pool, weak_test = train_teacher(teacher, self._task, seed, stages[0])
        truth = np.array(secret.pool_labels, dtype=np.float64)
        ceiling = fit_and_predict(student, card, pool, truth, secret.test, seed, stages[1])
        hard = np.random.default_rng(seed).permutation((weak_pool > 0.5).astype(np.float64))
        shuffled = fit_and_predict(student, card, pool, hard, secret.test, seed, stages[2])
        zero_shot = student.predict(None, prompts_for(card, secret.test), card.zero_shot_words)
        return SeedPredictions(weak_pool, weak_test, ceiling, shuffled, zero_shot)


def _load(card: TaskCard, report: OnProgress) -> tuple[PlainTrainer, PlainTrainer]:
    """Teacher and student: a student that cannot be loaded is noticed before a teacher is trained."""
    report(_loading("teacher", card.teacher), 0)
    teacher = make_trainer(LabelModel(card.teacher, card.teacher_tuning).to_device(), card.max_tokens)
    report(_loading("student", card.student), 0)
    return teacher, student_trainer(card)


def _loading(who: str, name: str) -> str:
    return f"fetching the {who}, {name}, from the Hugging Face hub" if is_to_be_fetched(name) else f"loading the {who}"


def train_here(task: Parts, kept: KeptSeeds, seeds: Sequence[int], report: OnProgress) -> None:
    """Train seeds one after another in this process."""
    trainer = SeedTrainer(task)
    for index, seed in enumerate(seeds):

        def seed_report(what: str, share: float, done: int = index) -> None:
            report(what, (done + share) / len(seeds))

        kept.write(seed, trainer.train(seed, seed_report))


def train_teacher(trainer: PlainTrainer, task: Parts, seed: int, stage: Stage | None = None) -> tuple[Floats, Floats]:
    """Train the teacher on its labelled items. Returns P(label = 1) for the pool (n,) and the test items (m,)."""
    card, pool, secret = task
    labels = np.array([item.label for item in secret.train], dtype=np.float64)
    weights = _fit(trainer, card, secret.train, labels, card.teacher_tuning, seed, stage)
    on_items, total = stage.on_items if stage else None, len(pool) + len(secret.test)
    pool_p, test_p = (
        trainer.predict(weights, prompts_for(card, items), card.label_words, further(on_items, before, total))
        for items, before in ((pool, 0), (secret.test, len(pool)))
    )
    return pool_p, test_p


def fit_and_predict(
    trainer: PlainTrainer,
    card: TaskCard,
    items: Sequence[Item],
    targets: Floats,
    test: Sequence[Item],
    seed: int,
    stage: Stage | None = None,
) -> Floats:
    """Fine-tune the student on `targets` (n,) and return P(label = 1) for the test items (m,)."""
    weights = _fit(trainer, card, items, targets, card.student_tuning, seed, stage)
    return trainer.predict(weights, prompts_for(card, test), card.label_words, stage.on_items if stage else None)


def _fit(
    trainer: PlainTrainer,
    card: TaskCard,
    items: Sequence[Item],
    targets: Floats,
    tuning: FineTuning,
    seed: int,
    stage: Stage | None,
) -> Weights:
    if stage:
        stage.on_step(0, 1)
    return trainer.fit(
        prompts_for(card, items),
        targets,
        np.ones(len(targets)),
        loss=xent,
        tuning=tuning,
        words=card.label_words,
        seed=seed,
        on_step=stage.on_step if stage else None,
    )
