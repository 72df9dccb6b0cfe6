"""The same job in other hands: Hugging Face's Trainer, TRL's SFTTrainer, and the plain loop of published work."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import transformers
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from shapes import WORDS
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from trl import SFTConfig, SFTTrainer

from outlearn.tasks import FineTuning
from outlearn_training.fast.trainer import make_trainer
from outlearn_training.losses import xent
from outlearn_training.model import LORA_TARGETS, LabelModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
LR = 1e-4


class Peer(Protocol):
    """A model that can be trained; returns seconds."""

    def train(self, prompts: Sequence[str], labels: Sequence[int], steps: int, seed: int = 0) -> float: ...


@runtime_checkable
class Asked(Peer, Protocol):
    """One that can be asked as well; returns seconds."""

    def predict(self, prompts: Sequence[str]) -> float: ...


class Ours:
    def __init__(self, folder: Path, batch: int, rank: int, checkpointing: bool = False) -> None:
        self._tuning = FineTuning(
            epochs=1, lr=LR, batch_size=batch, lora_rank=rank, gradient_checkpointing=checkpointing
        )
        model = LabelModel(str(folder), self._tuning)
        model.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)  # else Qwen2's own takes its vocabulary over
        self._trainer = make_trainer(model, 4096)
        self.answers: np.ndarray | None = None
        self._student: Any = None

    def train(self, prompts: Sequence[str], labels: Sequence[int], steps: int, seed: int = 0) -> float:
        self._warm(prompts)
        start = time.perf_counter()
        tuning = self._tuning.model_copy(update={"epochs": steps * self._tuning.batch_size / len(prompts)})
        self._student = self._trainer.fit(
            prompts, np.array(labels, float), np.ones(len(labels)), loss=xent, tuning=tuning, words=WORDS, seed=seed
        )
        return time.perf_counter() - start

    def predict(self, prompts: Sequence[str]) -> float:
        self._warm(prompts)
        start = time.perf_counter()
        self.answers = self._trainer.predict(self._student, prompts, WORDS)
        return time.perf_counter() - start

    def _warm(self, prompts: Sequence[str]) -> None:
        """Tokenise: the peers' data sets are tokenised outside their timed part, too."""
        for prompt in prompts:
            self._trainer.model.encode(prompt)


class HuggingFace:
    """`Trainer` on prompts and one label token; `tuned` puts prompts of similar length into one batch."""

    def __init__(self, folder: Path, batch: int, rank: int, checkpointing: bool = False, tuned: bool = False) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self._model = _load(folder, rank)
        self._batch, self._checkpointing, self._tuned = batch, checkpointing, tuned
        self._words = self._tokenizer.convert_tokens_to_ids(list(WORDS))
        self.answers: np.ndarray | None = None

    def train(self, prompts: Sequence[str], labels: Sequence[int], steps: int, seed: int = 0) -> float:
        trainer = self._trainer(steps, seed, self._dataset(prompts, labels), grouped=self._tuned)
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start

    def predict(self, prompts: Sequence[str]) -> float:
        order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].split()) if self._tuned else i)
        data = self._dataset([prompts[i] for i in order], [0] * len(prompts))
        trainer = self._trainer(1, 0, data)
        start = time.perf_counter()
        logits = trainer.predict(data).predictions
        seconds = time.perf_counter() - start
        self.answers = np.empty(len(prompts))
        self.answers[order] = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
        return seconds

    def _dataset(self, prompts: Sequence[str], labels: Sequence[int]) -> Dataset:
        rows = []
        for prompt, label in zip(prompts, labels, strict=True):
            ids = self._tokenizer(prompt)["input_ids"]
            row = {"input_ids": [*ids, self._words[label]], "labels": [-100] * len(ids) + [self._words[label]]}
            rows.append(row | {"length": len(ids) + 1})
        return Dataset.from_list(rows)

    def _trainer(self, steps: int, seed: int, data: Dataset, grouped: bool = False) -> Trainer:
        return Trainer(
            model=self._model,
            args=TrainingArguments(
                **_arguments(self._batch, steps, seed, self._checkpointing),
                train_sampling_strategy="group_by_length" if grouped else "random",
            ),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(self._tokenizer, label_pad_token_id=-100),
            preprocess_logits_for_metrics=self._label_logits,
        )

    def _label_logits(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Only the label's logits are kept: all of them would need N x T x V floats."""
        at = (labels != -100).int().argmax(-1) - 1
        return logits[torch.arange(len(logits)), at][:, self._words]


class SFT:
    """TRL's `SFTTrainer` on prompts and completions. It predicts as `Trainer` does."""

    def __init__(self, folder: Path, batch: int, rank: int) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self._model, self._batch = _load(folder, rank), batch

    def train(self, prompts: Sequence[str], labels: Sequence[int], steps: int, seed: int = 0) -> float:
        words = [f" {WORDS[label]}" for label in labels]
        trainer = SFTTrainer(
            model=self._model,
            args=SFTConfig(**_arguments(self._batch, steps, seed, checkpointing=False), max_length=None),
            train_dataset=Dataset.from_dict({"prompt": list(prompts), "completion": words}),
            processing_class=self._tokenizer,
        )
        start = time.perf_counter()
        trainer.train()
        return time.perf_counter() - start


class PlainLoop:
    """Pad the batch, run the whole model, take the last token's logits, step: no library around it."""

    def __init__(self, folder: Path, batch: int, rank: int) -> None:
        self._tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self._tokenizer.padding_side = "left"
        self._model, self._batch = _load(folder, rank), batch
        self._words = self._tokenizer.convert_tokens_to_ids(list(WORDS))

    def train(self, prompts: Sequence[str], labels: Sequence[int], steps: int, seed: int = 0) -> float:
        rows = [self._tokenizer(prompt)["input_ids"] for prompt in prompts]
        target = torch.tensor([self._words[label] for label in labels])
        optimizer = torch.optim.AdamW([p for p in self._model.parameters() if p.requires_grad], lr=LR)
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        start = time.perf_counter()
        self._model.train()
        for step in range(steps):
            chosen = [order[i % len(rows)] for i in range(step * self._batch, (step + 1) * self._batch)]
            batch = self._tokenizer.pad({"input_ids": [rows[i] for i in chosen]}, return_tensors="pt")
            logits = self._model(**batch, use_cache=False).logits[:, -1]
            torch.nn.functional.cross_entropy(logits.float(), target[chosen]).backward()
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - start

    @torch.inference_mode()
    def predict(self, prompts: Sequence[str]) -> float:
        rows = [self._tokenizer(prompt)["input_ids"] for prompt in prompts]
        start = time.perf_counter()
        self._model.eval()
        for i in range(0, len(rows), self._batch):
            batch = self._tokenizer.pad({"input_ids": rows[i : i + self._batch]}, return_tensors="pt")
            self._model(**batch, use_cache=False).logits[:, -1].softmax(-1)[:, self._words]
        return time.perf_counter() - start


MAKERS: dict[str, Callable[[Path, int, int], Peer]] = {
    "ours": Ours,
    "hf": HuggingFace,
    "tuned_hf": lambda folder, batch, rank: HuggingFace(folder, batch, rank, tuned=True),
    "trl": SFT,
    "plain_loop": PlainLoop,
}


def _load(folder: Path, rank: int) -> Any:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if not rank:
        return model
    return get_peft_model(
        model,
        LoraConfig(r=rank, lora_alpha=rank, use_rslora=True, target_modules=list(LORA_TARGETS), task_type="CAUSAL_LM"),
    )


def _arguments(batch: int, steps: int, seed: int, checkpointing: bool) -> dict[str, Any]:
    return {
        "output_dir": tempfile.gettempdir(),
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "max_steps": steps,
        "learning_rate": LR,
        "adam_beta2": 0.95,
        "warmup_steps": 1,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        "use_cpu": not torch.cuda.is_available(),
        "seed": seed,
        "dataloader_pin_memory": False,
    }
