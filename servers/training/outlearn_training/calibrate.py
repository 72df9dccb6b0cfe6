"""Calibration: train teachers and ceilings over several seeds, for the weak labels and the ends of PGR's scale.

Each seed's predictions are kept in the vault as soon as they are there, so an interrupted calibration goes on.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from outlearn.errors import InvalidInputError
from outlearn.files import write_atomic
from outlearn.prepared import load_prepared, read_prepared
from outlearn.tasks import Baselines, FineTuning, Floats, Item, SanityLine, SeedBaseline, TaskCard, write_task
from outlearn_training.calibration_report import make_report
from outlearn_training.lab import prompts_for
from outlearn_training.losses import xent
from outlearn_training.model import LabelModel, Weights
from outlearn_training.prepare import Task, tiny_task, write_calibration
from outlearn_training.sanity import line, shortcut_lines
from outlearn_training.trainer import PlainTrainer, student_trainer

MIN_SEEDS = 5
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class SeedPredictions:
    """P(label = 1) for one seed: by the teacher for pool (n,) and test (m,), and for the test items (m,) by students
    trained on the pool's truth and on its shuffled weak labels."""

    weak_pool: Floats
    weak_test: Floats
    ceiling_test: Floats
    shuffled_test: Floats


def calibrate(
    home: Path,
    name: str,
    seeds: Sequence[int] = range(MIN_SEEDS),
    on_progress: OnProgress | None = None,
    keep_in: Path | None = None,
) -> TaskCard:
    """Train a teacher, a ceiling and a control for each seed and write the calibrated task to `home`.

    Args:
        on_progress: called with what is being trained and the share done, in [0, 1].
        keep_in: folder for `weak_labels.npz` and `baselines.json` too, as they ship with outlearn.

    Raises:
        InvalidInputError: fewer than five different seeds.
        ConflictError: `home` has this task with other contents; runs in it would not be comparable.
    """
    if len(set(seeds)) < MIN_SEEDS:
        raise InvalidInputError(f"calibrate over at least {MIN_SEEDS} different seeds, not {list(seeds)}")
    task = find_task(home, name)
    calibration = _Calibration(home, task, on_progress or (lambda _what, _share: None))
    found = {seed: calibration.predictions(seed, index / len(seeds)) for index, seed in enumerate(seeds)}
    baselines = Baselines(
        fingerprint=task[0].fingerprint,
        per_seed=tuple(_baseline(task, seed, one) for seed, one in found.items()),
        lines=calibration.lines(list(found.values())),
    )
    weak_labels = {seed: one.weak_pool.round(4) for seed, one in found.items()}
    if keep_in:
        write_calibration(keep_in, weak_labels, baselines)
    truth = np.array(task[2].pool_labels, dtype=np.int64)
    report = make_report(name, baselines, list(weak_labels.values()), truth, len(task[2].test))
    write_atomic(home / "vault" / name / "calibration.json", report.model_dump_json(indent=1).encode(), mode=0o600)
    return write_task(home, task[0], task[1], task[2], weak_labels, baselines)


def find_task(home: Path, name: str) -> Task:
    """The task that was prepared in `home` under this name, else the tiny task. Raises NotFoundError."""
    return load_prepared(home, name) if read_prepared(home, name) else tiny_task(name)


class _Calibration:
    """Trains what a task's calibration needs; models are loaded when they are first needed."""

    def __init__(self, home: Path, task: Task, report: OnProgress) -> None:
        self._task, self._report = task, report
        self._folder = _folder(home, task[0])
        self._teacher: PlainTrainer | None = None
        self._student: PlainTrainer | None = None

    def predictions(self, seed: int, share: float) -> SeedPredictions:
        """Those of one seed, from an earlier calibration where there was one."""
        path = self._folder / f"seed-{seed}.npz"
        known = _load(path)
        if known is None:
            known = self._train(seed, share)
            data = io.BytesIO()
            np.savez_compressed(data, allow_pickle=False, **vars(known))
            write_atomic(path, data.getvalue(), mode=0o600)
        return known

    def lines(self, found: list[SeedPredictions]) -> tuple[SanityLine, ...]:
        """Shortcuts, the untrained student, and the control with shuffled labels, averaged over seeds."""
        self._report("sanity lines", 0.99)
        card, _, secret = self._task
        zero_shot = self._get_student().predict(None, prompts_for(card, secret.test), card.zero_shot_words)
        shuffled = [line("shuffled labels", one.shuffled_test > 0.5, secret).accuracy for one in found]
        return (
            *shortcut_lines(secret),
            line("zero-shot", zero_shot > 0.5, secret),
            SanityLine(name="shuffled labels", accuracy=float(np.mean(shuffled))),
        )

    def _train(self, seed: int, share: float) -> SeedPredictions:
        card, pool, secret = self._task
        if self._teacher is None:
            self._report("loading the teacher", share)
            self._teacher = PlainTrainer(LabelModel(card.teacher, card.teacher_tuning).to_device(), card.max_tokens)
        self._report(f"teacher, seed {seed}", share)
        weak_pool, weak_test = train_teacher(self._teacher, self._task, seed)
        student, truth = self._get_student(), np.array(secret.pool_labels, dtype=np.float64)
        self._report(f"ceiling, seed {seed}", share)
        ceiling = fit_and_predict(student, card, pool, truth, secret.test, seed)
        self._report(f"shuffled control, seed {seed}", share)
        hard = np.random.default_rng(seed).permutation((weak_pool > 0.5).astype(np.float64))
        return SeedPredictions(
            weak_pool, weak_test, ceiling, fit_and_predict(student, card, pool, hard, secret.test, seed)
        )

    def _get_student(self) -> PlainTrainer:
        if self._student is None:
            self._student = student_trainer(self._task[0])
        return self._student


def load_predictions(home: Path, card: TaskCard) -> dict[int, SeedPredictions]:
    """What a task's calibration kept, by seed."""
    found = {seed: _load(_folder(home, card) / f"seed-{seed}.npz") for seed in card.seeds}
    return {seed: one for seed, one in found.items() if one is not None}


def train_teacher(trainer: PlainTrainer, task: Task, seed: int) -> tuple[Floats, Floats]:
    """Train the teacher on its labelled items. Returns P(label = 1) for the pool (n,) and the test items (m,)."""
    card, pool, secret = task
    labels = np.array([item.label for item in secret.train], dtype=np.float64)
    weights = _fit(trainer, card, secret.train, labels, card.teacher_tuning, seed)
    pool_p, test_p = (
        trainer.predict(weights, prompts_for(card, items), card.label_words) for items in (pool, secret.test)
    )
    return pool_p, test_p


def fit_and_predict(
    trainer: PlainTrainer, card: TaskCard, items: Sequence[Item], targets: Floats, test: Sequence[Item], seed: int
) -> Floats:
    """Fine-tune the student on `targets` (n,) and return P(label = 1) for the test items (m,)."""
    weights = _fit(trainer, card, items, targets, card.student_tuning, seed)
    return trainer.predict(weights, prompts_for(card, test), card.label_words)


def _fit(
    trainer: PlainTrainer, card: TaskCard, items: Sequence[Item], targets: Floats, tuning: FineTuning, seed: int
) -> Weights:
    return trainer.fit(
        prompts_for(card, items),
        targets,
        np.ones(len(targets)),
        loss=xent,
        tuning=tuning,
        words=card.label_words,
        seed=seed,
    )


def _baseline(task: Task, seed: int, found: SeedPredictions) -> SeedBaseline:
    labels, public = task[2].test_labels, task[2].public_mask()
    weak, ceiling = ((p > 0.5) == labels for p in (found.weak_test, found.ceiling_test))
    return SeedBaseline(
        seed=seed,
        weak=weak.mean(),
        ceiling=ceiling.mean(),
        weak_public=weak[public].mean(),
        ceiling_public=ceiling[public].mean(),
    )


def _folder(home: Path, card: TaskCard) -> Path:
    return home / "vault" / card.name / "calibration" / card.fingerprint[:16]


def _load(path: Path) -> SeedPredictions | None:
    """Kept predictions; None where there are none, or where the file is damaged and the seed is trained again."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return SeedPredictions(**{name: np.asarray(arrays[name], dtype=np.float64) for name in arrays.files})
    except (FileNotFoundError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
        return None
