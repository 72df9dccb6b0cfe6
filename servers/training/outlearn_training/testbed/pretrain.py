"""Make the tiny checkpoints: `python -m outlearn_training.testbed.pretrain math [--out DIR] [--only student|teacher]`.

The same seeds give the same files on the same machine; the student takes about five minutes on one core.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from outlearn_training.testbed import TESTBEDS
from outlearn_training.testbed.chat_corpus import CHAT_CORPUS
from outlearn_training.testbed.code_corpus import CODE_CORPUS
from outlearn_training.testbed.math_corpus import MATH_CORPUS
from outlearn_training.testbed.prepare import level_label_words, rescale
from outlearn_training.testbed.tokenizer import build_tokenizer

DECISION_WEIGHT = 5.0
"""The tokens that judge an answer weigh more in the loss: they are few, and they are what the task is about."""
CONTEXT_TOKENS = 256
REPORT_EVERY = 100


@dataclass(frozen=True)
class Recipe:
    """One model's shape and training. `share_of_groups` is the part of the facts' groups that it reads about."""

    seed: int
    share_of_groups: float
    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    feed_forward: int
    steps: int
    documents_per_step: int = 48
    learning_rate: float = 4e-3
    warmup_steps: int = 50
    flat_until: float = 0.3


STUDENT = Recipe(
    seed=0, share_of_groups=1.0, hidden=96, layers=4, heads=4, key_value_heads=2, feed_forward=256, steps=1800
)
TEACHER = Recipe(
    seed=1, share_of_groups=0.5, hidden=48, layers=2, heads=3, key_value_heads=1, feed_forward=128, steps=1600
)
RECIPES = {
    "math": {"student": STUDENT, "teacher": TEACHER},
    "chat": {
        "student": replace(STUDENT, documents_per_step=20, steps=1000),
        "teacher": replace(TEACHER, documents_per_step=20, steps=700),
    },
    "code": {
        "student": replace(STUDENT, documents_per_step=20, steps=1200),
        "teacher": replace(TEACHER, documents_per_step=20, steps=800),
    },
}
CORPORA = {"math": MATH_CORPUS, "chat": CHAT_CORPUS, "code": CODE_CORPUS}


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 with tied embeddings, in float32."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.key_value_heads,
        head_dim=recipe.hidden // recipe.heads,
        intermediate_size=recipe.feed_forward,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(config)


def optimizers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms, at one learning rate."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.ndim == 2]
    inside = {id(weight) for weight in matrices}
    others = [weight for weight in model.parameters() if id(weight) not in inside]
    return [
        torch.optim.Muon(matrices, lr=recipe.learning_rate, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """Linear warm-up, flat to `flat_until` of the steps, then linear to zero; in (0, 1]."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    left = (recipe.steps - step) / (recipe.steps * (1 - recipe.flat_until))
    return min(warm, left)


def document_loss(model: Qwen3ForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Mean next-token cross-entropy in nats, tokens weighted.

    Args:
        ids: (B, T) tokens, padded on the right.
        weights: (V,) the weight of each token as a target, 0 for padding.
    """
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits  # (B, T-1, V)
    return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), weight=weights)


def target_weights(tokenizer: PreTrainedTokenizerFast, decisions: Sequence[str]) -> Tensor:
    """(V,) 1 for most tokens, `DECISION_WEIGHT` for those that judge, 0 for padding."""
    weights = torch.ones(len(tokenizer))
    for word in decisions:
        weights[tokenizer.encode(word)] = DECISION_WEIGHT
    weights[tokenizer.pad_token_id] = 0.0
    return weights


def pretrain(task: str, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    model = new_model(recipe, tokenizer).train()
    stepping = optimizers(model, recipe)
    weights = target_weights(tokenizer, CORPORA[task].decisions)
    stream = CORPORA[task].documents(recipe.seed, recipe.share_of_groups)
    progress = Progress(recipe.steps)
    for step in range(recipe.steps):
        texts = list(islice(stream, recipe.documents_per_step))
        ids = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
        loss = document_loss(model, ids, weights)
        torch.autograd.backward(loss)
        for optimizer in stepping:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe)
            optimizer.step()
            optimizer.zero_grad()
        progress.report(step + 1, int((ids != tokenizer.pad_token_id).sum()), loss.item())
    return model.eval()


class Progress:
    """Prints tokens, speed, loss and the remaining time every `REPORT_EVERY` steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.tokens = 0
        self.started = time.perf_counter()

    def report(self, step: int, tokens: int, loss_nats: float) -> None:
        self.tokens += tokens
        if step % REPORT_EVERY and step != self.steps:
            return
        seconds = time.perf_counter() - self.started
        left = seconds / step * (self.steps - step)
        speed = self.tokens / seconds
        print(
            f"step {step}/{self.steps}  loss {loss_nats:.3f}  {self.tokens:,} tokens  {speed:,.0f} tokens/s  "
            f"{seconds:.0f} s, {left:.0f} s left",
            flush=True,
        )


def make_checkpoint(task: str, role: str, folder: Path) -> None:
    """Pretrain one model and save it in bfloat16 with its tokenizer."""
    recipe = RECIPES[task][role]
    tokenizer = build_tokenizer(CORPORA[task].words, CONTEXT_TOKENS)
    print(
        f"{task} {role}: {sum(p.numel() for p in new_model(recipe, tokenizer).parameters()):,} parameters", flush=True
    )
    model = pretrain(task, recipe, tokenizer)
    rescale(model)
    level_label_words(model, tokenizer, TESTBEDS[task].label_words, CORPORA[task].statements(recipe.seed, 1000))
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"saved {folder}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, help="instead of the package's own folder")
    parser.add_argument("--only", choices=["student", "teacher"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for role in [options.only] if options.only else ["teacher", "student"]:
        make_checkpoint(options.task, role, (options.out or TESTBEDS[options.task].checkpoints) / role)


if __name__ == "__main__":
    main()
