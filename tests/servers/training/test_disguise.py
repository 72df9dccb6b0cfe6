"""Methods that meet other digits than the model does, and their students, which are the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from outlearn.final_answer import final_answer
from outlearn.tasks import Item, load_public
from outlearn_training.catalogue import find_method, methods
from outlearn_training.fast.trainer import student_trainer
from outlearn_training.lab import Lab
from outlearn_training.sandbox.canary import Canary
from outlearn_training.sandbox.disguise import DIGITS, Disguise, read_digits, write_digits
from outlearn_training.sandbox.host import run_method
from outlearn_training.trainer import PlainTrainer

OTHER = "359728461"
Labs = Callable[..., list[Lab]]


@pytest.fixture
def labs(home: Path) -> Labs:
    """Labs of one task: as it is, and with other digits."""

    def make(canary: Canary | None = None, texts: str = "{} is odd", **card: object) -> list[Lab]:
        task = load_public(home, "toy")
        pool = tuple(item.model_copy(update={"text": texts.format(n)}) for n, item in enumerate(task.pool))
        task = task.model_copy(update={"pool": pool, "card": task.card.model_copy(update=card)})
        trainer, disguise = student_trainer(task.card), Disguise(OTHER)
        shown = task.model_copy(update={"pool": tuple(map(disguise.item, pool))})
        return [
            Lab(task, trainer, 0, lambda event: None),
            Lab(shown, trainer, 0, lambda event: None, canary, disguise),
        ]

    return make


@given(st.permutations(DIGITS), st.text(st.sampled_from("0123456789+=.x٣ ")))
def test_a_disguise_comes_off_and_leaves_0_and_all_but_digits_alone(order: list[str], text: str) -> None:
    disguise = Disguise("".join(order))
    shown = disguise.put_on(text)
    assert disguise.take_off(shown) == text
    assert [one for one in shown if one not in DIGITS] == [one for one in text if one not in DIGITS]
    assert len(shown) == len(text)


@given(st.permutations(DIGITS), st.integers(0, 10**6), st.integers(0, 10**6))
def test_numbers_are_equal_in_a_disguise_where_they_were_and_none_begins_with_0(
    order: list[str], one: int, other: int
) -> None:
    disguise = Disguise("".join(order))
    first, second, grouped = (disguise.put_on(text) for text in (str(one), f"{other}.0", f"{one:,}"))
    assert first == str(int(first))
    answers = [final_answer(text) for text in (first, second, grouped)]
    values = [answer and answer.value for answer in answers]
    assert (values[0] == values[1]) == (one == other)
    assert values[0] == values[2]


@pytest.mark.parametrize("name", sorted(methods()))
def test_each_built_in_method_gives_the_students_that_it_gives_without_a_disguise(name: str, labs: Labs) -> None:
    method = find_method(name)
    for kind, canary in (("math", None), ("code", Canary())):
        plain, disguised = (
            [student.predict() for student in run_method(method.info.source, method.check_params({}), 0, lab)]
            for lab in labs(canary, "#{0} is odd\nreturn:{0}", kind=kind)
        )
        assert np.array_equal(plain, disguised)


def test_a_lab_shows_items_and_what_was_generated_with_other_digits_and_the_model_never_meets_them(
    labs: Labs, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def generate(_: PlainTrainer, student: None, prompts: list[str], **how: object) -> list[str]:
        asked.extend(prompts)
        return [f"it is {prompt}" for prompt in prompts]

    monkeypatch.setattr(PlainTrainer, "generate", generate)
    _, lab = labs()
    assert (lab.pool[12].text, lab.pool[12].id, lab.pool[12].group) == ("35 is odd", "p35", "g35")
    said = lab.generate([f"{lab.pool[12].text}, {lab.pool[40].text}?"])
    assert (asked, said) == (["12 is odd, 40 is odd?"], ["it is 35 is odd, 70 is odd?"])


def test_canaries_stand_in_a_disguise_and_are_taken_out_before_it_comes_off(labs: Labs) -> None:
    canary = Canary()
    plain, lab = labs(canary, "#{0}\nreturn:{0}", kind="code")
    assert any(canary.event in item.text for item in lab.pool)
    assert (lab.zero_shot() == plain.zero_shot()).all()
    assert (lab.embed() == plain.embed()).all()


def test_digits_of_a_tasks_template_and_words_are_met_by_the_model_as_they_are(labs: Labs) -> None:
    plain, lab = labs(template="1: {text} 2", label_words=("1", "2"), zero_shot_words=("3", "4"))
    assert (lab.task.template, lab.task.zero_shot_words) == ("3: {text} 5", ("9", "7"))
    assert (lab.zero_shot() == plain.zero_shot()).all()
    students = [one.fit(one.weak_labels()).predict() for one in (plain, lab)]
    assert (students[0] == students[1]).all()
    before, after = lab.task.template.split("{text}")
    shown = Item(id="x", text=f"{lab.pool[0].text}{after}{lab.task.label_words[1]}\n{before}", group="g")
    same = Item(id="x", text=f"{plain.pool[0].text} 22\n1: ", group="g")
    assert lab.zero_shot([shown]) == plain.zero_shot([same])


def test_a_home_has_no_disguise_unless_one_was_written(home: Path) -> None:
    assert read_digits(home, "toy") is None
    write_digits(home, "toy", OTHER)
    assert read_digits(home, "toy") == OTHER
