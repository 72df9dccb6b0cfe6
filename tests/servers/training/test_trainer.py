"""The trainer against plain transformers: same losses, same predictions, same results twice."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outlearn.errors import ConfigError, InvalidInputError, PermissionDeniedError
from outlearn.tasks import FineTuning, TaskCard
from outlearn_training.losses import logconf, named_loss, xent
from outlearn_training.model import LORA_TARGETS, LabelModel, ends_turns
from outlearn_training.students import parse_student, read_students, save_students
from outlearn_training.trainer import PlainTrainer, Trainer, cut_middle

torch = pytest.importorskip("torch")

PROMPTS = ["7 is odd", "12 is odd", "12345 is odd!", "9 is odd", "1 is odd!"]
WORDS = (" no", " yes")


def trainer_for(model: Path, **changes: float) -> PlainTrainer:
    tuning = FineTuning(epochs=1, lr=1e-2, batch_size=2).model_copy(update=changes)
    return PlainTrainer(LabelModel(str(model), tuning), max_tokens=16)


def fit(trainer: Trainer, seed: int = 0, lr: float = 1e-2, init: object = None, epochs: int = 4) -> dict:  # type: ignore[type-arg]
    goal = np.array([1, 0, 1, 1, 0], float)
    tuning = FineTuning(epochs=epochs, lr=lr, batch_size=2)
    return trainer.fit(  # type: ignore[no-any-return]
        PROMPTS, goal, np.ones(5), loss=xent, tuning=tuning, words=WORDS, seed=seed, init=init
    )


def test_predictions_equal_an_unpadded_forward_pass_of_transformers(toy_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_model)
    model = AutoModelForCausalLM.from_pretrained(toy_model, dtype=torch.float32).eval()
    ids = [tokenizer.convert_tokens_to_ids(word) for word in WORDS]
    expected = []
    for prompt in PROMPTS:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1]
        expected.append(logits[ids].softmax(-1)[1].item())
    assert trainer_for(toy_model).predict(None, PROMPTS, WORDS) == pytest.approx(expected, abs=1e-6)


def test_predicting_tells_how_many_items_are_done(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn_training.trainer.PREDICT_BATCH_TOKENS", 12)
    heard: list[tuple[int, int]] = []
    trainer = trainer_for(toy_model)
    told = trainer.predict(None, PROMPTS, WORDS, lambda done, items: heard.append((done, items)))
    assert np.array_equal(told, trainer.predict(None, PROMPTS, WORDS))
    assert len(heard) > 1
    assert heard == sorted(heard)
    assert heard[-1] == (5, 5)


def test_one_step_of_training_equals_adamw_on_the_mean_cross_entropy(toy_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_model)
    model = AutoModelForCausalLM.from_pretrained(toy_model, dtype=torch.float32)
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in WORDS])
    targets = [1.0, 0.25, 0.5, 0.0, 1.0]
    losses = []
    for prompt, target in zip(PROMPTS, targets, strict=True):
        log_probs = model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1].log_softmax(-1)[ids]
        losses.append(-(target * log_probs[1] + (1 - target) * log_probs[0]))
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95)).step()

    tuning = FineTuning(epochs=1, lr=1e-2, batch_size=5, warmup=0)
    weights = trainer_for(toy_model).fit(
        PROMPTS, np.array(targets), np.ones(5), loss=xent, tuning=tuning, words=WORDS, seed=0
    )
    for name, parameter in model.named_parameters():
        assert torch.allclose(weights[name], parameter, atol=1e-5), name


def test_training_learns_and_the_same_seed_gives_the_same_weights(toy_model: Path) -> None:
    trainer = trainer_for(toy_model)
    first, second, other = fit(trainer), fit(trainer), fit(trainer, seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    before, after = (trainer.predict(weights, PROMPTS, WORDS) for weights in (None, fit(trainer, epochs=40)))
    goal = np.array([1, 0, 1, 1, 0])
    assert np.abs(after - goal).mean() < np.abs(before - goal).mean() - 0.2


def test_fitting_leaves_the_base_model_as_it_was(toy_model: Path) -> None:
    trainer = trainer_for(toy_model)
    before = trainer.predict(None, PROMPTS, WORDS)
    fit(trainer)
    assert np.array_equal(before, trainer.predict(None, PROMPTS, WORDS))


def test_training_goes_on_from_a_student(toy_model: Path) -> None:
    trainer = trainer_for(toy_model)
    first = fit(trainer)
    further = fit(trainer, init=first, lr=1e-9)
    assert all(torch.allclose(first[name], further[name], atol=1e-6) for name in first)


def test_lora_trains_adapters_only_and_predicts_with_them(toy_model: Path) -> None:
    trainer = trainer_for(toy_model, lora_rank=4)
    before = trainer.predict(None, PROMPTS, WORDS)
    weights = fit(trainer, lr=5e-2)
    assert weights
    assert all("lora_" in name for name in weights)
    assert not np.allclose(trainer.predict(weights, PROMPTS, WORDS), before, atol=1e-3)
    assert np.array_equal(trainer.predict(None, PROMPTS, WORDS), before)


TINY = {"vocab_size": 18, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
FUSED = {"dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"}
FAMILIES = {
    "gpt2": ({"vocab_size": 18, "n_embd": 16, "n_layer": 3, "n_head": 2}, {"c_attn", "c_fc", "c_proj"}),
    "gpt_neox": (TINY | {"intermediate_size": 32}, FUSED),
    "bloom": ({"vocab_size": 18, "hidden_size": 16, "n_layer": 3, "n_head": 2}, FUSED),
    "phi3": (
        TINY | {"intermediate_size": 32, "num_key_value_heads": 1, "pad_token_id": 0},
        {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    ),
    "opt": (
        TINY | {"ffn_dim": 32, "word_embed_proj_dim": 8},  # it projects embeddings, which is no block's layer
        {"k_proj", "v_proj", "q_proj", "out_proj", "fc1", "fc2"},
    ),
    "llama": (TINY | {"intermediate_size": 32}, set(LORA_TARGETS)),
}


def write_family(folder: Path, toy_model: Path, kind: str, fields: dict[str, Any]) -> Path:
    """A model of another family, with random weights and the toy model's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(toy_model, folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, bos_token_id=None, eos_token_id=None, **fields)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", FAMILIES)
def test_lora_adapts_every_linear_layer_of_any_familys_blocks(tmp_path: Path, toy_model: Path, kind: str) -> None:
    fields, layers = FAMILIES[kind]
    a_block = len(layers) + (kind == "gpt2")  # attention and MLP each have a c_proj
    model = write_family(tmp_path / kind, toy_model, kind, fields)
    trainer = trainer_for(model, lora_rank=4)
    before = trainer.predict(None, PROMPTS, WORDS)
    alone = [trainer.predict(None, [prompt], WORDS)[0] for prompt in PROMPTS]
    assert before == pytest.approx(alone, abs=1e-6)
    weights = fit(trainer, lr=5e-2)
    adapted = {name.partition(".lora_")[0].rpartition(".")[2] for name in weights}
    assert (adapted, len(weights)) == (layers, 2 * 3 * a_block)
    assert not np.allclose(trainer.predict(weights, PROMPTS, WORDS), before, atol=1e-4)
    top = trainer_for(model, lora_rank=4, lora_layers=1).model.weights()
    assert {next(part for part in name.split(".") if part.isdigit()) for name in top} == {"2"}
    assert len(top) == 2 * a_block


def test_a_model_that_lora_does_not_fit_is_refused_with_advice(tmp_path: Path, toy_model: Path) -> None:
    fields = {"vocab_size": 18, "hidden_size": 16, "num_hidden_layers": 3, "state_size": 4}
    model = write_family(tmp_path / "mamba", toy_model, "mamba", fields)
    with pytest.raises(ConfigError, match=r"LoRA does not fit .* of type 'mamba'.*[Ss]et lora_rank to 0"):
        trainer_for(model, lora_rank=4)
    assert fit(trainer_for(model))


def test_embeddings_and_generated_text_have_one_row_a_prompt(toy_model: Path) -> None:
    trainer = trainer_for(toy_model)
    assert trainer.embed(None, PROMPTS).shape == (5, 16)
    texts = trainer.generate(None, PROMPTS, max_tokens=3, temperature=0, seed=0)
    assert len(texts) == 5
    assert trainer.generate(None, PROMPTS[:1], max_tokens=3, temperature=0, seed=1) == texts[:1]


def test_a_long_prompt_loses_its_middle_and_never_its_label_prompt(toy_model: Path) -> None:
    trainer = trainer_for(toy_model)
    long, cut = "12345678" + "9" * 30 + "7654 is odd!", "12345678" + "97654 is odd!"
    assert trainer.count_cut([long, "1 is odd"]) == 1
    tokens = cut_middle(trainer.model.encode(long), 16)
    assert len(tokens) == 16
    assert tokens[:8] == trainer.model.encode("12345678")
    assert tokens[-3:] == trainer.model.encode(" is odd!")[-3:]
    assert trainer.predict(None, [long], WORDS).shape == trainer.predict(None, [cut], WORDS).shape == (1,)


CHATML = "{% for m in messages %}<{{ m.content }}>{{ eos }}{% endfor %}{% if add_generation_prompt %}[{% endif %}"


def test_a_chat_model_gets_its_template_and_a_base_model_with_one_does_not(toy_model: Path) -> None:
    model = trainer_for(toy_model).model
    model.tokenizer.eos_token = "!"
    for end, chats in (("!", True), ("0", False)):
        model.tokenizer.chat_template = CHATML.replace("{{ eos }}", end)
        assert ends_turns(model.tokenizer) is chats
    model.tokenizer.chat_template = None
    assert not ends_turns(model.tokenizer)


def test_label_words_must_be_two_different_tokens(toy_model: Path) -> None:
    trainer = trainer_for(toy_model)
    for words, error in (
        ((" no", " no"), "one token for both of"),
        ((" no", "12"), "no single token for '12'"),
        (("", " yes"), "no single token for ''"),
    ):
        with pytest.raises(InvalidInputError, match=f"'{toy_model}' has {error}"):
            trainer.predict(None, PROMPTS, words)


def test_a_model_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load the model"):
        LabelModel(str(tmp_path), FineTuning(epochs=1, lr=1e-3))


def test_logconf_is_a_mixture_of_weak_labels_and_own_hardened_opinion() -> None:
    log_probs = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]).log()
    targets = torch.tensor([0.0, 0.0, 1.0])
    own = torch.tensor([1.0, 0.0, 0.0])  # above the median margin, at it, below it
    loss = logconf(alpha=0.5, warmup=0.5)
    assert torch.allclose(loss(log_probs, targets, 0.0), xent(log_probs, targets, 0.0))
    half = 0.75 * xent(log_probs, targets, 0) + 0.25 * xent(log_probs, own, 0)
    assert torch.allclose(loss(log_probs, targets, 0.25), half)
    full = 0.5 * xent(log_probs, targets, 0) + 0.5 * xent(log_probs, own, 0)
    assert torch.allclose(loss(log_probs, targets, 1.0), full)


def test_an_unknown_loss_is_named_with_those_that_exist() -> None:
    with pytest.raises(InvalidInputError, match="no loss 'mystery'; there are xent, logconf"):
        named_loss("mystery")
    with pytest.raises(InvalidInputError, match="no loss \\['xent'\\]"):
        named_loss(["xent"])


def test_students_cross_as_safetensors_and_come_back_equal(toy_model: Path, tmp_path: Path) -> None:
    weights = fit(trainer_for(toy_model))
    save_students(tmp_path, [weights, weights])
    blobs = read_students(tmp_path, max_bytes=10**6)
    assert len(blobs) == 2
    restored, digest = parse_student(blobs[0])
    assert len(digest) == 64
    assert all(torch.equal(weights[name], restored[name]) for name in weights)


def test_files_that_are_not_plain_safetensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not a safetensors file"):
        parse_student(b"\x80\x04\x95pickle")
    (tmp_path / "student-0.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(PermissionDeniedError, match="is a symlink"):
        read_students(tmp_path, max_bytes=100)
    (tmp_path / "student-0.safetensors").unlink()
    (tmp_path / "student-0.safetensors").write_bytes(b"x" * 101)
    with pytest.raises(InvalidInputError, match="larger than 100 bytes"):
        read_students(tmp_path, max_bytes=100)


def test_the_task_card_names_words_that_the_toy_model_knows(card: TaskCard, toy_model: Path) -> None:
    assert trainer_for(toy_model).model.word_ids(card.label_words)
