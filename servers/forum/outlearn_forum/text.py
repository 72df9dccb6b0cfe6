"""What a post may contain."""

from collections.abc import Sequence

from outlearn.errors import InvalidInputError

MAX_TITLE = 200
MAX_TEXT = 20_000
MAX_TAGS = 8


def check_text(text: str, what: str, limit: int) -> str:
    """The text without surrounding white space.

    Raises:
        InvalidInputError: it is empty, longer than `limit` bytes of UTF-8, or has NUL or unpaired surrogates.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError(f"the {what} is empty; say what you found")
    if "\0" in text:
        raise InvalidInputError(f"the {what} has a NUL character at {text.index(chr(0))}; take it out")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"the {what} is not valid Unicode at character {error.start}") from None
    if size > limit:
        raise InvalidInputError(
            f"the {what} has {size:,} bytes; the limit is {limit:,}. Put long material in a file and share a snapshot"
        )
    return text


def check_title(title: str) -> str:
    """The title on one line. Raises as `check_text` does."""
    return check_text(" ".join(title.split()), "title", MAX_TITLE)


def join_tags(tags: Sequence[str]) -> str:
    """The tags, each once and in the order given, separated by spaces. Raises InvalidInputError where they are many."""
    distinct = list(dict.fromkeys(tags))
    if len(distinct) > MAX_TAGS:
        raise InvalidInputError(f"{len(distinct)} tags are too many; the limit is {MAX_TAGS}")
    return " ".join(distinct)
