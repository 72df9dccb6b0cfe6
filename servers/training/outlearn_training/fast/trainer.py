"""The fast trainer: what `PlainTrainer` does, on the same batches and with the same loss, in far less time."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from outlearn.tasks import FineTuning, TaskCard
from outlearn_training.fast.attention import takes_any_length
from outlearn_training.fast.decoder import Decoder, why_not
from outlearn_training.fast.frozen import FrozenStates
from outlearn_training.fast.layout import Row, by_budget, pack, pack_end_to_end, share_prefixes
from outlearn_training.model import LabelModel, Weights
from outlearn_training.trainer import CLIP_NORM, PlainTrainer

PREDICT_TOKENS = 4096
WORTH_A_MASK = 0.3
"""Share of tokens that must be saved before trees, whose masks the flash kernel does not take, are used beside it."""

log = structlog.get_logger()


class FastTrainer(PlainTrainer):
    """A trainer of Llama, Qwen2 and Qwen3 models."""

    @cached_property
    def decoder(self) -> Decoder:
        """Built when first needed: by then the model is on its device."""
        return Decoder(self.model.model)

    @cached_property
    def _frozen(self) -> FrozenStates:
        return FrozenStates(self.decoder)

    def _log_probs(
        self, student: Weights | None, prompts: Sequence[str], word_ids: list[int]
    ) -> Iterator[tuple[list[int], Tensor]]:
        for members, states in self._states(student, prompts):
            yield members, self.decoder.label_log_probs(states, word_ids)

    @torch.no_grad()
    def embed(self, student: Weights | None, prompts: Sequence[str]) -> NDArray[np.float32]:
        result = np.empty((len(prompts), self.decoder.width), dtype=np.float32)
        for members, states in self._states(student, prompts):
            result[members] = states.float().cpu().numpy()
        return result

    def _states(self, student: Weights | None, prompts: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """Indices of some prompts, and their states at the label position, until all prompts have been there."""
        decoder, tokens = self.decoder, self._encode(prompts)
        self.model.load(student)
        decoder.merge()
        for batch in by_budget(self._rows(tokens), PREDICT_TOKENS):
            members = [member for row in batch for member in row.members]
            yield members, self.label_states([tokens[member] for member in members], _renumbered(batch))

    def label_states(
        self, prompts: Sequence[list[int]], rows: Sequence[Row] | None = None, *, checkpointing: bool = False
    ) -> Tensor:
        """Final states at the label positions, (n, D), of prompts in rows of their own or as `rows` say."""
        shared = any(len(row.members) > 1 for row in rows or ())
        if not shared and takes_any_length(self.decoder.dtype, self.model.device):
            packed = pack_end_to_end(prompts, self.model.device)
        else:
            packed = pack(prompts, rows, self.model.device)
        start = self._frozen.of(prompts, packed) if self.decoder.frozen else None
        return self.decoder.states(packed, start=start, checkpointing=checkpointing)

    def _rows(self, tokens: Sequence[list[int]]) -> list[Row]:
        """Prompts that begin alike share a row, unless states are kept for each prompt, or a faster kernel could not be
        used for too little."""
        alone = [Row((index,), 0, len(one)) for index, one in enumerate(tokens)]
        if self.decoder.frozen:
            return alone
        rows = share_prefixes(tokens, self.decoder.width)
        saved = 1 - sum(row.length for row in rows) / max(1, sum(row.length for row in alone))
        worth = not takes_any_length(self.decoder.dtype, self.model.device) or saved > WORTH_A_MASK
        return rows if worth else alone

    def _learner(self, tuning: FineTuning) -> "_FastLearner":
        return _FastLearner(self, tuning)


class _FastLearner:
    def __init__(self, trainer: FastTrainer, tuning: FineTuning) -> None:
        self._trainer, self._decoder = trainer, trainer.decoder
        self._checkpointing = tuning.gradient_checkpointing
        self.optimizer = self._decoder.flat.optimizer(tuning.lr)
        self._merge()

    def log_probs(self, prompts: Sequence[list[int]], word_ids: list[int]) -> Tensor:
        states = self._trainer.label_states(prompts, checkpointing=self._checkpointing)
        return self._decoder.label_log_probs(states, word_ids)

    def step(self, loss: Tensor) -> None:
        self._decoder.flat.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._decoder.flat.tensors(), CLIP_NORM)
        self.optimizer.step()
        self._merge()

    def _merge(self) -> None:
        if self._checkpointing:
            self._decoder.unmerge()
        else:
            self._decoder.merge()


def make_trainer(model: LabelModel, max_tokens: int) -> PlainTrainer:
    """The fast trainer where it knows the model's blocks, else the plain one; the log says why."""
    if reason := why_not(model.model):
        log.info("plain trainer", model=model.name, reason=reason)
        return PlainTrainer(model, max_tokens)
    return FastTrainer(model, max_tokens)


def student_trainer(card: TaskCard) -> PlainTrainer:
    """A trainer with the task's student, on the GPU where there is one."""
    return make_trainer(LabelModel(card.student, card.student_tuning).to_device(), card.max_tokens)


def _renumbered(rows: Sequence[Row]) -> list[Row]:
    """The same rows, whose members are numbered in the order in which they appear."""
    result, count = [], 0
    for row in rows:
        result.append(Row(tuple(range(count, count + len(row.members))), row.prefix, row.length))
        count += len(row.members)
    return result
