"""Pages and cursors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from outlearn.errors import InvalidInputError
from outlearn.paging import cut_text, fit_page, make_cursor, read_cursor


class Note(BaseModel):
    text: str


@given(st.lists(st.text(max_size=50).map(lambda text: Note(text=text)), max_size=20), st.integers(0, 500))
def test_a_page_is_the_longest_beginning_that_fits_but_never_empty(notes: list[Note], max_bytes: int) -> None:
    page = fit_page(iter(notes), max_bytes=max_bytes)
    sizes = [len(note.model_dump_json().encode()) for note in notes]
    assert page == notes[: len(page)]
    assert len(page) >= min(1, len(notes))
    assert len(page) <= 1 or sum(sizes[: len(page)]) <= max_bytes
    assert len(page) == len(notes) or sum(sizes[: len(page) + 1]) > max_bytes


@given(st.lists(st.integers(-(10**12), 10**12), max_size=3))
def test_cursors_come_back_as_they_were_made(numbers: list[int]) -> None:
    forms = {"top": len(numbers), "other": 9}
    assert read_cursor(make_cursor("top", *numbers), forms) == ("top", tuple(numbers))


@given(st.text(max_size=30))
def test_any_other_text_is_refused_as_a_cursor(text: str) -> None:
    with pytest.raises(InvalidInputError, match="no cursor here"):
        read_cursor("x" + text, {"before": 1, "top": 2})


@given(st.text(max_size=50), st.integers(0, 60))
def test_text_is_cut_between_characters(text: str, max_bytes: int) -> None:
    cut = cut_text(text, max_bytes)
    assert cut == text or (cut.endswith("…") and text.startswith(cut[:-1]) and len(cut[:-1].encode()) <= max_bytes)
