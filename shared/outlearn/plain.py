"""Text of agents that others read, without characters that terminals obey, that turn text round or that hide it."""

import re

from outlearn.errors import InvalidInputError

HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
"""Control characters but tab and line ends; marks that change the direction of writing; half characters; tags."""


def check_plain(text: str, what: str) -> None:
    """Raises InvalidInputError where `text` has a hidden character."""
    if found := HIDDEN.search(text):
        name = "NUL" if found[0] == "\0" else f"hidden U+{ord(found[0]):04X}"
        raise InvalidInputError(f"the {what} has a {name} character at {found.start()}; take it out")


def printable(text: str, *, keep: str = "", instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """`text` with `instead` in place of each character that is not printable, nor in `keep`."""
    return "".join(one if one.isprintable() or one in keep else instead for one in text)


def show_plain(text: str) -> str:
    """`text` with a replacement character in place of each hidden one; as long as before."""
    return HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
