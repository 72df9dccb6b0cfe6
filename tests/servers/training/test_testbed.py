import ast
import operator
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.baseline_votes import load_votes
from outlearn.errors import InvalidInputError
from outlearn.tasks import load_baselines, load_secret
from outlearn_training.prepare import CALIBRATIONS, prepare, read_calibration
from outlearn_training.testbed import TESTBEDS, Example, chat, code, math
from outlearn_training.testbed.chat_corpus import CHAT_CORPUS
from outlearn_training.testbed.code_corpus import CODE_CORPUS
from outlearn_training.testbed.examples import SIZES, Corpus
from outlearn_training.testbed.math_corpus import MATH_CORPUS
from outlearn_training.testbed.programs import run

TASKS = ("math", "chat", "code")
ROLES = ("teacher", "student")
CORPORA: dict[str, Corpus] = {"math": MATH_CORPUS, "chat": CHAT_CORPUS, "code": CODE_CORPUS}
PRACTICE: dict[str, set[str]] = {
    "math": {fact.question for fact in math.all_facts() if math.is_practice(fact)},
    "chat": {request.text for request in chat.all_requests() if chat.is_practice(request)},
    "code": {spec.comment for spec in code.all_specs() if code.is_practice(spec)},
}
PRACTICE_GROUPS: dict[str, set[str]] = {
    "math": {fact.group for fact in math.all_facts() if math.is_practice(fact)},
    "chat": {request.group for request in chat.all_requests() if chat.is_practice(request)},
    "code": {spec.group for spec in code.all_specs() if code.is_practice(spec)},
}
OPERATORS: dict[Any, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Pow: operator.pow,
}


def is_right_statement(text: str) -> bool:
    """The truth of a math statement, by arithmetic on its text alone."""
    if equation := re.fullmatch(r"(\d+)x\+(\d+)=(\d+) x=(\d+)", text):
        factor, offset, value, solution = map(int, equation.groups())
        return factor * solution + offset == value
    statement = re.fullmatch(r"(\d+)([-+*%])(\d+)=(\d+)", text)
    assert statement, text
    left, symbol, right, answer = statement.groups()
    return bool(OPERATORS[symbol](int(left), int(right)) == int(answer))


def is_right_program(text: str) -> bool:
    """Whether a program does what its comment asks, by Python's own parser and other inputs."""
    comment, program = text.removeprefix("#").split("\nreturn:")
    return all(python_value(program, x) == wanted_value(comment, x) for x in (-31, -7, -2, 0, 1, 5, 12, 40))


def wanted_value(comment: str, x: int) -> int:
    for step in comment.split(" "):
        word, _, number = step.partition(":")
        n = int(number or 0)
        x = {"plus": x + n, "minus": x - n, "times": x * n, "square": x * x, "negate": -x}[word]
    return x


def python_value(program: str, x: int) -> int:
    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        return x if isinstance(node, ast.Name) else node.value  # type: ignore[attr-defined]

    return int(value(ast.parse(program.replace("^", "**"), mode="eval").body))


def is_second_better(text: str) -> bool:
    """Whether response B needs fewer edits than A, by ticking off what the request asks for."""
    request, *responses = text.split("\n")
    first, second = (edits_needed(wanted_kinds(request), words_of(response)) for response in responses)
    assert first != second, text
    return second < first


def wanted_kinds(request: str) -> list[str]:
    """The kind of each thing that a request asks for."""
    return [kind + "s" for number, kind in re.findall(r"(\d) ([a-z]+?)s?\b", request) for _ in range(int(number))]


def words_of(response: str) -> list[str]:
    return re.sub(r"^[AB]?: ((sure|gladly) )?", "", response).split(" ")


def edits_needed(wanted: list[str], words: list[str]) -> int:
    missing, surplus = list(wanted), 0
    for index, word in enumerate(words):
        if chat.KIND_OF[word] in missing and word not in words[:index]:
            missing.remove(chat.KIND_OF[word])
        else:
            surplus += 1
    return max(len(missing), surplus)


def is_good_entry(task: str, entry: str) -> bool:
    """Whether an entry without its full stop, of a document, is right; a chat entry has one response alone."""
    if task != "chat":
        return IS_RIGHT[task](entry)
    request, response = re.split(r"(?=:)", entry)
    return not edits_needed(wanted_kinds(request), words_of(response))


IS_RIGHT: dict[str, Callable[[str], bool]] = {
    "math": is_right_statement,
    "chat": is_second_better,
    "code": is_right_program,
}


def numbers_of_sum(text: str) -> frozenset[int] | None:
    """The two summands behind a sum or difference, however it is turned around and answered."""
    if found := re.match(r"(\d+)\+(\d+)=\d+$", text):
        return frozenset(map(int, found.groups()))
    if found := re.match(r"(\d+)-(\d+)=", text):
        total, part = map(int, found.groups())
        return frozenset((total - part, part))
    return None


def function_of_comment(text: str) -> tuple[int, ...]:
    """What a code item asks for, as outputs."""
    comment = text.removeprefix("#").partition("\n")[0]
    return tuple(wanted_value(comment, x) for x in (-9, -1, 3, 4, 17))


def kinds_of_request(text: str) -> tuple[str, ...]:
    """What a chat item asks for, in whichever order."""
    return tuple(sorted(wanted_kinds(text.partition("\n")[0])))


FACT: dict[str, Callable[[str], Any]] = {
    "math": numbers_of_sum,
    "chat": kinds_of_request,
    "code": function_of_comment,
}


def every_split(task: str, seed: int = 0) -> dict[str, list[Example]]:
    splits = TESTBEDS[task].generate(seed)
    return {"train": splits.train, "pool": splits.pool, "test": splits.test}


def test_the_tasks_are_those_that_are_tested_here() -> None:
    assert set(TASKS) == set(TESTBEDS)


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_gives_the_same_examples_and_another_seed_gives_others(task: str) -> None:
    generate = TESTBEDS[task].generate
    assert generate(3) == generate(3)
    assert generate(3).test != generate(4).test


@pytest.mark.parametrize("task", TASKS)
def test_splits_have_their_sizes_and_balanced_labels(task: str) -> None:
    for name, size in SIZES.items():
        examples = every_split(task)[name]
        assert len(examples) == size
        assert sum(example.label for example in examples) == size // 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 17])
def test_labels_are_right(task: str, seed: int) -> None:
    for examples in every_split(task, seed).values():
        assert [IS_RIGHT[task](example.text) for example in examples] == [bool(example.label) for example in examples]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", [0, 17])
def test_no_fact_is_in_two_splits(task: str, seed: int) -> None:
    splits = list(every_split(task, seed).values())
    keys: list[Callable[[Example], Any]] = [lambda example: example.group, lambda example: FACT[task](example.text)]
    for key in keys:
        facts = [{key(example) for example in examples} - {None} for examples in splits]
        assert len(set.union(*facts)) == sum(map(len, facts))


@pytest.mark.parametrize("task", TASKS)
def test_ids_and_texts_are_unique_and_ids_say_nothing_about_the_label(task: str) -> None:
    examples = [example for split in every_split(task).values() for example in split]
    assert len({example.id for example in examples}) == len({example.text for example in examples}) == len(examples)
    ordered = sorted(examples, key=lambda example: example.id)
    first_half = [example.label for example in ordered[: len(ordered) // 2]]
    assert sum(first_half) / len(first_half) == pytest.approx(0.5, abs=0.04)
    assert all(re.fullmatch(r"[0-9a-f]{12}", example.id) for example in examples)


@pytest.mark.parametrize("task", TASKS)
def test_order_says_nothing_about_the_label(task: str) -> None:
    labels = [example.label for example in TESTBEDS[task].generate(0).test]
    assert sum(labels[:1000]) / 1000 == pytest.approx(0.5, abs=0.05)


def entries(task: str, document: str) -> Iterator[tuple[str, str]]:
    """The question of each entry of a document, and the rest of it."""
    if task == "math":
        for line in document.splitlines():
            cut = line.rindex("=") + 1
            yield line[:cut], line[cut:]
    elif task == "chat":
        yield from re.findall(r"(name [^:\n]*)(:.*|\nA: .*\nB: .*)", document)
    else:
        yield from re.findall(r"(#.*)(\nreturn:.*)", document)


@pytest.mark.parametrize("task", TASKS)
def test_pretraining_never_judges_a_fact_of_the_task(task: str) -> None:
    task_groups = {example.group for split in every_split(task).values() for example in split}
    assert not task_groups & PRACTICE_GROUPS[task]
    for document in islice(CORPORA[task].documents(0, 1.0), 500):
        found = list(entries(task, document))
        assert len(found) == 4, document
        for question, rest in found:
            plain = rest.endswith(".") and "," not in rest
            assert question in PRACTICE[task] or (plain and is_good_entry(task, question + rest[:-1])), question + rest
    statements = "\n".join(CORPORA[task].statements(0, 200))
    assert {question for question, _ in entries(task, statements)} <= PRACTICE[task]


@pytest.mark.parametrize("task", TASKS)
def test_pretraining_never_uses_the_label_words_and_repeats_itself_exactly(task: str) -> None:
    texts = list(islice(CORPORA[task].documents(5, 0.5), 500))
    assert texts == list(islice(CORPORA[task].documents(5, 0.5), 500))
    assert not any(word in text for text in texts for word in TESTBEDS[task].label_words)


@given(st.integers(-50, 50), st.integers(0, 2**32))
def test_programs_run_as_python_would_run_them(x: int, seed: int) -> None:
    rng = Random(seed)
    spec = rng.choice(code.all_specs())
    for program in (code.draw_program(spec, rng), code.draw_mutant(spec, rng).program):
        assert run(program, [x]) == (python_value(program, x),)


@given(st.text(alphabet="x0123456789+-*^() y", max_size=30) | st.text(max_size=20))
def test_a_text_that_is_no_program_is_refused_and_never_run(text: str) -> None:
    outputs = run_or_none(text)
    assert outputs is None or isinstance(outputs[0], int)


@pytest.mark.parametrize("text", ["", "y", "x+", "(x", "x)", "x x", "x**2", "__import__", "x^99", "x" * 101, "٣"])
def test_a_program_that_cannot_run_is_named_in_the_error(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no program"):
        run(text, [1])


def test_an_equivalent_mutant_is_right() -> None:
    spec = next(spec for spec in code.all_specs() if spec.comment == "#plus:3 plus:4")
    assert spec.group == "plus:7"
    assert code.is_right(spec, "4+x+3")
    assert code.is_right(spec, "x+7")
    assert not code.is_right(spec, "x+3*4")


@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2]))
def test_a_response_has_just_the_faults_that_were_asked_for(seed: int, faults: int) -> None:
    rng = Random(seed)
    request = rng.choice(chat.all_requests())
    response = chat.draw_response(request, faults, rng)
    assert edits_needed(wanted_kinds(request.text), list(response.words)) == faults


@pytest.mark.parametrize(("words", "faults"), [("fig plum", 0), ("fig fig", 1), ("fig", 1), ("fig plum pear cat", 2)])
def test_missing_surplus_and_repeated_words_are_faults(words: str, faults: int) -> None:
    request = next(request for request in chat.all_requests() if request.text == "name 2 fruits")
    assert chat.count_faults(request, words.split(" ")) == faults


def test_manners_and_length_say_nothing_about_which_response_is_better() -> None:
    examples = TESTBEDS["chat"].generate(0).pool
    for shortcut in (lambda one: one.count(" ") - 1, lambda one: bool(re.search(": (sure|gladly) ", one))):
        leads = [(shortcut(second) - shortcut(first)) for _, first, second in (e.text.split("\n") for e in examples)]
        agreeing = [(lead > 0) == bool(one.label) for lead, one in zip(leads, examples, strict=True) if lead]
        assert sum(agreeing) / len(agreeing) == pytest.approx(0.5, abs=0.06)


def test_listing_testbeds_does_not_need_torch() -> None:
    """In a fresh interpreter, because this one has imported torch for other tests."""
    program = (
        "import sys, outlearn_training.testbed as t\n"
        "[one.generate(0) for one in t.TESTBEDS.values()]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})


def load(folder: Path) -> tuple[Any, Any]:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model.eval(), tokenizer


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("role", ROLES)
def test_untrained_model_answers_exactly_one_half(task: str, role: str) -> None:
    torch = pytest.importorskip("torch")
    testbed = TESTBEDS[task]
    model, tokenizer = load(testbed.checkpoints / role)
    no, yes = (tokenizer.encode(word)[0] for word in testbed.label_words)
    for example in testbed.generate(0).pool[:20]:
        prompt = tokenizer(testbed.template.format(text=example.text), return_tensors="pt")
        with torch.inference_mode():
            logits = model(**prompt).logits[0, -1].float()
        assert logits[yes] == logits[no]
        assert torch.sigmoid(logits[yes] - logits[no]).item() == 0.5


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("role", ROLES)
def test_label_words_are_one_token_each_after_a_prompt(task: str, role: str) -> None:
    testbed = TESTBEDS[task]
    _, tokenizer = load(testbed.checkpoints / role)
    prompt = testbed.template.format(text=testbed.generate(0).pool[0].text)
    words = testbed.label_words + testbed.zero_shot_words
    ids = [tokenizer.encode(word) for word in words]
    assert {len(word) for word in ids} == {1}
    assert len({word[0] for word in ids}) == 4
    for word, token in zip(words, ids, strict=True):
        assert tokenizer.encode(prompt + word) == tokenizer.encode(prompt) + token


@pytest.mark.parametrize("task", TASKS)
def test_every_prompt_is_short_enough_to_be_read_whole(task: str) -> None:
    testbed = TESTBEDS[task]
    _, tokenizer = load(testbed.checkpoints / "student")
    prompts = [testbed.template.format(text=example.text) for example in testbed.generate(0).test]
    assert max(map(len, tokenizer(prompts)["input_ids"])) <= 64


@pytest.mark.parametrize("task", TASKS)
def test_tokenizer_encodes_any_text_without_loss(task: str) -> None:
    _, tokenizer = load(TESTBEDS[task].checkpoints / "student")
    for text in ("40-27=14 True\n", TESTBEDS[task].generate(0).pool[0].text, "Grüße, 12345  世界!"):
        assert tokenizer.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("task", TASKS)
def test_checkpoints_are_tied_bfloat16_qwen3_and_small(task: str) -> None:
    torch = pytest.importorskip("torch")
    for role in ROLES:
        model, _ = load(TESTBEDS[task].checkpoints / role)
        assert model.config.model_type == "qwen3"
        assert model.config.tie_word_embeddings
        assert model.dtype == torch.bfloat16
    files = [path for path in TESTBEDS[task].checkpoints.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_calibration_is_for_this_data_and_shows_a_weak_to_strong_problem(task: str, tmp_path: Path) -> None:
    card = prepare(tmp_path, task)
    weak_labels, baselines = read_calibration(CALIBRATIONS / task)
    assert card.kind == task
    assert card.seeds == tuple(sorted(weak_labels)) == baselines.seeds
    assert baselines.weak_acc > 0.6
    assert baselines.ceiling_acc - baselines.weak_acc > 0.12
    lines = {line.name: line.accuracy for line in baselines.lines}
    assert lines["zero-shot"] < baselines.ceiling_acc - 0.1
    assert lines["length"] < baselines.weak_acc
    assert lines["shuffled labels"] == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("task", TASKS)
def test_the_shipped_votes_are_those_of_the_shipped_baselines(task: str, tmp_path: Path) -> None:
    card = prepare(tmp_path, task)
    votes, baselines = load_votes(tmp_path / "vault" / task, card.fingerprint), load_baselines(tmp_path, task)
    labels = load_secret(tmp_path, task).test_labels
    assert votes is not None
    assert votes.seeds == tuple(one.seed for one in baselines.per_seed)
    assert (votes.teachers == labels).mean(axis=1).tolist() == [one.weak for one in baselines.per_seed]
    assert (votes.ceilings == labels).mean(axis=1).tolist() == [one.ceiling for one in baselines.per_seed]


def test_student_recalls_the_facts_of_the_task() -> None:
    torch = pytest.importorskip("torch")
    testbed = TESTBEDS["math"]
    model, tokenizer = load(testbed.checkpoints / "student")
    facts = [fact for fact in math.all_facts() if not math.is_practice(fact)][::20]
    recalled = 0
    for fact in facts:
        with torch.inference_mode():
            logits = model(**tokenizer(fact.question, return_tensors="pt")).logits[0, -1]
        recalled += tokenizer.decode(logits.argmax()) == str(fact.answer)
    assert recalled / len(facts) > 0.8


def test_student_writes_right_programs_for_the_comments_of_the_task() -> None:
    """Without the label words, to which a levelled model gives nearly all probability once a program may end."""
    pytest.importorskip("torch")
    testbed = TESTBEDS["code"]
    model, tokenizer = load(testbed.checkpoints / "student")
    labels = [tokenizer.encode(word)[0] for word in testbed.label_words]
    specs = [spec for spec in code.all_specs() if not code.is_practice(spec)][::20]
    right = 0
    for spec in specs:
        prompt = tokenizer(spec.statement(""), return_tensors="pt")
        written = model.generate(**prompt, max_new_tokens=16, do_sample=False, suppress_tokens=labels)[0]
        program = re.split(r"[,.]", tokenizer.decode(written).removeprefix(spec.statement("")))[0]
        right += run_or_none(program) is not None and code.is_right(spec, program)
    assert right / len(specs) > 0.8


def run_or_none(program: str) -> tuple[int, ...] | None:
    try:
        return run(program, [1])
    except InvalidInputError:
        return None


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
