"""The lab: the whole vocabulary that a method needs. A method is `def method(lab, seed)` and returns its students."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outlearn.errors import InvalidInputError
from outlearn.tasks import Floats, Item, PublicTask, TaskCard
from outlearn_training.losses import Loss, named_loss
from outlearn_training.model import Weights
from outlearn_training.sandbox.canary import Canary
from outlearn_training.sandbox.disguise import Disguise
from outlearn_training.trainer import Trainer

Emit = Callable[[dict[str, Any]], None]
MAX_EPOCHS = 100
TELL_SECONDS = 0.5


@dataclass(frozen=True, eq=False)
class Student:
    """A fine-tuned student. Return it, or a list of them, from your method; an ensemble is averaged."""

    _lab: "Lab"
    weights: Weights

    def predict(self, items: Sequence[Item] | None = None) -> Floats:
        """P(label = 1) for each item (default: the pool). Returns (n,) in [0, 1]."""
        return self._lab.predict_with(self.weights, items)


class Lab:
    """What a method may use: unlabelled items, weak labels, the untrained student, and training."""

    def __init__(
        self,
        task: PublicTask,
        trainer: Trainer,
        seed: int,
        emit: Emit,
        canary: Canary | None = None,
        disguise: Disguise | None = None,
    ) -> None:
        """`disguise` is what the task's pool has on already."""
        self.task: TaskCard = disguise.card(task.card) if disguise else task.card
        self.pool: tuple[Item, ...] = canary.plant(task.card, task.pool) if canary else task.pool
        self._canary = canary
        self._disguise = disguise
        self._card = task.card
        self._weak = task.weak_labels(seed)  # now: a confined method has its task in memory, and none of its files
        self._trainer = trainer
        self._seed = seed
        self._emit = emit
        self._told = time.monotonic()

    def weak_labels(self) -> Floats:
        """P(label = 1) for each pool item, by this seed's teacher. Returns (n,) in [0, 1]."""
        return self._weak.copy()

    def zero_shot(self, items: Sequence[Item] | None = None) -> Floats:
        """P(label = 1) by the untrained student, from the task's zero-shot words. Returns (n,) in [0, 1]."""
        words = self._card.zero_shot_words
        return self._trainer.predict(None, self._prompts(items), words, self._on_items)

    def fit(
        self,
        targets: ArrayLike,
        weights: ArrayLike | None = None,
        loss: str | Loss = "xent",
        *,
        epochs: float | None = None,
        lr: float | None = None,
        items: Sequence[Item] | None = None,
        init: Student | None = None,
    ) -> Student:
        """Fine-tune the student on `targets`, P(label = 1) for each item.

        Args:
            targets: (n,) in [0, 1]; hard labels are 0.0 and 1.0.
            weights: (n,) >= 0, how much each item counts; default 1 for all. Items of weight 0 are left out.
            loss: "xent", "logconf", or `loss(log_probs (B, 2), targets (B,), progress) -> (B,)`.
            epochs: passes over the items, fractions allowed; default: the task's.
            lr: peak learning rate; default: the task's.
            items: what the targets are for; default: the pool.
            init: a student to go on from; default: the untrained one.

        Raises:
            InvalidInputError: a wrong length, a value that is NaN or out of range, no such loss, nothing to train on.
        """
        chosen = self.pool if items is None else items
        goal = _vector("targets", targets, len(chosen), upper=1.0)
        scale = np.ones(len(chosen)) if weights is None else _vector("weights", weights, len(chosen))
        kept = np.flatnonzero(scale > 0).tolist()
        if not kept:
            raise InvalidInputError("nothing to train on: there are no items, or all weights are 0")
        prompts = self._prompts([chosen[i] for i in kept])
        if cut := self._trainer.count_cut(prompts):
            self.log(prompts_cut=cut)
        trained = self._trainer.fit(
            prompts,
            goal[kept],
            scale[kept],
            loss=named_loss(loss),
            tuning=self._tuning(epochs, lr),
            words=self._card.label_words,
            seed=self._seed,
            init=init.weights if init else None,
            on_step=self._on_step,
        )
        return Student(self, trained)

    def embed(self, items: Sequence[Item] | None = None) -> NDArray[np.float32]:
        """The untrained student's last hidden state at the label position. Returns (n, D)."""
        return self._trainer.embed(None, self._prompts(items))

    def generate(self, prompts: Sequence[str], max_tokens: int = 64, temperature: float = 0.0) -> list[str]:
        """The untrained student's continuation of each prompt; `temperature` 0 is greedy."""
        written = self._trainer.generate(
            None, self._clean(prompts), max_tokens=max_tokens, temperature=temperature, seed=self._seed
        )
        return list(map(self._disguise.put_on, written)) if self._disguise else written

    def log(self, **metrics: float) -> None:
        """Record numbers: they stand in the run's log, and the last of each in `get_run`."""
        self._emit({"metrics": {name: float(value) for name, value in metrics.items()}})

    def predict_with(self, weights: Weights, items: Sequence[Item] | None) -> Floats:
        """P(label = 1) by a student with these weights; methods call `student.predict`."""
        words = self._card.label_words
        return self._trainer.predict(weights, self._prompts(items), words, self._on_items)

    def _prompts(self, items: Sequence[Item] | None) -> list[str]:
        return self._clean(prompts_for(self.task, self.pool if items is None else items))

    def _clean(self, prompts: Sequence[str]) -> list[str]:
        """As the model reads them: without canaries, which stand in the disguise, and then without that."""
        clean = [self._canary.remove(prompt) for prompt in prompts] if self._canary else list(prompts)
        return list(map(self._disguise.take_off, clean)) if self._disguise else clean

    def _tuning(self, epochs: float | None, lr: float | None) -> Any:
        tuning = self.task.student_tuning
        for name, value, most in (("epochs", epochs, MAX_EPOCHS), ("lr", lr, 1.0)):
            if value is not None and not 0 < value <= most:
                raise InvalidInputError(f"{name} must be above 0 and at most {most}, not {value!r}")
        changes = {"epochs": epochs or tuning.epochs, "lr": lr or tuning.lr}
        return tuning.model_copy(update=changes)

    def _on_step(self, step: int, steps: int, loss_nats: float) -> None:
        if not math.isfinite(loss_nats):
            raise InvalidInputError(f"the loss is {loss_nats} at step {step}; lower the learning rate")
        self._emit({"step": step, "steps": steps, "loss_nats": loss_nats})

    def _on_items(self, done: int, items: int) -> None:
        if time.monotonic() - self._told > TELL_SECONDS:
            self._told = time.monotonic()
            self._emit({"item": done, "items": items})


def prompts_for(card: TaskCard, items: Sequence[Item]) -> list[str]:
    """The prompt of each item; the item's text is put in as it is, never interpreted."""
    before, after = card.template.split("{text}")
    return [f"{before}{item.text}{after}" for item in items]


def _vector(name: str, values: ArrayLike, n: int, upper: float = math.inf) -> Floats:
    """`values` as floats of shape (n,), all finite and in [0, upper]."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        raise InvalidInputError(f"{name} has shape {array.shape}; there are {n} items, so it must be ({n},)")
    bad = np.flatnonzero(~((array >= 0) & (array <= upper) & np.isfinite(array)))
    if len(bad):
        limit = f"in [0, {upper:g}]" if math.isfinite(upper) else "finite and >= 0"
        raise InvalidInputError(f"{name} must be {limit}; {len(bad)} are not, {name}[{bad[0]}] is {array[bad[0]]}")
    return array
