"""Text of agents that others read, without characters that terminals obey, that turn text round or that hide it."""

import re

from outlearn.errors import InvalidInputError

FORMAT = (  # Unicode's category Cf, but for the two joiners
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
)
SELECTORS = "\u034f\u180b-\u180f\ufe00-\ufe0f"
_ALWAYS = rf"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{FORMAT}\u115f\u1160\u3164\uffa0\ud800-\udfff\U000e0000-\U000e0fff"
_JOINED = r"\u0590-\u1cff\u2190-\u2bff\u2e80-\ud7ff\uf900-\ufeff\U00010900-\U00011fff\U0001e800-\U0001faff"
HIDDEN = re.compile(rf"[{_ALWAYS}]|(?<![{_JOINED}])[\u200c\u200d]")
"""Control characters but tab and line ends; format characters, such as marks that change the direction of writing and
spaces of no width; fillers, half characters and tags. Joiners only where nothing needs them: emoji and some scripts do.
"""
_HIDDEN_IN_NAMES = re.compile(rf"[{_ALWAYS}{SELECTORS}\u200c\u200d]")


def check_plain(text: str, what: str, *, name: bool = False) -> None:
    """Raises InvalidInputError where `text` has a hidden character; in a `name` no joiner and selector is needed."""
    if found := (_HIDDEN_IN_NAMES if name else HIDDEN).search(text):
        shown = "NUL" if found[0] == "\0" else f"hidden U+{ord(found[0]):04X}"
        raise InvalidInputError(f"the {what} has a {shown} character at {found.start()}; take it out")


def printable(text: str, *, keep: str = "", instead: str = "\N{REPLACEMENT CHARACTER}") -> str:
    """`text` with `instead` in place of each character that is not printable, nor in `keep`."""
    return "".join(one if one.isprintable() or one in keep else instead for one in text)


def one_line(text: str, limit: int) -> str:
    """`text` in one printable line of at most so many characters."""
    return printable(" ".join(text.split()))[:limit]


def show_plain(text: str) -> str:
    """`text` with a replacement character in place of each hidden one; as long as before."""
    return HIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
