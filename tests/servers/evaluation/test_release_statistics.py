"""The release's statistics: their intervals cover the truth, in simulated releases and by hand."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

stats = pytest.importorskip("scipy.stats")
pytest.importorskip("statsmodels")

from outlearn.errors import InvalidInputError
from outlearn_evaluation.statistics import Estimate, compare, estimate, estimate_fall, estimate_pgr, holm

Bools = NDArray[np.bool_]
WEAK, STUDENT, CEILING = 0.60, 0.75, 0.85
PGR = (STUDENT - WEAK) / (CEILING - WEAK)
RELEASES = 400
WIDEST = 0.99  # the seeds' part is never taken to be negative, so intervals are too wide where seeds have no effect


def simulate(
    rng: np.random.Generator, *, items: int, seeds: int, groups: int, spread: float, accuracies: tuple[float, ...]
) -> tuple[list[Bools], list[str]]:
    """Answers (seeds, items) of several models, right where item + seed + noise is high enough.

    Items are alike in their groups, and as hard for all models; a seed's luck has the variance `spread**2` and is half
    the same for all models of the seed, as students have it from their teachers. Noise and items have variance 1.
    """
    members = rng.permutation(np.arange(items) % groups)
    alike = 0.0 if groups == items else 0.7
    item = np.sqrt(alike) * rng.normal(size=groups)[members] + np.sqrt(1 - alike) * rng.normal(size=items)
    shared, total = rng.normal(size=seeds), np.sqrt(2 + spread**2)
    answers = []
    for accuracy in accuracies:
        luck = spread * np.sqrt(0.5) * (shared + rng.normal(size=seeds))
        level = stats.norm.ppf(accuracy) * total + item + luck[:, None] + rng.normal(size=(seeds, items))
        answers.append(level > 0)
    return answers, [str(one) for one in members]


def coverage(truth: float, make: Callable[[np.random.Generator], Estimate]) -> float:
    """How often the 95 % interval has the truth in it."""
    rng = np.random.default_rng(0)
    estimates = [make(rng) for _ in range(RELEASES)]
    return float(np.mean([one.low <= truth <= one.high for one in estimates]))


@pytest.mark.parametrize(
    ("items", "seeds", "groups", "spread"),
    [(600, 5, 600, 0.0), (600, 5, 600, 0.1), (600, 5, 600, 0.3), (600, 5, 60, 0.1), (250, 10, 250, 0.1)],
    ids=["items alone", "a little luck", "much luck", "groups", "few items"],
)
def test_the_interval_of_pgr_covers_the_truth(items: int, seeds: int, groups: int, spread: float) -> None:
    def release(rng: np.random.Generator) -> Estimate:
        answers, names = simulate(
            rng, items=items, seeds=seeds, groups=groups, spread=spread, accuracies=(STUDENT, WEAK, CEILING)
        )
        return estimate_pgr(*answers, groups=names)

    assert 0.93 <= coverage(PGR, release) <= WIDEST


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_the_intervals_of_differences_and_of_the_fall_from_public_to_private_cover_the_truth(spread: float) -> None:
    def difference(rng: np.random.Generator) -> Estimate:
        (one, other), names = simulate(
            rng, items=600, seeds=5, groups=600, spread=spread, accuracies=(STUDENT, STUDENT - 0.02)
        )
        return compare(one, other, names)

    def fall(rng: np.random.Generator) -> Estimate:
        answers, names = simulate(
            rng, items=1200, seeds=5, groups=300, spread=spread, accuracies=(STUDENT, WEAK, CEILING)
        )
        return estimate_fall(*answers, groups=names, public=np.arange(1200) % 2 == 0)

    assert 0.93 <= coverage(0.02, difference) <= WIDEST
    assert 0.93 <= coverage(0.0, fall) <= WIDEST


def test_equal_methods_are_rarely_told_apart_after_holms_correction() -> None:
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(150):
        answers, names = simulate(rng, items=400, seeds=5, groups=400, spread=0.1, accuracies=(STUDENT,) * 4)
        pairs = [compare(one, other, names).p_value for i, one in enumerate(answers) for other in answers[:i]]
        wrong += min(pairs) * len(pairs) < 0.05  # the first of Holm's steps
    assert wrong / 150 <= 0.07


def test_with_one_seed_effect_only_the_error_is_the_t_of_the_seeds_means() -> None:
    means = np.array([0.2, 0.3, 0.4, 0.5, 0.6])
    found = estimate(np.repeat(means[:, None], 50, axis=1), [str(i) for i in range(50)])
    by_hand = stats.t.interval(0.95, 4, loc=means.mean(), scale=stats.sem(means))
    assert (found.low, found.high) == pytest.approx(by_hand)
    assert (found.df, found.se_items, found.se_seeds) == pytest.approx((4, 0, found.se))
    assert found.p_value == pytest.approx(stats.ttest_1samp(means, 0).pvalue)


def test_with_items_only_the_error_is_the_t_of_the_items() -> None:
    right = np.random.default_rng(0).random(80) < 0.7
    found = estimate(np.tile(right, (5, 1)), [str(i) for i in range(80)])
    assert found.se == pytest.approx(stats.sem(right))
    assert (found.df, found.se_seeds) == pytest.approx((79, 0), abs=1e-6)


def test_a_group_counts_as_one_item_where_its_items_are_the_same() -> None:
    right = np.random.default_rng(0).random((5, 40)) < 0.7
    alone = estimate(right, [str(i) for i in range(40)])
    copied = estimate(np.repeat(right, 3, axis=1), [str(i) for i in range(40) for _ in range(3)])
    assert vars(copied) == pytest.approx(vars(alone))


def test_what_the_seeds_and_items_have_in_common_makes_no_error() -> None:
    rng = np.random.default_rng(0)
    (one, other), names = simulate(rng, items=300, seeds=5, groups=300, spread=0.5, accuracies=(0.7, 0.6))
    apart = np.hypot(estimate(one, names).se, estimate(other, names).se)
    assert compare(one, other, names).se < 0.7 * apart
    assert vars(compare(one, one, names)) == {"value": 0, "se": 0, "se_items": 0, "se_seeds": 0, "df": 4}
    assert compare(one, one, names).p_value == 1


def test_pgr_is_undefined_without_a_gap_and_an_error_without_seeds_or_items() -> None:
    rng = np.random.default_rng(0)
    (student, weak, ceiling), names = simulate(
        rng, items=200, seeds=5, groups=200, spread=0.1, accuracies=(0.7, 0.6, 0.6)
    )
    with pytest.raises(InvalidInputError, match="not significant: PGR is undefined"):
        estimate_pgr(student, weak, ceiling, names)
    with pytest.raises(InvalidInputError, match="needs two seeds and two groups of items, not 1 and 200"):
        estimate(student[:1], names)
    with pytest.raises(InvalidInputError, match="not 5 and 1"):
        estimate(student, ["a"] * 200)


def test_holm_multiplies_the_smallest_p_by_all_the_next_by_one_less() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.integers(2, 6), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_an_estimate_is_finite_and_its_parts_add_up(seeds: int, items: int, draw: int) -> None:
    rng = np.random.default_rng(draw)
    right = rng.random((seeds, items)) < rng.random()
    names = [str(one) for one in [0, 1, *rng.integers(0, items, items - 2)]]
    found = estimate(right, names)
    assert found.low <= found.value <= found.high
    assert found.se**2 == pytest.approx(found.se_items**2 + found.se_seeds**2)
    assert found.df > 0
    assert 0 <= found.p_value <= 1
