"""The PGR that a text claims, to hold against the record. A text proves nothing; this only tells where it differs."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, Protocol

from outlearn.printable import FORMAT, SELECTORS

TOLERANCE = 0.05  # a step of what the evaluation server tells
WIDEST = 0.2
"""Of a range that states its middle."""
FAR_BEFORE, FAR_AFTER = 200, 40
"""Characters about a number that tell of what it is."""
SHORTEST_NAME = 3
_JOINS = str.maketrans("-_", "  ")
_PGR = r"(?:PGRs?\b|performance gap recovered\b)"
_NUMBER = r"(?<![\w.])-?(?:[0-9]*\.[0-9]+|[0-9]+(?=\s*%))(?:\s*%)?"
_UNSEEN = re.compile(rf"[{FORMAT}{SELECTORS}\u200c\u200d\u0300-\u036f\u20d0-\u20f0\U000e0000-\U000e0fff]")
_NAMES = ("pgr", "performance gap recovered")
_DIGITS = "0123456789"
# what follows within the sentence; errors ("± 0.02", "se 0.02"), differences ("by 0.1", "+0.1") and settings ("lr 0.1")
# are no claims
_AFTER = re.compile(rf"\b{_PGR}(?P<rest>(?:(?!{_PGR}|\.\s|[;\n]).){{1,40}})", re.IGNORECASE)
_BEFORE = re.compile(rf"(?P<number>{_NUMBER})\s*(?:in |of )?{_PGR}", re.IGNORECASE)
_IN_REST = re.compile(_NUMBER)
_NO_CLAIM = re.compile(
    r"(?:±|\+(?:/?-)?|\b(?:by|se|std|s\.e\.|standard error|epochs?|lr|learning rate|temperature|thresholds?|confidence"
    r"|acc|accuracy|weight|decay|dropout)(?: of)?)"
    r"\s*(?:[=:]\s*)?\+?[0-9.]+\s*%?",  # no space has two places to be in: that would take quadratic time
    re.IGNORECASE,
)
_SHARE = r"([0-9]*\.[0-9]+)"
_RANGE = re.compile(rf"\bbetween {_SHARE} and {_SHARE}|(?<![\w.]){_SHARE} ?[-–] ?{_SHARE}")
_INTERVAL = re.compile(
    r"\b(?:[0-9]{2} ?% )?(?:CI|interval):?(?: of| from)? [\[(]?[0-9.]+(?:,| to|-|–) ?[0-9.]+", re.IGNORECASE
)
_SPACE = re.compile(r"[^\S\n]+")
_END = re.compile(r"[.!?](?=\s)|\n")
_CLAUSE = re.compile(r"[,;:]|\b(?:but|yet)\b", re.IGNORECASE)
# plans, guesses, what others found elsewhere, and what was not reached; "as expected" is none of these
_NOT_SAID = re.compile(
    r"\b(?:(?<!as )(?<!than )expect(?:s|ed|ing)?|hop(?:e|ed|ing)|predict(?:s|ed)?|guess|would|might|may|could|should"
    r"|will|if|whether|doubt|(?<!than the )paper|humans|nobody(?! else)|no one(?! else)"
    r"|(?:not|n['’]t|never|fail(?:s|ed)? to|unable to) (?:\w+ ){0,2}(?:reach|get|got|hit|have|see|give|near|exceed"
    r"|attain|achieve|reproduce|match)\w*)\b",
    re.IGNORECASE,
)
_GOAL = re.compile(
    r"^\W*(?:(?:the|our|my) )?(?:next|target|goal|aim|plan|hypothesis|prediction)\b|^\W*to (?:get|reach)\b",
    re.IGNORECASE,
)
_THEN = re.compile(r"\s*(?:or (?:more|better|higher)\s+)?(?:would|might|may|could|needs|requires)\b", re.IGNORECASE)
_LIMIT = re.compile(
    r"(?:(?P<least>>=?|≥|\b(?:above|over|exceeds?|exceeding|at least|more than"
    r"|(?:gain|rise|improvement|increase|difference|lead|advantage)(?: (?:of|in|(?:to|over) \w+))?))"
    r"|<=?|≤|\b(?:below|under|at most|less than|far from|short of))"
    rf"(?: (?:a|an|of|{_PGR}))*[ (]*$",
    re.IGNORECASE,
)
_OURS = re.compile(
    r"\b(?:ours|mine|(?:our|my)(?: \w+)?|this (?:run|method|one)|(?:we|i) (?:also |now |even )?(?:reach|get|got|have"
    r"|had|achieve|hit|see|score)\w*)\b",
    re.IGNORECASE,
)
_END_OF_SCALE = re.compile(rf"\b(teacher|ceiling)\W+(?:(?:is|has|at|of|with|a|{_PGR})\W+){{0,4}}$", re.IGNORECASE)
_TO_END_OF_SCALE = re.compile(r" ?\(?(?:(?:is|of|for|at) )?(?:the )?(teacher|ceiling)\b", re.IGNORECASE)


class OnRecord(Protocol):
    """The evaluation server's number for a run; with `at_most`, it is no more than that."""

    @property
    def run_id(self) -> str: ...

    @property
    def agent(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def pgr(self) -> float: ...

    @property
    def at_most(self) -> bool: ...


class _Stated(NamedTuple):
    number: float
    before: str
    """What stands before it in its sentence."""
    after: str


def stated_pgrs(text: str) -> tuple[float, ...]:
    """The PGRs that a text states, each once: `PGR 0.93`, `PGR of .9 ± .02`, `93 % PGR`, `PGR from 0.5 to 0.9`.

    Plans, guesses and what was not reached are not stated."""
    return tuple(dict.fromkeys(one.number for one in _stated(text)))


def own_pgrs(text: str, record: OnRecord, others: Iterable[OnRecord] = ()) -> tuple[float, ...]:
    """Those of them that a text states of the record's run: not what it says of another of `others`, which has it, nor
    of the ends of the scale, nor limits and gains that agree with the record."""
    stated = [one for one in _stated(text) if not (_is_end_of_scale(one) or _is_true_limit(one, record))]
    named = _named(text, others) if stated else []
    return tuple(dict.fromkeys(one.number for one in stated if not _is_of_another(one, named)))


def differs(
    texts: Sequence[str], record: OnRecord, others: Iterable[OnRecord] = (), tolerance: float = TOLERANCE
) -> bool:
    """Whether one of `texts`, such as a title and a body, states PGRs of the run of which none is the record's."""
    stated = [numbers for text in texts if (numbers := own_pgrs(text, record, others))]
    return any(not any(_fits(number, record, tolerance) for number in numbers) for numbers in stated)


def _stated(text: str) -> Iterator[_Stated]:
    plain = text if text.isascii() else _seen(text)
    lowered = plain.lower()
    # what the patterns need: most posts have no claim, and to find none they take ten times as long
    if not any(map(lowered.__contains__, _NAMES)) or not any(map(plain.__contains__, _DIGITS)):
        return
    plain = _RANGE.sub(_middle, _NO_CLAIM.sub(" ", _INTERVAL.sub(" ", _SPACE.sub(" ", plain))))
    found = [match.span("number") for match in _BEFORE.finditer(plain)]
    found += [one.span() for match in _AFTER.finditer(plain) for one in _IN_REST.finditer(plain, *match.span("rest"))]
    for start, end in dict.fromkeys(found):
        one = _Stated(
            _value(plain[start:end]),
            _END.split(plain[max(0, start - FAR_BEFORE) : start])[-1],
            _END.split(plain[end : end + FAR_AFTER])[0],
        )
        if not _is_not_said(one):
            yield one


def _middle(found: re.Match[str]) -> str:
    low, high = map(float, filter(None, found.groups()))
    return f"{(low + high) / 2:.4f}" if 0 < high - low <= WIDEST else found[0]


def _is_not_said(one: _Stated) -> bool:
    clauses = _CLAUSE.split(one.before)
    is_goal = any(map(_GOAL.search, clauses[-2:]))
    return is_goal or _NOT_SAID.search(clauses[-1]) is not None or _THEN.match(one.after) is not None


def _is_true_limit(one: _Stated, record: OnRecord) -> bool:
    if found := _LIMIT.search(one.before):
        least, most = one.number <= record.pgr + TOLERANCE, one.number >= record.pgr - TOLERANCE
        return least if found["least"] else most
    return False


def _is_end_of_scale(one: _Stated) -> bool:
    found = _END_OF_SCALE.search(one.before) or _TO_END_OF_SCALE.match(one.after)
    return found is not None and one.number == (found[1].lower() == "ceiling")


def _named(text: str, others: Iterable[OnRecord]) -> list[tuple[str, OnRecord]]:
    """What runs are called in a text: by their ids, agents and methods."""
    spread, found = _spread(text), dict[tuple[str, float, bool], OnRecord]()
    for other in others:
        for name in (other.run_id, other.agent, other.method, PurePosixPath(other.method).stem):
            if len(name) >= SHORTEST_NAME and (plain := _spread(name)) in spread:
                found[plain, other.pgr, other.at_most] = other
    return [(name, other) for (name, _, _), other in found.items()]


def _is_of_another(one: _Stated, named: Iterable[tuple[str, OnRecord]]) -> bool:
    """Whether it is what a run has that is named before it, with no word for one's own in between, or right after."""
    before, after = _spread(_OURS.split(one.before)[-1]), _spread(one.after)
    return any(
        (name in before and re.search(rf"\b{re.escape(name)}\b", before))
        or (name in after and re.match(rf"\W{{0,3}}(?:(?:of|for|from|by|in|has) )?(?:the )?{re.escape(name)}\b", after))
        for name, other in named
        if _fits(one.number, other, TOLERANCE)
    )


def _spread(text: str) -> str:
    """In lower case, with spaces for what joins words in names."""
    return text.lower().translate(_JOINS)


def _seen(text: str) -> str:
    """The text as readers see it, in plain letters and digits where there are such."""
    return _UNSEEN.sub("", unicodedata.normalize("NFKD", text)).replace("\N{MINUS SIGN}", "-")


def _fits(number: float, record: OnRecord, tolerance: float) -> bool:
    tolerance += 1e-9  # exactly one step off is not beyond it
    return number <= record.pgr + tolerance and (record.at_most or number >= record.pgr - tolerance)


def _value(number: str) -> float:
    share = number.rstrip("% \t")
    return round(float(share) / (100 if share != number else 1), 4)
