"""What a post may contain, whom it mentions, and the words that it can be filtered by."""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.printable import check_plain
from outlearn.receipts import RUN_ID

MAX_TITLE = 200
MAX_TEXT = 20_000
MAX_TAGS = 8
MAX_BUILT_ON = 10
MAX_MENTIONS = 20
POST_ID = re.compile(r"(?:finding|reply)-[0-9a-f]{12}")
_SOURCE = re.compile(rf"finding-[0-9a-f]{{12}}|{RUN_ID.pattern}|snap-[0-9a-f]{{12}}")
_MENTION = re.compile(r"(?<![\w@.])@([a-z0-9][a-z0-9_-]{0,31})(?![\w-])")


def check_text(text: str, what: str, limit: int) -> str:
    """The text without surrounding white space.

    Raises:
        InvalidInputError: it is empty, longer than `limit` bytes of UTF-8, or has hidden characters.
    """
    text = text.strip()
    if not text:
        raise InvalidInputError(f"the {what} is empty; say what you found")
    check_plain(text, what)
    if (size := len(text.encode())) > limit:
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


def check_post_id(post_id: str) -> str:
    """The id. Raises NotFoundError where no post can have it."""
    if not POST_ID.fullmatch(post_id):
        raise no_post(post_id)
    return post_id


def no_post(post_id: str) -> NotFoundError:
    """What is raised where there is no such post."""
    if RUN_ID.fullmatch(post_id):
        return NotFoundError(f"{post_id!r} is a run, not a post; `list_threads` with `run_id` shows the posts about it")
    return NotFoundError(f"no post {post_id[:80]!r}; `list_threads` and `search` show what there is")


def check_sources(built_on: Sequence[str]) -> list[str]:
    """What a finding is built on, each once. Raises InvalidInputError where one is no id, or they are many."""
    distinct = list(dict.fromkeys(built_on))
    for one in distinct:
        if not _SOURCE.fullmatch(one):
            raise InvalidInputError(f"built_on {one[:80]!r} is no id of a finding, a run or a snapshot")
    if len(distinct) > MAX_BUILT_ON:
        raise InvalidInputError(f"built_on names {len(distinct)} sources; the limit is {MAX_BUILT_ON}")
    return distinct


def mentions(text: str) -> set[str]:
    """The agents that a text mentions as `@name`: the first 20."""
    return set(list(dict.fromkeys(_MENTION.findall(text)))[:MAX_MENTIONS])


def facets(**values: str | Iterable[str] | None) -> list[str]:
    """One word of 17 letters for each value, such as kind="insight" or tag=["a", "b"]; none for None.

    Hashes, because names may hold what the index takes for the end of a word, and no search must find them.
    """
    named = [
        (name, one) for name, value in values.items() for one in ([value] if isinstance(value, str) else value or ())
    ]
    return [f"q{blake2b(f'{name} {one}'.encode(), digest_size=8).hexdigest()}" for name, one in named]
