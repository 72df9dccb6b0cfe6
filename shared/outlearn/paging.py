"""Pages that fit an agent's context: bounded in bytes, continued by short cursors that are checked on return."""

import re
from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel

from outlearn.errors import InvalidInputError

# clients cut results at 25,000 tokens; ASCII is about four bytes a token, emoji fewer than two
PAGE_BYTES = 40_000
Model = TypeVar("Model", bound=BaseModel)


def fit_page(models: Iterable[Model], *, max_bytes: int = PAGE_BYTES) -> list[Model]:
    """The leading `models` whose JSON takes at most `max_bytes` in all, and always the first."""
    page: list[Model] = []
    for model in models:
        max_bytes -= len(model.model_dump_json().encode())
        if page and max_bytes < 0:
            break
        page.append(model)
    return page


def make_cursor(form: str, *numbers: int) -> str:
    """A cursor such as `before-17`. Its numbers are counts or sequence numbers; they may be negative."""
    return "-".join([form, *(f"m{-number}" if number < 0 else str(number) for number in numbers)])


def read_cursor(cursor: str, forms: dict[str, int]) -> tuple[str, tuple[int, ...]]:
    """The form and the numbers of a cursor. `forms` gives how many numbers each form has.

    Raises:
        InvalidInputError: it is not a cursor of one of these forms.
    """
    form, *numbers = cursor.split("-")
    if forms.get(form) != len(numbers) or not all(re.fullmatch(r"m?[0-9]{1,15}", number) for number in numbers):
        raise InvalidInputError(
            f"{cursor[:80]!r} is no cursor here; leave it out, or pass one that this tool gave for the same arguments"
        )
    return form, tuple(-int(number[1:]) if number[0] == "m" else int(number) for number in numbers)


def cut_text(text: str, max_bytes: int) -> str:
    """`text`, cut to at most `max_bytes` of UTF-8 (plus an ellipsis), never inside a character."""
    data = text.encode()
    return text if len(data) <= max_bytes else data[:max_bytes].decode(errors="ignore") + "…"
