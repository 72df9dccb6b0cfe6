"""Evaluated runs in memory say what a look at all of them, one by one, would."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from outlearn_evaluation.detectors import Change, Look, change
from outlearn_evaluation.looks import Looks
from outlearn_evaluation.scoring import NEAR

ITEMS, SEEDS = 120, 5


def some_looks(number: int) -> list[Look]:
    """Runs of three agents around one student; some are near others, some have nearly the same answer everywhere."""
    rng = np.random.default_rng(number)
    sure, looks = rng.random(ITEMS), list[Look]()
    for place in range(number):
        if looks and rng.random() < 0.3:
            counts = looks[int(rng.integers(len(looks)))].counts.copy()
            counts[rng.integers(ITEMS, size=6)] ^= 1
        elif rng.random() < 0.1:
            counts = np.zeros(ITEMS, dtype=np.uint8)
        else:
            counts = rng.binomial(SEEDS, np.clip(sure + 0.3 * rng.normal(size=ITEMS), 0, 1)).astype(np.uint8)
        same_as = None if rng.random() < 0.8 else "run-000000"
        agent = f"agent-{rng.integers(3)}"
        looks.append(Look(f"run-{place:06d}", agent, SEEDS, np.minimum(counts, SEEDS), False, same_as))
    return looks


def nearest_by_hand(run: Look, earlier: Sequence[Look]) -> str | None:
    scored = [look for look in earlier if look.same_as is None]
    if not scored:
        return None
    apart = np.array([np.abs(look.counts.astype(int) - run.counts).sum() / (SEEDS * ITEMS) for look in scored])
    return scored[int(apart.argmin())].run_id if apart.min() <= NEAR else None


def equal(found: Sequence[Change], wanted: Sequence[Change]) -> bool:
    return [(one.weight, one.effect) for one in found] == [
        (pytest.approx(one.weight), pytest.approx(one.effect)) for one in wanted
    ]


@pytest.mark.parametrize("number", [1, 2, 65, 131])
@pytest.mark.parametrize("ask_first", [True, False])
def test_what_is_near_and_what_changed_is_that_of_a_look_at_each(number: int, ask_first: bool) -> None:
    kept, runs = Looks(), some_looks(number)
    for place, run in enumerate(runs):
        assert not ask_first or kept.nearest(run) == nearest_by_hand(run, runs[:place])
        kept.add(run)
    for place, run in enumerate(runs):
        assert kept.find(run.run_id) is run
        assert kept.nearest(run) == nearest_by_hand(run, runs[:place])
        own = [one for one in runs[:place] if one.agent == run.agent]
        assert kept.own_before(run) == own
        by_hand = [change(one, runs[: runs.index(one)]) for one in (*own, run)]
        assert equal(kept.changes(run), [one for one in by_hand if one is not None])
        released = {one.run_id for one in own[::2]}
        by_hand = [change(one, runs[: runs.index(one)]) for one in (*own, run) if one.run_id not in released]
        assert equal(kept.changes(run, released), [one for one in by_hand if one is not None])


def test_a_run_that_is_only_asked_about_stands_after_all_others_and_stays_away() -> None:
    *runs, asked = some_looks(20)
    kept = Looks()
    for run in runs[:10]:
        kept.add(run)
    assert kept.nearest(asked) == nearest_by_hand(asked, runs[:10])
    for run in runs[10:]:
        kept.add(run)
    assert kept.nearest(asked) == nearest_by_hand(asked, runs)
    own = [one for one in runs if one.agent == asked.agent]
    by_hand = [change(one, runs[: runs.index(one)]) for one in own] + [change(asked, runs)]
    assert equal(kept.changes(asked), [one for one in by_hand if one is not None])
    assert kept.find(asked.run_id) is None


def test_the_same_answers_of_two_agents_are_changes_of_ones_own_run_and_of_anothers() -> None:
    kept, runs = Looks(), some_looks(5)
    for run in runs:
        kept.add(replace(run, agent="ada", same_as=None))
    counts = np.clip(runs[-1].counts.astype(int) + (np.arange(ITEMS) % 9 == 0), 0, SEEDS).astype(np.uint8)
    found = [kept.changes(Look("run-asked0", agent, SEEDS, counts))[-1] for agent in ("ada", "bob", "ada")]
    assert [one.of_other for one in found] == [False, True, False]


def test_an_asked_runs_answers_may_be_others_the_next_time() -> None:
    first, other, *runs = some_looks(12)
    kept = Looks()
    for run in runs:
        kept.add(run)
    for counts in (first.counts, other.counts):
        asked = Look("run-asked0", "agent-9", SEEDS, counts, False, None)
        found = change(asked, runs)
        assert equal(kept.changes(asked), [found] if found else [])
        assert kept.nearest(asked) == nearest_by_hand(asked, runs)
