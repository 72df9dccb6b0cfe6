"""Calibration: train teachers and ceilings over several seeds, for the weak labels and the ends of PGR's scale."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from outlearn.errors import InvalidInputError
from outlearn.tasks import Baselines, Floats, Item, SeedBaseline, TaskCard, write_task
from outlearn_training.lab import prompts_for
from outlearn_training.losses import xent
from outlearn_training.model import LabelModel
from outlearn_training.prepare import Task, tiny_task, write_calibration
from outlearn_training.trainer import PlainTrainer

MIN_SEEDS = 5
OnProgress = Callable[[str, float], None]


def calibrate(
    home: Path,
    name: str,
    seeds: Sequence[int] = range(MIN_SEEDS),
    on_progress: OnProgress | None = None,
    keep_in: Path | None = None,
) -> TaskCard:
    """Train a teacher and a ceiling for each seed and write the calibrated task to `home`.

    Args:
        on_progress: called with what is being trained and the share done, in [0, 1].
        keep_in: folder for `weak_labels.npz` and `baselines.json` too, as they ship with outlearn.

    Raises:
        InvalidInputError: fewer than five different seeds.
        ConflictError: `home` has this task with other contents; runs in it would not be comparable.
    """
    if len(set(seeds)) < MIN_SEEDS:
        raise InvalidInputError(f"calibrate over at least {MIN_SEEDS} different seeds, not {list(seeds)}")
    task = tiny_task(name)
    report = on_progress or (lambda _what, _share: None)
    card = task[0]
    teacher = PlainTrainer(LabelModel(card.teacher, card.teacher_tuning).to_device(), card.max_tokens)
    student = PlainTrainer(LabelModel(card.student, card.student_tuning).to_device(), card.max_tokens)
    weak_labels: dict[int, Floats] = {}
    per_seed: list[SeedBaseline] = []
    for index, seed in enumerate(seeds):
        report(f"teacher, seed {seed}", index / len(seeds))
        weak_labels[seed], weak_test = train_teacher(teacher, task, seed)
        report(f"ceiling, seed {seed}", (index + 0.2) / len(seeds))
        per_seed.append(_baseline(task, seed, weak_test, train_ceiling(student, task, seed)))
    report("done", 1.0)
    baselines = Baselines(fingerprint=card.fingerprint, per_seed=tuple(per_seed))
    if keep_in:
        write_calibration(keep_in, weak_labels, baselines)
    return write_task(home, card, task[1], task[2], weak_labels, baselines)


def train_teacher(trainer: PlainTrainer, task: Task, seed: int) -> tuple[Floats, Floats]:
    """Train the teacher on its labelled items. Returns P(label = 1) for the pool (n,) and the test items (m,)."""
    card, pool, secret = task
    labels = np.array([item.label for item in secret.train], dtype=np.float64)
    weights = trainer.fit(
        prompts_for(card, secret.train),
        labels,
        np.ones(len(labels)),
        loss=xent,
        tuning=card.teacher_tuning,
        words=card.label_words,
        seed=seed,
    )
    pool_p, test_p = (
        trainer.predict(weights, prompts_for(card, items), card.label_words) for items in (pool, secret.test)
    )
    return pool_p, test_p


def train_ceiling(trainer: PlainTrainer, task: Task, seed: int) -> Floats:
    """Train the student on the pool's true labels. Returns P(label = 1) for the test items (m,)."""
    card, pool, secret = task
    labels = np.array(secret.pool_labels, dtype=np.float64)
    return fit_and_predict(trainer, card, pool, labels, secret.test, seed)


def fit_and_predict(
    trainer: PlainTrainer, card: TaskCard, items: Sequence[Item], targets: Floats, test: Sequence[Item], seed: int
) -> Floats:
    """Fine-tune the student on `targets` (n,) and return P(label = 1) for the test items (m,)."""
    weights = trainer.fit(
        prompts_for(card, items),
        targets,
        np.ones(len(targets)),
        loss=xent,
        tuning=card.student_tuning,
        words=card.label_words,
        seed=seed,
    )
    return trainer.predict(weights, prompts_for(card, test), card.label_words)


def _baseline(task: Task, seed: int, weak_test: Floats, ceiling_test: Floats) -> SeedBaseline:
    labels, public = task[2].test_labels, task[2].public_mask()
    weak, ceiling = ((p > 0.5) == labels for p in (weak_test, ceiling_test))
    return SeedBaseline(
        seed=seed,
        weak=weak.mean(),
        ceiling=ceiling.mean(),
        weak_public=weak[public].mean(),
        ceiling_public=ceiling[public].mean(),
    )
