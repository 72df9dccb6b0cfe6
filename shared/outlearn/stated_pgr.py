"""The PGR that a text claims, to hold against the record. A text proves nothing; this only tells where it differs."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

from outlearn.printable import FORMAT, SELECTORS

TOLERANCE = 0.05  # a step of what the evaluation server tells
_PGR = r"(?:PGRs?\b|performance gap recovered\b)"
_NUMBER = r"(?<![\w.])-?(?:[0-9]*\.[0-9]+|[0-9]+(?=\s*%))(?:\s*%)?"
_UNSEEN = re.compile(rf"[{FORMAT}{SELECTORS}\u200c\u200d\u0300-\u036f\u20d0-\u20f0\U000e0000-\U000e0fff]")
_NAMES = ("pgr", "performance gap recovered")
_DIGITS = "0123456789"
# what follows within the sentence; errors ("± 0.02", "se 0.02"), differences ("by 0.1", "+0.1") and settings ("lr 0.1")
# are no claims
_AFTER = re.compile(rf"\b{_PGR}(?P<rest>(?:(?!{_PGR}|\.\s|[;\n]).){{1,40}})", re.IGNORECASE)
_BEFORE = re.compile(rf"(?P<number>{_NUMBER})\s*(?:in |of )?{_PGR}", re.IGNORECASE)
_NO_CLAIM = re.compile(
    r"(?:±|\+(?:/?-)?|\b(?:by|se|std|s\.e\.|standard error|epochs?|lr|learning rate)(?: of)?)"
    r"\s*(?:[=:]\s*)?\+?[0-9.]+\s*%?",  # no space has two places to be in: that would take quadratic time
    re.IGNORECASE,
)


class OnRecord(Protocol):
    """The evaluation server's number for a run; with `at_most`, it is no more than that."""

    @property
    def pgr(self) -> float: ...

    @property
    def at_most(self) -> bool: ...


def stated_pgrs(text: str) -> tuple[float, ...]:
    """The PGRs that a text states, each once: `PGR 0.93`, `PGR of .9 ± .02`, `93 % PGR`, `PGR from 0.5 to 0.9`."""
    plain = text if text.isascii() else _seen(text)
    lowered = plain.lower()
    # what the patterns need: most posts have no claim, and to find none they take ten times as long
    if not any(map(lowered.__contains__, _NAMES)) or not any(map(plain.__contains__, _DIGITS)):
        return ()
    plain = _NO_CLAIM.sub(" ", plain)
    found = [match["number"] for match in _BEFORE.finditer(plain)]
    found += [number for match in _AFTER.finditer(plain) for number in re.findall(_NUMBER, match["rest"])]
    return tuple(dict.fromkeys(_value(number) for number in found))


def _seen(text: str) -> str:
    """The text as readers see it, in plain letters and digits where there are such."""
    return _UNSEEN.sub("", unicodedata.normalize("NFKD", text)).replace("\N{MINUS SIGN}", "-")


def differs(texts: Sequence[str], record: OnRecord, tolerance: float = TOLERANCE) -> bool:
    """Whether one of `texts`, such as a title and a body, states PGRs of which none is the record's."""
    stated = [numbers for text in texts if (numbers := stated_pgrs(text))]
    return any(not any(_fits(number, record, tolerance) for number in numbers) for numbers in stated)


def _fits(number: float, record: OnRecord, tolerance: float) -> bool:
    tolerance += 1e-9  # exactly one step off is not beyond it
    return number <= record.pgr + tolerance and (record.at_most or number >= record.pgr - tolerance)


def _value(number: str) -> float:
    share = number.rstrip("% \t")
    return round(float(share) / (100 if share != number else 1), 4)
