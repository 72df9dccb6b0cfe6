"""Models with random weights in three sizes, and prompts of lognormal length, as real prompts have."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

WORDS = ("no", "yes")


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model, and the work to measure it on."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    batch: int
    steps: int
    predicted: int
    median: int
    longest: int


SHAPES = {
    "1m": Shape("1m", 128, 4, 4, 2, 384, 2048, batch=32, steps=8, predicted=512, median=80, longest=512),
    "25m": Shape("25m", 384, 10, 6, 2, 1536, 8192, batch=32, steps=2, predicted=128, median=80, longest=512),
    "05b": Shape("05b", 1024, 24, 16, 16, 2816, 151_936, batch=16, steps=1, predicted=32, median=60, longest=384),
}
"""About 1 M and 25 M parameters, and the true shape of Qwen1.5-0.5B."""


def write_model(shape: Shape, folder: Path) -> Path:
    """Save a random model of this shape, with a tokenizer of one token a word. Returns its folder."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = ["<pad>", "<end>", *WORDS, *(f"w{i}" for i in range(shape.vocabulary - 4))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>").save_pretrained(folder)
    return folder


def write_prompts(shape: Shape, count: int, seed: int = 0) -> list[str]:
    """Prompts of random words. Their lengths are the quantiles of a lognormal distribution with sigma 0.5, shuffled, so
    that few prompts stand for many. Four at a time begin alike, as items of one question do, with 40 % of the
    shortest's words in common."""
    rng = np.random.default_rng(seed)
    normal = np.array([NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)])
    lengths = np.clip(shape.median * np.exp(0.5 * rng.permutation(normal)), 16, shape.longest).astype(int)
    prompts: list[str] = []
    for start in range(0, count, 4):
        sizes = lengths[start : start + 4]
        common = rng.integers(0, shape.vocabulary - 4, int(0.4 * sizes.min()))
        for size in sizes:
            rest = rng.integers(0, shape.vocabulary - 4, size - len(common))
            prompts.append(" ".join(f"w{word}" for word in (*common, *rest)))
    return [prompts[i] for i in rng.permutation(count)]


def parameters(folder: Path) -> tuple[int, int]:
    """How many parameters the blocks have, and how many the embedding."""
    config = json.loads((folder / "config.json").read_text())
    d, ffn, head = (
        config["hidden_size"],
        config["intermediate_size"],
        config["hidden_size"] // config["num_attention_heads"],
    )
    attention = 2 * d * d + 2 * d * head * config["num_key_value_heads"]
    return config["num_hidden_layers"] * (attention + 3 * d * ffn), config["vocab_size"] * d
