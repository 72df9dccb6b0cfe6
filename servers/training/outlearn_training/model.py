"""A causal LM that answers with one of two label tokens. Any Hugging Face causal LM works, with LoRA where its blocks
have linear layers that peft can adapt."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from outlearn.errors import ConfigError, InvalidInputError
from outlearn.tasks import FineTuning
from outlearn_training.places import resolve, single_tokens, why_not_loaded

Weights = dict[str, Tensor]
WEIGHT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MAX_WEIGHT, MAX_ADAPTER_WEIGHT = 1e4, 1e2
"""Largest sizes of a trained weight, and of one in a LoRA adapter, which is multiplied by another's. Below them nothing
overflows to NaN, which in attention would reach other prompts of a batch (0 * NaN is NaN)."""
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a Llama's or Qwen's block; other models' are found by what they are."""


@dataclass(frozen=True)
class Batch:
    """Left-padded prompts: the label position is the last one in every row."""

    input_ids: Tensor  # (B, T)
    attention_mask: Tensor  # (B, T)
    position_ids: Tensor  # (B, T)


class LabelModel:
    """A base model, with the weights that fine-tuning changes: all of them, or LoRA adapters."""

    def __init__(self, name: str, tuning: FineTuning) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.name = name
        lora = tuning.lora_rank > 0
        half = lora and torch.cuda.is_available()
        try:
            place = resolve(name)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(**place)
            model: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16 if half else torch.float32)
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(why_not_loaded(name, error)) from error
        self.model: Any = (_with_adapters(name, model, tuning) if lora else model).eval()
        self.device = torch.device("cpu")
        self._chats = ends_turns(self.tokenizer)
        self._base = {key: value.detach().clone() for key, value in self._trained_state().items()}
        self._loaded: Weights | None = self._base
        self._token_cache: dict[str, list[int]] = {}

    def to_device(self) -> "LabelModel":
        """Move to the GPU, where there is one. Separate from loading: a process that has used CUDA cannot fork."""
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device)
        return self

    def load(self, weights: Weights | None) -> None:
        """Put fine-tuned weights in place; None restores the base model."""
        wanted = self._base if weights is None else weights
        if wanted is self._loaded:
            return
        state = self._trained_state()
        check_weights(wanted, state)
        with torch.no_grad():
            for key, target in state.items():
                target.copy_(wanted[key])
        self._loaded = wanted

    def weights(self) -> Weights:
        """Copies of the weights that fine-tuning changes, on the CPU."""
        return {key: value.detach().to("cpu", copy=True) for key, value in self._trained_state().items()}

    def save(self, weights: Weights, folder: Path) -> None:
        """Write a student as `transformers` reads it, or its adapters as `peft` does, with the tokenizer."""
        self.load(weights)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def size_bytes(self) -> int:
        """Size of the weights that fine-tuning changes, in fp32."""
        return 4 * sum(tensor.numel() for tensor in self._base.values())

    @contextmanager
    def training(self) -> Iterator[None]:
        """While the weights are trained in place: it forgets which ones are loaded."""
        self._loaded = None
        self.model.train()
        try:
            yield
        finally:
            self.model.eval()

    def word_ids(self, words: tuple[str, str]) -> list[int]:
        """Token ids of two label words.

        Raises:
            InvalidInputError: a word is not exactly one token, or both are the same.
        """
        return single_tokens(
            self.name, words, [self.tokenizer.encode(word, add_special_tokens=False) for word in words]
        )

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt, remembered: the user's turn of a conversation for a chat model, else plain text."""
        if prompt not in self._token_cache:
            if self._chats:
                turn = [{"role": "user", "content": prompt}]
                text = self.tokenizer.apply_chat_template(
                    turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
                self._token_cache[prompt] = self.tokenizer.encode(text, add_special_tokens=False)
            else:
                self._token_cache[prompt] = self.tokenizer.encode(prompt)
        return self._token_cache[prompt]

    def batch(self, prompts: Sequence[list[int]]) -> Batch:
        """Pad token lists on the left, so that the last position is the label's in every row."""
        width = max(len(ids) for ids in prompts)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.tensor([[pad] * (width - len(one)) + one for one in prompts])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts])
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        return Batch(ids.to(self.device), mask.to(self.device), positions.to(self.device))

    def label_log_probs(self, batch: Batch, word_ids: list[int]) -> Tensor:
        """Log-probabilities of two words at the label position, under the full-vocabulary softmax. Returns (B, 2)."""
        log_probs: Tensor = self._run(batch).logits[:, -1].float().log_softmax(-1)
        return log_probs[:, word_ids]

    def hidden(self, batch: Batch) -> Tensor:
        """The last layer's hidden state at the label position. Returns (B, D)."""
        states: Tensor = self._run(batch, output_hidden_states=True).hidden_states[-1]
        return states[:, -1].float()

    def _run(self, batch: Batch, **options: Any) -> Any:
        """The model's output, with logits of the label position alone."""
        return self.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            logits_to_keep=1,
            use_cache=False,
            **options,
        )

    def generate(self, batch: Batch, max_new_tokens: int, temperature: float) -> list[str]:
        """Continue each prompt; `temperature` 0 is greedy. Returns the new text of each row."""
        sampling = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
        tokens = self.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id or 0,
            **sampling,
        )
        return list(self.tokenizer.batch_decode(tokens[:, batch.input_ids.shape[1] :], skip_special_tokens=True))

    def _trained_state(self) -> Weights:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def ends_turns(tokenizer: Any) -> bool:
    """Whether a tokenizer is a chat model's: its end-of-sequence token is what ends a turn of its chat template.

    Base models' tokenizers often carry the family's chat template too, but end sequences with another token.
    """
    if not tokenizer.chat_template or not tokenizer.eos_token:
        return False
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False)
    return tokenizer.eos_token in text.rpartition("answer")[2]


def check_weights(weights: Weights, like: Weights) -> None:
    """Raises InvalidInputError unless `weights` has the names and shapes of `like` and only floats of sensible size."""
    if weights.keys() != like.keys():
        odd = [name[:80] for name in sorted(weights.keys() ^ like.keys())[:3]]
        raise InvalidInputError(f"the student's weights are not of this base model: {odd}")
    for name, expected in like.items():  # in the model's order, so that the same student is refused with the same words
        tensor = weights[name]
        if tensor.shape != expected.shape:
            raise InvalidInputError(f"weight {name!r} has shape {tuple(tensor.shape)}, not {tuple(expected.shape)}")
        if tensor.dtype not in WEIGHT_TYPES:
            raise InvalidInputError(f"weight {name!r} is of {tensor.dtype}; use one of {WEIGHT_TYPES}")
        most = MAX_ADAPTER_WEIGHT if ".lora_" in name else MAX_WEIGHT
        if not (tensor.abs() <= most).all():
            raise InvalidInputError(
                f"weight {name!r} has values that are NaN or beyond {most:g}; lower the learning rate"
            )


def _with_adapters(name: str, model: Any, tuning: FineTuning) -> Any:
    from peft import LoraConfig, get_peft_model

    rank, layers = tuning.lora_rank, model.config.get_text_config().num_hidden_layers
    targets = _linear_layers(model, layers - tuning.lora_layers if 0 < tuning.lora_layers < layers else 0)
    torch.manual_seed(0)  # the adapters start at random: the same in every process
    try:
        if not targets:
            raise ValueError("its blocks have no linear layer")
        config = LoraConfig(
            r=rank,
            lora_alpha=rank,
            use_rslora=True,
            target_modules=list(targets),
            fan_in_fan_out=not any(isinstance(layer, torch.nn.Linear) for layer in targets.values()),
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"LoRA does not fit the model {name!r} of type {model.config.model_type!r}: {error}. Set lora_rank to 0, "
            "which trains all weights, or choose another model"
        ) from error


def _linear_layers(model: Any, first: int) -> dict[str, Any]:
    """The linear layers inside of the blocks from number `first` on, by their full names: what LoRA is put on.

    A block is the first number in a name, such as `h.3.attn.c_attn`. Embeddings, the head and what lies between them
    and the blocks is left as it is.
    """
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    head, found = model.get_output_embeddings(), {}
    for name, module in model.named_modules():
        block = next((part for part in name.split(".") if part.isdigit()), None)
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head and block and int(block) >= first:
            found[name] = module
    return found
