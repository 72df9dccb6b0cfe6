"""The trainer behind one small interface: fit, predict, embed, generate. This one is plain transformers."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from outlearn.tasks import FineTuning, Floats
from outlearn_training.losses import Loss
from outlearn_training.meter import meter_for
from outlearn_training.model import LabelModel, Weights

PREDICT_BATCH_TOKENS = 4096
WEIGHT_DECAY = 0.01
BETAS = (0.9, 0.95)
CLIP_NORM = 1.0
STEPS_PER_REPORT = 10
"""On a GPU, whose queue of work every report interrupts."""
OnStep = Callable[[int, int, float], None]
OnItems = Callable[[int, int], None]
"""Told, after each batch of predictions, how many items of how many are done."""


class Trainer(Protocol):
    """Fine-tunes and runs label models. Swappable: a faster trainer implements the same methods."""

    def fit(
        self,
        prompts: Sequence[str],
        targets: Floats,
        weights: Floats,
        *,
        loss: Loss,
        tuning: FineTuning,
        words: tuple[str, str],
        seed: int,
        init: Weights | None = None,
        on_step: OnStep | None = None,
    ) -> Weights:
        """Fine-tune from `init` (None: the base model) on `targets` (n,) with item `weights` (n,)."""
        ...

    def predict(
        self,
        student: Weights | None,
        prompts: Sequence[str],
        words: tuple[str, str],
        on_items: OnItems | None = None,
    ) -> Floats:
        """P(label = 1) for each prompt: P(words[1]) / (P(words[0]) + P(words[1])). Returns (n,) in [0, 1]."""
        ...

    def embed(self, student: Weights | None, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Last hidden states at the label position. Returns (n, D)."""
        ...

    def generate(
        self, student: Weights | None, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        """Continue each prompt."""
        ...

    def count_cut(self, prompts: Sequence[str]) -> int:
        """How many prompts are longer than the model may read, and lose their middle."""
        ...


class Learner(Protocol):
    """A model in training."""

    optimizer: torch.optim.Optimizer

    def log_probs(self, prompts: Sequence[list[int]], word_ids: list[int]) -> Tensor:
        """Log-probabilities of the two words at the label position, with a gradient. Returns (B, 2)."""
        ...

    def step(self, loss: Tensor) -> None:
        """Clip the gradient of this loss to norm 1 and take a step."""
        ...


class PlainTrainer:
    """The trainer on a transformers model as it is, one batch after another."""

    def __init__(self, model: LabelModel, max_tokens: int) -> None:
        self.model = model
        self.meter = meter_for(model.model)
        self._max_tokens = max_tokens

    def fit(
        self,
        prompts: Sequence[str],
        targets: Floats,
        weights: Floats,
        *,
        loss: Loss,
        tuning: FineTuning,
        words: tuple[str, str],
        seed: int,
        init: Weights | None = None,
        on_step: OnStep | None = None,
    ) -> Weights:
        model, tokens, word_ids = self.model, self._encode(prompts), self.model.word_ids(words)
        goal = torch.tensor(targets, dtype=torch.float32, device=model.device)
        scale = torch.tensor(weights, dtype=torch.float32, device=model.device)
        steps = max(1, math.ceil(len(tokens) * tuning.epochs / tuning.batch_size))
        torch.manual_seed(seed)
        model.load(init)
        start = time.perf_counter()
        with model.training():
            learner = self._learner(tuning)
            for step, rows in enumerate(_batches(len(tokens), tuning.batch_size, steps, seed)):
                _set_lr(learner.optimizer, tuning, step, steps)
                log_probs = learner.log_probs([tokens[i] for i in rows], word_ids)
                value = (loss(log_probs, goal[rows], step / steps) * scale[rows]).mean()
                learner.step(value)
                if on_step and (model.device.type == "cpu" or step % STEPS_PER_REPORT == 0 or step + 1 == steps):
                    on_step(step + 1, steps, float(value.detach()))
                self.meter.trained_tokens += sum(len(tokens[i]) for i in rows)
        trained = model.weights()
        self.meter.training_seconds += time.perf_counter() - start
        return trained

    @torch.no_grad()
    def predict(
        self,
        student: Weights | None,
        prompts: Sequence[str],
        words: tuple[str, str],
        on_items: OnItems | None = None,
    ) -> Floats:
        result, done = np.empty(len(prompts), dtype=np.float64), 0
        for rows, log_probs in self._log_probs(student, prompts, self.model.word_ids(words)):
            result[rows] = log_probs.softmax(-1)[:, 1].double().cpu().numpy()
            done += len(rows)
            if on_items:
                on_items(done, len(prompts))
        return result

    def _log_probs(
        self, student: Weights | None, prompts: Sequence[str], word_ids: list[int]
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of some prompts, and log-probabilities of the two words there (B, 2), until all have been there."""
        self.model.load(student)
        tokens = self._encode(prompts)
        for rows in _by_length(tokens):
            yield rows, self.model.label_log_probs(self.model.batch([tokens[i] for i in rows]), word_ids)

    @torch.inference_mode()
    def embed(self, student: Weights | None, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.model.load(student)
        tokens = self._encode(prompts)
        states: dict[int, NDArray[np.float32]] = {}
        for rows in _by_length(tokens):
            hidden = self.model.hidden(self.model.batch([tokens[i] for i in rows])).cpu().numpy()
            states.update(zip(rows, hidden, strict=True))
        return np.stack([states[i] for i in range(len(tokens))])

    @torch.inference_mode()
    def generate(
        self, student: Weights | None, prompts: Sequence[str], *, max_tokens: int, temperature: float, seed: int
    ) -> list[str]:
        self.model.load(student)
        torch.manual_seed(seed)
        tokens, texts = self._encode(prompts), [""] * len(prompts)
        for rows in _by_length(tokens):
            batch = self.model.batch([tokens[i] for i in rows])
            for row, text in zip(rows, self.model.generate(batch, max_tokens, temperature), strict=True):
                texts[row] = text
        return texts

    def count_cut(self, prompts: Sequence[str]) -> int:
        return sum(len(self.model.encode(prompt)) > self._max_tokens for prompt in prompts)

    def _learner(self, tuning: FineTuning) -> "Learner":
        return _PlainLearner(self.model, tuning)

    def _encode(self, prompts: Sequence[str]) -> list[list[int]]:
        return [cut_middle(self.model.encode(prompt), self._max_tokens) for prompt in prompts]


class _PlainLearner:
    def __init__(self, model: LabelModel, tuning: FineTuning) -> None:
        self._model = model
        if tuning.gradient_checkpointing:
            model.model.enable_input_require_grads()  # else nothing below the adapters has a gradient to keep
            before_v6 = "gradient_checkpointing_enable"
            enable = getattr(model.model, "activation_checkpointing_enable", None) or getattr(model.model, before_v6)
            enable({"use_reentrant": False})
        self._parameters = [p for p in model.model.parameters() if p.requires_grad]
        self.optimizer = _optimizer(self._parameters, tuning.lr)

    def log_probs(self, prompts: Sequence[list[int]], word_ids: list[int]) -> Tensor:
        return self._model.label_log_probs(self._model.batch(prompts), word_ids)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, CLIP_NORM)
        self.optimizer.step()


def further(on_items: OnItems | None, before: int, total: int) -> OnItems | None:
    """For one of several predictions: its items come after `before` others, of `total` in all."""
    return (lambda done, _: on_items(before + done, total)) if on_items else None


def cut_middle(tokens: list[int], most: int) -> list[int]:
    """At most `most` tokens: a longer prompt loses its middle, never its beginning or the label prompt at its end."""
    if len(tokens) <= most:
        return tokens
    head = most // 2
    return tokens[:head] + tokens[len(tokens) - (most - head) :]


def _optimizer(parameters: list[torch.nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """AdamW without weight decay on norms and biases."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS)


def _set_lr(optimizer: torch.optim.Optimizer, tuning: FineTuning, step: int, steps: int) -> None:
    """Linear warm-up, then linear decay to zero."""
    warm = max(1, round(steps * tuning.warmup))
    factor = (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)
    for group in optimizer.param_groups:
        group["lr"] = tuning.lr * factor


def _batches(n: int, size: int, steps: int, seed: int) -> list[list[int]]:
    """Index batches over as many shuffled epochs as `steps` need."""
    rng = np.random.default_rng(seed)
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = rng.permutation(n).tolist()
        batches += [order[i : i + size] for i in range(0, n, size)]
    return batches[:steps]


def _by_length(tokens: list[list[int]]) -> list[list[int]]:
    """Index batches of similar length, each of at most about PREDICT_BATCH_TOKENS padded tokens."""
    batches: list[list[int]] = []
    for i in sorted(range(len(tokens)), key=lambda i: -len(tokens[i])):
        if batches and (len(batches[-1]) + 1) * len(tokens[batches[-1][0]]) <= PREDICT_BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches
