"""Profiles: shipped ones, one's own, and changes of single fields."""

from pathlib import Path

import pytest

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.tasks import FineTuning
from outlearn_training.prepare import tiny_task
from outlearn_training.profiles import Profile, choose_profile, load_profile, profile_fields, profile_names


def test_every_shipped_profile_loads_and_an_unknown_one_names_them() -> None:
    assert [load_profile(name).max_tokens > 0 for name in profile_names()] == [True] * 3
    with pytest.raises(NotFoundError, match="'huge'; there are paper, smol, tiny"):
        load_profile("huge")


def test_every_field_can_be_changed_by_text_as_on_the_command_line() -> None:
    changes = {"teacher": "mine", "student_tuning.lr": "1e-4", "teacher_tuning.batch_size": "8", "max_tokens": "99"}
    profile = load_profile("tiny", changes)
    assert (profile.teacher, profile.student, profile.max_tokens) == ("mine", "tiny/math/student", 99)
    assert (profile.student_tuning.lr, profile.teacher_tuning.batch_size) == (1e-4, 8)
    for field in FineTuning.model_fields:
        assert f"student_tuning.{field}" in profile_fields()
        value = getattr(profile.student_tuning, field)
        assert load_profile("tiny", changes | {f"student_tuning.{field}": str(value)}) == profile


@pytest.mark.parametrize("key", ["student_tuning.rate", "student_tuning", "lr", "", ".", "teacher.lr", "a.b.c"])
def test_a_field_that_is_none_is_refused_with_those_there_are(key: str) -> None:
    with pytest.raises(InvalidInputError, match=r"is not a field .*teacher, .*student_tuning\.lr") as refused:
        load_profile("tiny", {key: "1"})
    assert repr(key) in str(refused.value)


def test_an_impossible_value_is_named_with_its_field() -> None:
    with pytest.raises(InvalidInputError, match=r"student_tuning\.lr: .* not 'fast'") as refused:
        load_profile("tiny", {"student_tuning.lr": "fast"})
    assert "\n" not in str(refused.value)


def test_ones_own_file_is_a_profile_and_a_wrong_one_says_why(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (Path(__file__).parents[3] / "servers/training/outlearn_training/profiles/smol.toml").read_text()
    path.write_text(text)
    assert load_profile(str(path)) == load_profile("smol")
    path.write_text("teacher_tuning = 3\nmax_tokens = 5\n")
    with pytest.raises(InvalidInputError, match=r"student: Field required.*teacher_tuning: "):
        load_profile(str(path), {"teacher_tuning.lr": "1"})
    path.write_text("teacher = ")
    with pytest.raises(InvalidInputError, match="is no TOML"):
        load_profile(str(path))


def test_a_card_gets_another_profile_or_changes_of_its_own() -> None:
    card, _, _ = tiny_task("math")
    assert choose_profile(card) == card
    changed = choose_profile(card, None, {"student_tuning.lr": "0.5"})
    assert changed.student_tuning.lr == 0.5
    assert changed == card.model_copy(update={"student_tuning": changed.student_tuning})
    other = choose_profile(card, "smol", {"max_tokens": "77"})
    assert Profile.model_validate(other.model_dump(include=set(Profile.model_fields))) == load_profile(
        "smol", {"max_tokens": 77}
    )
    assert (other.name, other.template) == (card.name, card.template)
