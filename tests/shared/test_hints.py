"""What error messages say of an input and of the command that mends it."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, field_validator

from outlearn.hints import command_line, problems


class Wanted(BaseModel):
    size: int = Field(ge=1)
    name: str = ""
    parts: list[int] = []

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 3:
            raise ValueError("Three letters at most")
        return name


def said(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Wanted.model_validate(values)
    return problems(caught.value)


def test_what_is_wrong_is_said_field_by_field_in_plain_words() -> None:
    assert said(size=0, name="long") == "size: must be greater than or equal to 1; name: three letters at most"
    assert said() == "size: field required"
    assert said(size="x") == said(size=1.5) == "size: must be a whole number"
    many = said(size=1, parts=["x"] * 9)
    assert many.count("parts.") == 5
    assert many.endswith("; and 4 more")


@given(st.lists(st.text(min_size=1), min_size=1))
def test_a_command_can_be_copied_into_a_shell_whatever_is_in_it(words: list[str]) -> None:
    assert shlex.split(command_line(*words)) == words


def test_a_path_with_spaces_is_quoted() -> None:
    assert command_line("outlearn", "team", Path("my runs")) == "outlearn team 'my runs'"
