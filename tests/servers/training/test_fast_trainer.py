"""The fast trainer against plain transformers: the same losses, gradients, weights and predictions."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlearn.errors import InvalidInputError
from outlearn.tasks import FineTuning
from outlearn_training.losses import logconf

torch = pytest.importorskip("torch")

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from outlearn_training.fast import attention
from outlearn_training.fast.decoder import Decoder, why_not
from outlearn_training.fast.layout import GROUP_COST, Row, by_budget, cut, pack, share_prefixes
from outlearn_training.fast.trainer import FastTrainer, make_trainer
from outlearn_training.model import MAX_ADAPTER_WEIGHT, MAX_WEIGHT, LabelModel
from outlearn_training.testbed.tokenizer import build_tokenizer
from outlearn_training.trainer import PlainTrainer

WORDS = (" no", " yes")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
MODELS: dict[str, Any] = {
    "llama with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True, tie_word_embeddings=False),
    "llama with scaled rope": LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    ),
    "qwen2": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True),
}
TUNINGS = {
    "all weights": FineTuning(epochs=2, lr=1e-3, batch_size=8),
    "adapters": FineTuning(epochs=2, lr=1e-2, batch_size=8, lora_rank=4),
    "adapters on the top layer": FineTuning(epochs=2, lr=1e-2, batch_size=8, lora_rank=4, lora_layers=1),
    "checkpointing": FineTuning(epochs=2, lr=1e-2, batch_size=8, lora_rank=4, gradient_checkpointing=True),
    "all weights, checkpointing": FineTuning(epochs=2, lr=1e-3, batch_size=8, gradient_checkpointing=True),
}
RNG = np.random.default_rng(0)
PROMPTS = [
    f"{'7' * RNG.integers(1, 30)} is {word} " * RNG.integers(1, 3) for word in ("odd", "even") for _ in range(12)
]
TARGETS = RNG.random(len(PROMPTS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tokenizer, made = build_tokenizer(WORDS, 128), {}
    for name, config in MODELS.items():
        torch.manual_seed(1)
        config.vocab_size = len(tokenizer)
        made[name] = tmp_path_factory.mktemp("model")
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # norms of ones and biases of zeros would hide mistakes
            parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(made[name])
        tokenizer.save_pretrained(made[name])
    return made


def both(folder: Path, tuning: FineTuning) -> tuple[PlainTrainer, FastTrainer]:
    return PlainTrainer(LabelModel(str(folder), tuning), 100), FastTrainer(LabelModel(str(folder), tuning), 100)


def fit(trainer: PlainTrainer, tuning: FineTuning) -> tuple[dict[str, Any], list[float]]:
    losses: list[float] = []
    weights = trainer.fit(
        PROMPTS,
        TARGETS,
        np.linspace(0.5, 1.5, len(PROMPTS)),
        loss=logconf(),
        tuning=tuning,
        words=WORDS,
        seed=3,
        on_step=lambda _step, _steps, value: losses.append(value),
    )
    return weights, losses


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tuning", TUNINGS)
def test_the_first_gradient_is_that_of_plain_transformers(folders: dict[str, Path], model: str, tuning: str) -> None:
    gradients, values = [], []
    for trainer in both(folders[model], TUNINGS[tuning]):
        learner = trainer._learner(TUNINGS[tuning])
        tokens = [trainer.model.encode(prompt) for prompt in PROMPTS]
        loss = -learner.log_probs(tokens, trainer.model.word_ids(WORDS)).mean()
        loss.backward()
        values.append(loss.item())
        gradients.append(gradient_of(trainer))
    plain, fast = gradients
    assert values[1] == pytest.approx(values[0], abs=1e-5)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        assert torch.allclose(fast[name], gradient, atol=1e-5), name


@pytest.mark.parametrize("model", ["llama with biases", "qwen2", "qwen3"])
@pytest.mark.parametrize("word", ["v", "!", "<|endoftext|>"], ids=["a word", "filler", "padding"])
def test_an_items_answer_does_not_depend_on_others_whose_values_would_overflow(
    folders: dict[str, Path], model: str, word: str
) -> None:
    for trainer in both(folders[model], TUNINGS["all weights"]):
        (index,) = trainer.model.tokenizer.encode(word)
        weights = becoming_nan_at(trainer, index)
        prompts = [*PROMPTS, "7 is odd!", "77 is v", "777 is v", "77 is even!"]
        with pytest.raises(InvalidInputError, match=r"gate_proj.* beyond 10000; lower the learning rate"):
            trainer.predict(weights, prompts, WORDS)
        for tensor in weights.values():
            tensor.clamp_(-MAX_WEIGHT, MAX_WEIGHT)
        alone = np.array([trainer.predict(weights, [prompt], WORDS)[0] for prompt in prompts])
        assert trainer.predict(weights, prompts, WORDS) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("tuning", ["all weights", "adapters"])
def test_no_weights_that_are_let_in_make_nan(folders: dict[str, Path], model: str, tuning: str) -> None:
    for trainer in both(folders[model], TUNINGS[tuning]):
        for seed in range(8):
            torch.manual_seed(seed)
            weights = {
                name: (MAX_ADAPTER_WEIGHT if ".lora_" in name else MAX_WEIGHT)
                * (torch.ones_like(one) if seed == 0 else torch.randn_like(one).sign())
                for name, one in trainer.model.weights().items()
            }
            assert np.isfinite(trainer.predict(weights, PROMPTS, WORDS)).all()


def becoming_nan_at(trainer: PlainTrainer, index: int) -> dict[str, Any]:
    """Finite weights that overflow in the first block at one token, and there alone."""
    weights = trainer.model.weights()
    table, layer = weights["model.embed_tokens.weight"], "model.layers.0."
    seen = table / table.square().mean(-1, keepdim=True).sqrt()
    others = torch.cat([seen[:index], seen[index + 1 :]])
    direction = torch.linalg.pinv(seen)[:, index]
    ratio = (seen[index] @ direction) / (others @ direction).max()
    assert ratio > 1.5
    for name in weights:
        if name.startswith(layer) and name.endswith("bias"):
            weights[name].zero_()
    weights[layer + "post_attention_layernorm.weight"].fill_(1.0)
    weights[layer + "self_attn.o_proj.weight"].zero_()
    weights[layer + "mlp.down_proj.weight"].zero_()
    for part in ("gate_proj", "up_proj"):
        matrix = weights[layer + f"mlp.{part}.weight"]
        matrix.copy_((1.8e19 * ratio.sqrt() / (seen[index] @ direction) * direction).expand_as(matrix))
    return weights


def gradient_of(trainer: PlainTrainer) -> dict[str, Any]:
    """By parameter: the fast trainer's are in flat buffers, which lie in memory just as its parameters do."""
    named = {name: p for name, p in trainer.model.model.named_parameters() if p.requires_grad}
    if not isinstance(trainer, FastTrainer):
        return {name: p.grad for name, p in named.items()}
    found = {}
    for name, parameter in named.items():
        for buffer in trainer.decoder.flat.tensors():
            start = (parameter.data_ptr() - buffer.data_ptr()) // parameter.element_size()
            if 0 <= start < len(buffer):
                found[name] = buffer.grad[start : start + parameter.numel()].view_as(parameter)
    return found


@pytest.mark.parametrize("model", ["llama with biases", "qwen3"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_training_and_predicting_come_out_as_with_plain_transformers(
    folders: dict[str, Path], model: str, tuning: str
) -> None:
    plain, fast = both(folders[model], TUNINGS[tuning])
    (expected, expected_losses), (found, losses) = fit(plain, TUNINGS[tuning]), fit(fast, TUNINGS[tuning])
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-4), name
    heard: list[tuple[int, int]] = []
    for student in (None, expected):
        want = plain.predict(student, PROMPTS, WORDS)
        found_now = fast.predict(student, PROMPTS, WORDS, lambda done, items: heard.append((done, items)))
        assert found_now == pytest.approx(want, abs=1e-5)
        assert heard[-1] == (len(PROMPTS), len(PROMPTS))
        assert np.allclose(fast.embed(student, PROMPTS), plain.embed(student, PROMPTS), atol=1e-4)


def test_the_same_seed_gives_the_same_weights_after_other_work(folders: dict[str, Path]) -> None:
    tuning = TUNINGS["all weights"]
    trainer = FastTrainer(LabelModel(str(folders["qwen3"]), tuning), 100)
    first, _ = fit(trainer, tuning)
    trainer.predict(None, PROMPTS[:3], WORDS)
    second, _ = fit(trainer, tuning)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_text_is_generated_by_the_trained_student(folders: dict[str, Path]) -> None:
    plain, fast = both(folders["qwen2"], TUNINGS["adapters"])
    student, _ = fit(fast, TUNINGS["adapters"])
    texts = [one.generate(student, PROMPTS[:2], max_tokens=4, temperature=0, seed=0) for one in (plain, fast)]
    assert texts[0] == texts[1]


def test_adapters_are_saved_as_peft_reads_them(folders: dict[str, Path], tmp_path: Path) -> None:
    from peft import PeftModel

    trainer = FastTrainer(LabelModel(str(folders["qwen3"]), TUNINGS["adapters"]), 100)
    student, _ = fit(trainer, TUNINGS["adapters"])
    trainer.model.save(student, tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders["qwen3"]), tmp_path).eval()
    assert trainer.predict(student, PROMPTS, WORDS) == pytest.approx(answers(loaded, tmp_path), abs=1e-5)


def test_full_weights_are_saved_as_transformers_reads_them(folders: dict[str, Path], tmp_path: Path) -> None:
    trainer = FastTrainer(LabelModel(str(folders["qwen2"]), TUNINGS["all weights"]), 100)
    student, _ = fit(trainer, TUNINGS["all weights"])
    trainer.model.save(student, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert trainer.predict(student, PROMPTS, WORDS) == pytest.approx(answers(loaded, tmp_path), abs=1e-5)


def answers(model: Any, tokenizer_folder: Path) -> list[float]:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    ids = [tokenizer.encode(word)[0] for word in WORDS]
    with torch.no_grad():
        logits = [model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1, ids] for prompt in PROMPTS]
    return [one.softmax(-1)[1].item() for one in logits]


def test_in_bf16_the_adapters_stay_apart_from_the_weights(folders: dict[str, Path]) -> None:
    plain, fast = both(folders["qwen2"], TUNINGS["adapters"])
    student, _ = fit(plain, TUNINGS["adapters"])
    for trainer in (plain, fast):
        trainer.model.model.base_model.model.to(torch.bfloat16)
        for name, parameter in trainer.model.model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.float()
    want = plain.predict(student, PROMPTS, WORDS)
    assert fast.predict(student, PROMPTS, WORDS) == pytest.approx(want, abs=0.02)
    assert all(linear._merged is None for linear in fast.decoder._linears())


@pytest.mark.parametrize("model", ["qwen2", "qwen3"])
@pytest.mark.parametrize("tuning", ["all weights", "adapters", "adapters on the top layer"])
def test_prompts_that_lie_end_to_end_give_the_same(
    folders: dict[str, Path], model: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fast = both(folders[model], TUNINGS[tuning])
    monkeypatch.setattr(attention, "varlen_attn", reference_varlen)
    monkeypatch.setattr("outlearn_training.fast.trainer.takes_any_length", lambda *_: True)
    (student, expected), (_, losses) = fit(plain, TUNINGS[tuning]), fit(fast, TUNINGS[tuning])
    assert losses == pytest.approx(expected, abs=1e-5)
    assert fast.predict(student, PROMPTS, WORDS) == pytest.approx(plain.predict(student, PROMPTS, WORDS), abs=1e-5)


def reference_varlen(
    q: Any, k: Any, v: Any, q_bounds: Any, k_bounds: Any, *_: int, window_size: tuple[int, int], enable_gqa: bool
) -> Any:
    """What torch's GPU kernel computes, one prompt after another."""
    results = []
    for (q0, q1), (k0, k1) in zip(pairwise(q_bounds.tolist()), pairwise(k_bounds.tolist()), strict=True):
        one = (part.transpose(0, 1)[None] for part in (q[q0:q1], k[k0:k1], v[k0:k1]))
        causal = window_size == (-1, 0)
        result = torch.nn.functional.scaled_dot_product_attention(*one, is_causal=causal, enable_gqa=enable_gqa)
        results.append(result[0].transpose(0, 1))
    return torch.cat(results)


def test_what_frozen_layers_make_of_a_prompt_is_computed_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = TUNINGS["adapters on the top layer"]
    trainer = FastTrainer(LabelModel(str(folders["qwen3"]), tuning), 100)
    seen: list[int] = []
    compute = Decoder.frozen_states
    monkeypatch.setattr(
        Decoder, "frozen_states", lambda self, packed: seen.append(len(packed.picks)) or compute(self, packed)
    )
    student, _ = fit(trainer, tuning)
    trainer.predict(student, PROMPTS, WORDS)
    assert sum(seen) == len(set(PROMPTS))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MistralConfig(**SIZES), "'mistral'"),
        (Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=8, max_window_layers=1), "sliding window"),
        (LlamaConfig(**SIZES, hidden_act="gelu"), "'gelu'"),
        (LlamaConfig(**SIZES, attention_dropout=0.1), "drops out"),
        (LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "'dynamic'"),
    ],
)
def test_a_model_that_the_fast_path_does_not_know_is_named_with_the_reason(config: Any, reason: str) -> None:
    config.vocab_size = 16
    assert reason in why_not(AutoModelForCausalLM.from_config(config))


def test_another_architecture_is_trained_by_the_plain_trainer(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(WORDS, 128)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=128)
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tuning = TUNINGS["all weights"]
    trainer = make_trainer(LabelModel(str(tmp_path), tuning), 100)
    assert type(trainer) is PlainTrainer
    _, losses = fit(trainer, tuning)
    assert np.isfinite(losses).all()


token_lists = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=12)


@given(prompts=token_lists)
@settings(deadline=None)
def test_prompts_that_share_a_row_begin_alike_and_none_is_lost(prompts: list[list[int]]) -> None:
    rows = share_prefixes(prompts, width=8)
    assert sorted(member for row in rows for member in row.members) == list(range(len(prompts)))
    for row in rows:
        assert len({tuple(prompts[member][: row.prefix]) for member in row.members}) == 1
        rest = sum(len(prompts[member]) - row.prefix for member in row.members)
        assert row.length == row.prefix + rest
        assert all(len(prompts[member]) > row.prefix for member in row.members)


@given(prompts=token_lists)
@settings(deadline=None)
def test_every_prompt_can_be_read_back_from_a_packed_batch(prompts: list[list[int]]) -> None:
    packed = pack(prompts, share_prefixes(prompts, width=8))
    for prompt, pick in zip(prompts, packed.picks.tolist(), strict=True):
        slot = int(packed.slots[pick])
        group = next(one for one in packed.groups if one.span.start <= slot < one.span.stop)
        row, at = divmod(slot - group.start, group.t)
        label = group.labels[row].tolist().index(at)
        visible = group.start + row * group.t + torch.nonzero(group.label_mask[row, 0, label]).flatten()
        assert packed.ids[visible].tolist() == prompt
        assert packed.positions[visible].tolist() == list(range(len(prompt)))


@given(lengths=st.lists(st.integers(1, 200), min_size=1, max_size=7))
def test_groups_are_cut_where_it_costs_least(lengths: list[int]) -> None:
    lengths = sorted(lengths, reverse=True)

    def cost(cuts: list[int]) -> int:
        return sum(lengths[start] * (end - start) + GROUP_COST for start, end in pairwise(cuts))

    n = len(lengths)
    every = ([0, *(i for i in range(1, n) if bits >> i & 1), n] for bits in range(0, 2**n, 2))
    assert cost(cut(lengths)) == min(map(cost, every))


@given(lengths=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 100))
def test_batches_keep_to_their_budget_unless_one_row_is_longer(lengths: list[int], budget: int) -> None:
    rows = [Row((index,), 0, length) for index, length in enumerate(lengths)]
    batches = list(by_budget(rows, budget))
    assert sorted(row.members for batch in batches for row in batch) == [row.members for row in rows]
    assert all(len(batch) == 1 or sum(row.length for row in batch) <= budget for batch in batches)
