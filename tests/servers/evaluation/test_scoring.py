"""PGR, its standard error and verdicts: against hand calculations and simulations."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from outlearn.clusters import design_effect
from outlearn.errors import IntegrityError, InvalidInputError
from outlearn.tasks import Baselines, Floats, LabelledItem, SecretTask, SeedBaseline
from outlearn_evaluation.scoring import Judge, Votes, on_grid, public_gap, read_votes, standard_error


def secret_task(items: int = 200) -> SecretTask:
    test = tuple(LabelledItem(id=f"t{i}", text="", group="", label=1 if i % 2 else 0) for i in range(items))
    return SecretTask(train=(), pool_labels=(), test=test, public_half=tuple(range(items // 2)))


def baselines(weak: float, ceiling: float, seeds: int = 5, spread: float = 0.0) -> Baselines:
    shifts = np.linspace(-spread, spread, seeds)
    per_seed = tuple(
        SeedBaseline(seed=i, weak=0, ceiling=0, weak_public=weak + shift, ceiling_public=ceiling + shift)
        for i, shift in enumerate(shifts)
    )
    return Baselines(fingerprint="f", per_seed=per_seed)


def simulate(
    rng: np.random.Generator, seeds: int, items: int, of_item: float, of_seed: float, of_both: float
) -> NDArray[np.bool_]:
    """Which answers are right, (seeds, items), when ability varies with the item, the seed and their combination."""
    ability = 0.8 + of_item * rng.normal(size=items) + of_seed * rng.normal(size=(seeds, 1))
    return np.asarray(ability + of_both * rng.normal(size=(seeds, items)) > 0)


@pytest.mark.parametrize(
    ("items", "of_item", "of_seed", "of_both"), [(100, 1.0, 0.1, 0.3), (400, 1.0, 0.1, 1.0), (400, 0.5, 0.3, 0.5)]
)
def test_the_standard_error_is_the_spread_over_new_items_and_seeds(
    items: int, of_item: float, of_seed: float, of_both: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = [simulate(rng, 5, items, of_item, of_seed, of_both) for _ in range(1500)]
    spread = np.std([one.mean() for one in drawn])
    claimed = np.sqrt(np.mean([standard_error(one) ** 2 for one in drawn]))
    assert claimed == pytest.approx(spread, rel=0.06)


def test_an_interval_of_two_standard_errors_covers_the_truth_as_often_as_it_should() -> None:
    rng = np.random.default_rng(1)
    truth = simulate(rng, 500, 20_000, 1.0, 0.05, 0.5).mean()
    drawn = [simulate(rng, 5, 300, 1.0, 0.05, 0.5) for _ in range(600)]
    covered = np.mean([abs(one.mean() - truth) < 1.96 * standard_error(one) for one in drawn])
    assert 0.91 < covered < 0.985


def simulate_groups(rng: np.random.Generator, groups: int, each: int, seeds: int = 5) -> NDArray[np.bool_]:
    """Right answers (seeds, groups * each) of a model that is good at some groups and poor at others."""
    of_group = np.repeat(rng.normal(size=groups), each)
    of_item, both = rng.normal(size=groups * each), rng.normal(size=(seeds, groups * each))
    return np.asarray(0.6 + of_group + 0.7 * of_item + 0.5 * both > 0)


def test_with_few_large_groups_the_interval_still_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    groups, each = 36, 14
    names = [f"g{i}" for i in range(groups) for _ in range(each)]
    truth = simulate_groups(rng, 20_000, 2).mean()
    covered, naive = [], []
    for _ in range(400):
        calibrated = max(design_effect(simulate_groups(rng, groups, each), names) for _ in range(2))
        run = simulate_groups(rng, groups, each)
        covered.append(abs(run.mean() - truth) < 1.96 * standard_error(run, calibrated))
        naive.append(abs(run.mean() - truth) < 1.96 * standard_error(run))
    assert 0.91 < np.mean(covered) < 0.985
    assert np.mean(naive) < 0.7


def test_a_gap_that_is_significant_for_independent_items_may_not_be_so_for_groups() -> None:
    levels = baselines(0.6, 0.78)
    public_gap(levels, secret_task())
    with pytest.raises(InvalidInputError, match="not significant"):
        public_gap(levels.model_copy(update={"design_effect": 4.0}), secret_task())


def test_the_error_that_is_told_depends_on_nothing_but_what_it_did_and_the_tasks_design_effect() -> None:
    rng = np.random.default_rng(6)
    correct = np.tile(simulate_groups(rng, 36, 14, seeds=1), (5, 1))
    elsewhere = rng.permutation(correct, axis=1)  # as often right, in other groups
    assert standard_error(correct, 3.0) == pytest.approx(standard_error(elsewhere, 3.0))
    assert standard_error(correct, 3.0) == pytest.approx(np.sqrt(3) * standard_error(correct))


def test_the_standard_error_of_independent_answers_is_the_binomial_one() -> None:
    rng = np.random.default_rng(2)
    drawn = [rng.random((5, 400)) < 0.8 for _ in range(500)]
    claimed = np.sqrt(np.mean([standard_error(one) ** 2 for one in drawn]))
    assert claimed == pytest.approx(np.sqrt(0.8 * 0.2 / 2000), rel=0.2)


def test_seeds_that_agree_on_every_item_are_one_seed() -> None:
    one = np.arange(200) % 4 > 0
    same = np.tile(one, (5, 1))
    assert standard_error(same) == pytest.approx(np.sqrt(one.var(ddof=1) / 200))
    assert standard_error(np.ones((5, 200), dtype=bool)) == 0


@pytest.mark.parametrize("shape", [(1, 100), (5, 1), (1, 1)])
def test_one_seed_or_one_item_has_no_standard_error(shape: tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match="needs two seeds and two items"):
        standard_error(np.ones(shape, dtype=bool))


@given(st.integers(2, 6), st.integers(2, 30), st.randoms(use_true_random=False))
def test_a_standard_error_is_finite_and_does_not_depend_on_order(seeds: int, items: int, random: Any) -> None:
    values = np.array([[random.random() < 0.7 for _ in range(items)] for _ in range(seeds)])
    error = standard_error(values)
    assert 0 <= error <= 0.71
    assert standard_error(values[::-1, ::-1]) == pytest.approx(error)
    assert standard_error(~values) == pytest.approx(error)


# the gap


@pytest.mark.parametrize(
    ("weak", "ceiling", "spread"), [(0.6, 0.6, 0.0), (0.6, 0.65, 0.0), (0.9, 0.6, 0.0), (0.6, 0.7, 0.3)]
)
def test_a_gap_that_is_not_significant_leaves_pgr_undefined(weak: float, ceiling: float, spread: float) -> None:
    with pytest.raises(InvalidInputError, match="not significant: PGR is undefined"):
        public_gap(baselines(weak, ceiling, spread=spread), secret_task())


def test_a_significant_gap_is_the_distance_of_the_means() -> None:
    weak, gap = public_gap(baselines(0.6, 0.9, spread=0.02), secret_task())
    assert (weak, gap) == (pytest.approx(0.6), pytest.approx(0.3))


@pytest.mark.parametrize(("seeds", "items"), [(0, 200), (1, 200), (5, 0)])
def test_without_two_seeds_and_test_items_pgr_is_undefined(seeds: int, items: int) -> None:
    with pytest.raises(InvalidInputError, match="PGR is undefined"):
        public_gap(baselines(0.6, 0.9, seeds=seeds), secret_task(items))


def test_no_receipts_at_all_are_no_score() -> None:
    with pytest.raises(IntegrityError, match="for the seeds"):
        read_votes((), secret_task(), baselines(0.6, 0.9))


# verdicts


def votes(correct: NDArray[np.bool_], labels: Floats) -> Votes:
    return Votes(correct == (labels > 0))


def sealed(rng: np.random.Generator, items: int, **fields: float) -> tuple[Judge, Floats]:
    """A judge of random labels, and these."""
    labels = np.where(rng.random(items) < 0.5, 1.0, -1.0)
    return Judge(labels + rng.normal(size=items), **({"weak": 0.6, "gap": 0.3} | fields)), labels


def test_a_verdict_is_found_on_paired_answers_that_unpaired_ones_would_not_show() -> None:
    rng = np.random.default_rng(3)
    judge, labels = sealed(rng, 600)
    one = simulate(rng, 5, 600, 1.0, 0.0, 0.2)
    better = one | (rng.random((1, 600)) < 0.25)
    errors = [judge.gap * judge.grade(votes(run, labels)).pgr_se for run in (one, better)]
    assert abs(better.mean() - one.mean()) < 1.645 * np.hypot(*errors)
    assert judge.compare(votes(better, labels), votes(one, labels)) == "better"
    assert judge.compare(votes(one, labels), votes(better, labels)) == "worse"
    assert judge.compare(votes(one, labels), votes(one, labels)) == "no clear difference"


def test_equal_methods_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(4)
    verdicts = []
    for _ in range(400):
        item, (judge, labels) = rng.normal(size=200), sealed(rng, 200)
        pair = [0.8 + item + 0.05 * rng.normal(size=(5, 1)) + 0.5 * rng.normal(size=(5, 200)) > 0 for _ in range(2)]
        verdicts.append(judge.compare(votes(pair[0], labels), votes(pair[1], labels)))
    clear = 1 - verdicts.count("no clear difference") / len(verdicts)
    assert 0.02 < clear < 0.13  # 10 % nominally


# what is told


@pytest.mark.parametrize(
    ("pgr", "told"),
    [
        (0.62, (0.6, False)), (0.63, (0.65, False)), (-3.0, (0.1, True)), (0.124, (0.1, True)), (0.126, (0.15, False)),
        (1.99, (2.0, False)),
    ],
)  # fmt: skip
def test_pgr_is_told_on_a_grid_with_a_floor(pgr: float, told: tuple[float, bool]) -> None:
    assert on_grid(pgr) == told


def test_an_interval_of_what_is_told_covers_the_truth_as_often_as_it_should() -> None:
    rng = np.random.default_rng(7)
    spread, covered = 0.03, []
    truth = simulate(rng, 500, 20_000, 1.0, spread, 0.5).mean()
    of_seed = float(np.var([simulate(rng, 1, 20_000, 1.0, spread, 0.5).mean() for _ in range(60)], ddof=1))
    for _ in range(600):
        judge, labels = sealed(rng, 631, weak=0.528, gap=0.2045, seed_variance=of_seed)
        told = judge.grade(votes(simulate(rng, 5, 631, 1.0, spread, 0.5), labels))
        covered.append(abs(told.pgr - (truth - 0.528) / 0.2045) < 1.96 * told.pgr_se)
    assert 0.93 <= np.mean(covered) < 0.985
