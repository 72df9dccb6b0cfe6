import operator
import re
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from outlearn_training.testbed import TESTBEDS, Example
from outlearn_training.testbed.math import all_facts, generate, is_practice
from outlearn_training.testbed.math_corpus import documents, statements

ROLES = ("teacher", "student")
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod}


def is_right(text: str) -> bool:
    """The truth of a statement, by arithmetic on its text alone."""
    if equation := re.fullmatch(r"(\d+)x\+(\d+)=(\d+) x=(\d+)", text):
        factor, offset, value, solution = map(int, equation.groups())
        return factor * solution + offset == value
    statement = re.fullmatch(r"(\d+)([-+*%])(\d+)=(\d+)", text)
    assert statement, text
    left, symbol, right, answer = statement.groups()
    return bool(OPERATORS[symbol](int(left), int(right)) == int(answer))


def numbers_of_sum(text: str) -> frozenset[int] | None:
    """The two summands behind a sum or difference, however it is turned around and answered."""
    if found := re.match(r"(\d+)\+(\d+)=\d+$", text):
        return frozenset(map(int, found.groups()))
    if found := re.match(r"(\d+)-(\d+)=", text):
        total, part = map(int, found.groups())
        return frozenset((total - part, part))
    return None


def every_split(seed: int = 0) -> dict[str, list[Example]]:
    splits = generate(seed)
    return {"train": splits.train, "pool": splits.pool, "test": splits.test}


def test_same_seed_gives_the_same_examples_and_another_seed_gives_others() -> None:
    assert generate(3) == generate(3)
    assert generate(3).test != generate(4).test


def test_splits_have_their_sizes_and_balanced_labels() -> None:
    for name, size in {"train": 300, "pool": 2000, "test": 2000}.items():
        examples = every_split()[name]
        assert len(examples) == size
        assert sum(example.label for example in examples) == size // 2


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_labels_are_right(seed: int) -> None:
    for examples in every_split(seed).values():
        assert [is_right(example.text) for example in examples] == [bool(example.label) for example in examples]


@pytest.mark.parametrize("seed", [0, 1, 17])
def test_no_fact_is_in_two_splits(seed: int) -> None:
    splits = list(every_split(seed).values())
    for key in (lambda example: example.group, lambda example: numbers_of_sum(example.text)):
        facts = [{key(example) for example in examples} - {None} for examples in splits]
        assert len(set.union(*facts)) == sum(map(len, facts))


def test_ids_and_texts_are_unique_and_ids_say_nothing_about_the_label() -> None:
    examples = [example for split in every_split().values() for example in split]
    assert len({example.id for example in examples}) == len({example.text for example in examples}) == len(examples)
    ordered = sorted(examples, key=lambda example: example.id)
    first_half = [example.label for example in ordered[: len(ordered) // 2]]
    assert sum(first_half) / len(first_half) == pytest.approx(0.5, abs=0.04)
    assert all(re.fullmatch(r"[0-9a-f]{12}", example.id) for example in examples)


def test_order_says_nothing_about_the_label() -> None:
    labels = [example.label for example in generate(0).test]
    assert sum(labels[:1000]) / 1000 == pytest.approx(0.5, abs=0.05)


def test_pretraining_never_judges_a_fact_of_the_task() -> None:
    practice = {fact.question for fact in all_facts() if is_practice(fact)}
    task_groups = {example.group for split in every_split().values() for example in split}
    assert not task_groups & {fact.group for fact in all_facts() if is_practice(fact)}
    for document in islice(documents(0, 1.0), 1000):
        for line in document.splitlines():
            question = line[: line.rindex("=") + 1]
            assert question in practice or (line.endswith(".") and is_right(line[:-1])), line
    assert all(text[: text.rindex("=") + 1] in practice for text in statements(0, 200))


def test_pretraining_never_uses_the_label_words_and_repeats_itself_exactly() -> None:
    texts = list(islice(documents(5, 0.5), 500))
    assert texts == list(islice(documents(5, 0.5), 500))
    assert not any(word in text for text in texts for word in TESTBEDS["math"].label_words)


def test_listing_testbeds_does_not_need_torch() -> None:
    """In a fresh interpreter, because this one has imported torch for other tests."""
    code = (
        "import sys, outlearn_training.testbed as t; t.TESTBEDS['math'].generate(0); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def load(folder: Path) -> tuple[Any, Any]:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model.eval(), tokenizer


@pytest.mark.parametrize("role", ROLES)
def test_untrained_model_answers_exactly_one_half(role: str) -> None:
    torch = pytest.importorskip("torch")
    testbed = TESTBEDS["math"]
    model, tokenizer = load(testbed.checkpoints / role)
    no, yes = (tokenizer.encode(word)[0] for word in testbed.label_words)
    for example in testbed.generate(0).pool[:20]:
        prompt = tokenizer(testbed.template.format(text=example.text), return_tensors="pt")
        with torch.inference_mode():
            logits = model(**prompt).logits[0, -1].float()
        assert logits[yes] == logits[no]
        assert torch.sigmoid(logits[yes] - logits[no]).item() == 0.5


@pytest.mark.parametrize("role", ROLES)
def test_label_words_are_one_token_each_after_a_prompt(role: str) -> None:
    testbed = TESTBEDS["math"]
    _, tokenizer = load(testbed.checkpoints / role)
    prompt = testbed.template.format(text="40-27=14")
    words = testbed.label_words + testbed.zero_shot_words
    ids = [tokenizer.encode(word) for word in words]
    assert {len(word) for word in ids} == {1}
    assert len({word[0] for word in ids}) == 4
    for word, token in zip(words, ids, strict=True):
        assert tokenizer.encode(prompt + word) == tokenizer.encode(prompt) + token


def test_tokenizer_encodes_any_text_without_loss() -> None:
    _, tokenizer = load(TESTBEDS["math"].checkpoints / "student")
    for text in ("40-27=14 True\n", "3x+1=13 x=4", "Grüße, 12345  世界!"):
        assert tokenizer.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


def test_checkpoints_are_tied_bfloat16_qwen3_and_small() -> None:
    torch = pytest.importorskip("torch")
    for role in ROLES:
        model, _ = load(TESTBEDS["math"].checkpoints / role)
        assert model.config.model_type == "qwen3"
        assert model.config.tie_word_embeddings
        assert model.dtype == torch.bfloat16
    files = [path for path in TESTBEDS["math"].checkpoints.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000


def test_student_recalls_the_facts_of_the_task() -> None:
    torch = pytest.importorskip("torch")
    testbed = TESTBEDS["math"]
    model, tokenizer = load(testbed.checkpoints / "student")
    facts = [fact for fact in all_facts() if not is_practice(fact)][::20]
    recalled = 0
    for fact in facts:
        with torch.inference_mode():
            logits = model(**tokenizer(fact.question, return_tensors="pt")).logits[0, -1]
        recalled += tokenizer.decode(logits.argmax()) == str(fact.answer)
    assert recalled / len(facts) > 0.8


def test_rescaling_keeps_the_function() -> None:
    torch = pytest.importorskip("torch")
    from outlearn_training.testbed.prepare import rescale

    model, tokenizer = load(TESTBEDS["math"].checkpoints / "teacher")
    prompt = tokenizer("40-27=14", return_tensors="pt")
    with torch.inference_mode():
        before = model.float()(**prompt).logits
        rescale(model, stiffness=0.25, gain=0.25)
        after = model(**prompt).logits
    torch.testing.assert_close(before, after, atol=0.02, rtol=0.001)
