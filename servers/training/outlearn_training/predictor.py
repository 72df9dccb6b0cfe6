"""The trusted predictor: outside the sandbox, it runs students on the test inputs and signs receipts."""

from pathlib import Path

import numpy as np
import torch

from outlearn.errors import InvalidInputError, OutdatedError
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.tasks import Floats, TaskCard, load_card, load_public, load_secret
from outlearn_training.fast.trainer import student_trainer
from outlearn_training.lab import prompts_for
from outlearn_training.queue.tables import Run
from outlearn_training.students import max_student_bytes, parse_student, read_students
from outlearn_training.trainer import OnItems, PlainTrainer, further
from outlearn_training.weights import WeightStore

CHECKED = 64
"""So many pool items show whether a student answers at all."""


def flush_denormals() -> None:
    """From now on numbers next to zero are zero, in this thread and those that torch starts from it: call it first in
    the process that predicts. They take many times as long on some CPUs, so that weights could tell by the time that a
    hidden input has some word."""
    torch.set_flush_denormal(True)


class Predictor:
    """Keeps the student's base model loaded, and the test inputs at hand."""

    def __init__(self, home: Path, weights: WeightStore) -> None:
        self._home = home
        self._weights = weights
        self._receipts = ReceiptBook(home / "vault")
        self._loaded: tuple[TaskCard, PlainTrainer, list[str], list[str]] | None = None

    def sign(self, run: Run, seed: int, folder: Path, sandbox: str, on_items: OnItems | None = None) -> None:
        """Predict with the students in `folder`, store them and file the receipt.

        Args:
            on_items: called with how many predictions of how many are done; it may raise to end this.

        Raises:
            InvalidInputError, NotFoundError, PermissionDeniedError: the students cannot be used; the message says why.
        """
        card, trainer, known, hidden = self._load(run.task)
        limit = max_student_bytes(trainer.model)
        students = read_students(folder, limit)
        predictions: list[Floats] = []
        digests: list[str] = []
        for index, data in enumerate(students):
            weights, digest = parse_student(data)
            _check_finite(trainer.predict(weights, known, card.label_words))
            tell = further(on_items, index * len(hidden), len(students) * len(hidden))
            predictions.append(_no_answer_for_nan(trainer.predict(weights, hidden, card.label_words, tell)))
            digests.append(digest)
        self._weights.put(run.run_id, dict(zip(digests, students, strict=True)))
        self._receipts.issue(
            Receipt(
                run_id=run.run_id,
                agent=run.agent,
                method=run.method,
                method_sha256=run.source_sha256,
                task=run.task,
                task_fingerprint=card.fingerprint,
                seed=seed,
                sandbox=sandbox,
                weights_sha256=tuple(digests),
                predictions=tuple(np.mean(predictions, axis=0).round(6).tolist()),
            )
        )

    def signed_seeds(self, run_id: str) -> list[int]:
        """The seeds of this run that have a receipt; none where those are of another version, and made again."""
        try:
            return [receipt.seed for receipt in self._receipts.read(run_id)]
        except OutdatedError:
            return []

    def _load(self, task: str) -> tuple[TaskCard, PlainTrainer, list[str], list[str]]:
        """The task's card and model, the prompts of some pool items and those of all test items."""
        card = load_card(self._home, task)
        if self._loaded is None or self._loaded[0] != card:
            known = prompts_for(card, load_public(self._home, task).pool[:CHECKED])
            hidden = prompts_for(card, load_secret(self._home, task).test)
            self._loaded = (card, student_trainer(card), known, hidden)
        return self._loaded


def _check_finite(predictions: Floats) -> None:
    """Raises InvalidInputError where finite weights made NaN of answers to items that the agent knows."""
    if not np.isfinite(predictions).all():
        raise InvalidInputError("the student answers NaN: its weights are too large; lower the learning rate")


def _no_answer_for_nan(predictions: Floats) -> Floats:
    """0.5 for NaN. An error would tell of hidden items: weights can be made to fail where an input has some word."""
    return np.where(np.isfinite(predictions), predictions, 0.5)
