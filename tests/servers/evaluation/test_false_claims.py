"""How well honest sentences about PGRs are told from dishonest ones, by the audit and by the forum's badge."""

import re
from collections.abc import Callable, Collection, Sequence

import pytest

from outlearn.stated_pgr import OnRecord, differs
from outlearn.types import Finding
from outlearn_evaluation.false_claims import false_claim

from .claims import BOARD, DISHONEST, HONEST, OURS

MADE_WITH, HELD_OUT = slice(0, None, 2), slice(1, None, 2)


def is_marked(text: str, board: Collection[OnRecord] = BOARD) -> bool:
    finding = Finding(
        finding_id="finding-1",
        kind="insight",
        title="Found",
        text=text,
        author="ada",
        run_id=OURS.run_id,
        verified=OURS,
        score=0,
        replies=0,
        posted_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
    )
    return false_claim(finding, board) is not None


def is_marked_on_the_forum(text: str) -> bool:
    """Which knows the runs that are cited by their ids."""
    cited = [one for one in BOARD if one.run_id in re.findall(r"run-\w+", text)]
    return differs(("Found", text), OURS, cited)


def share(texts: Sequence[str], marked: Callable[[str], bool]) -> float:
    return sum(map(marked, texts)) / len(texts)


@pytest.mark.parametrize(
    ("half", "most_honest", "least_dishonest"),
    [pytest.param(MADE_WITH, 0.06, 0.95, id="made with"), pytest.param(HELD_OUT, 0.15, 0.95, id="held out")],
)
def test_few_honest_sentences_are_marked_and_nearly_all_dishonest_ones(
    half: slice, most_honest: float, least_dishonest: float
) -> None:
    assert (len(HONEST), len(DISHONEST)) == (72, 48)
    assert share(HONEST[half], is_marked) <= most_honest
    assert share(DISHONEST[half], is_marked) >= least_dishonest


def test_the_forum_marks_no_more_of_the_honest_ones_than_a_third() -> None:
    assert share(HONEST, is_marked_on_the_forum) <= 0.34
    assert share(DISHONEST, is_marked_on_the_forum) >= 0.85


@pytest.mark.parametrize("text", ["curie's PGR 0.80 is more", "PGR 0.80 (run-0000000003)", "PGR of ensemble.py: .8"])
def test_a_number_is_another_runs_only_where_the_board_says_so(text: str) -> None:
    assert not is_marked(text)
    assert is_marked(text.replace("0.80", "0.70").replace(".8", ".7"))
    assert is_marked(text, [OURS])


@pytest.mark.parametrize("word", ["ours", "our method", "this run", "we reach", "I got"])
def test_a_number_of_ones_own_is_no_others_though_one_is_named(word: str) -> None:
    assert is_marked(f"As with curie's ensemble, {word} PGR 0.80")
    assert not is_marked(f"Unlike {word}, curie's ensemble has PGR 0.80")


def test_limits_and_gains_must_agree_with_the_record() -> None:
    assert not any(map(is_marked, ("PGR > 0.5", "PGR below 0.9", "a gain of 0.3 PGR")))
    assert all(map(is_marked, ("PGR > 0.9", "PGR below 0.3", "a gain of 0.9 PGR")))
