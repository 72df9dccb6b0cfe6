"""PGR, its standard error and verdicts: against hand calculations and simulations."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from outlearn.clusters import design_effect
from outlearn.errors import IntegrityError, InvalidInputError
from outlearn.gap import public_gap
from outlearn.seal import DITHER
from outlearn.tasks import Baselines, Floats, LabelledItem, SecretTask, SeedBaseline
from outlearn_evaluation.scoring import Judge, Votes, on_grid, read_answers


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


def simulate_groups(rng: np.random.Generator, groups: int, each: int, seeds: int = 5) -> NDArray[np.bool_]:
    """Right answers (seeds, groups * each) of a model that is good at some groups and poor at others."""
    of_group = np.repeat(rng.normal(size=groups), each)
    of_item, both = rng.normal(size=groups * each), rng.normal(size=(seeds, groups * each))
    return np.asarray(0.6 + of_group + 0.7 * of_item + 0.5 * both > 0)


# the gap


def test_a_gap_that_is_significant_for_independent_items_may_not_be_so_for_groups() -> None:
    levels = baselines(0.6, 0.78)
    public_gap(levels, secret_task())
    with pytest.raises(InvalidInputError, match="not significant"):
        public_gap(levels.model_copy(update={"design_effect": 4.0}), secret_task())


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
        read_answers((), secret_task(), baselines(0.6, 0.9))


# verdicts


def votes(correct: NDArray[np.bool_], labels: Floats) -> Votes:
    return Votes(correct == (labels > 0))


def sealed(rng: np.random.Generator, items: int, **fields: float) -> tuple[Judge, Floats]:
    """A judge of random labels, and these."""
    labels = np.where(rng.random(items) < 0.5, 1.0, -1.0)
    values: dict[str, Any] = {"weak": 0.6, "gap": 0.3, "dither": DITHER, "key": rng.bytes(32)}
    return Judge(labels + rng.normal(size=items), **(values | fields)), labels


def test_a_difference_of_ten_points_is_told_and_more_often_than_unpaired_answers_would_show() -> None:
    rng = np.random.default_rng(3)
    verdicts, unpaired = [], 0
    for _ in range(200):
        item, (judge, labels) = rng.normal(size=631), sealed(rng, 631)
        one, better = (votes(level + item + 0.4 * rng.normal(size=(5, 631)) > 0, labels) for level in (0.4, 0.7))
        verdicts.append(judge.compare(better, one))
        assert judge.compare(one, better) == {"better": "worse"}.get(verdicts[-1], verdicts[-1])
        errors = [judge.gap * judge.grade(run).pgr_se for run in (one, better)]
        unpaired += judge.score(better) - judge.score(one) > 1.645 * np.hypot(*errors)
    assert verdicts.count("better") > max(0.85 * 200, unpaired)
    assert "worse" not in verdicts


def test_a_run_is_not_better_than_itself() -> None:
    judge, labels = sealed(np.random.default_rng(3), 100)
    one = votes(simulate(np.random.default_rng(4), 5, 100, 1.0, 0.0, 0.2), labels)
    assert judge.compare(one, one) == "no clear difference"


def test_a_verdict_tells_nothing_of_runs_that_are_both_told_as_at_most_the_lowest_step() -> None:
    judge, labels = sealed(np.random.default_rng(5), 400)
    right = np.arange(400) % 100
    runs = [votes(np.tile(right < share, (5, 1)), labels) for share in (5, 55)]
    assert [judge.grade(run).at_most for run in runs] == [True, True]
    assert judge.compare(*runs) == "no clear difference"


def test_equal_methods_are_rarely_told_apart() -> None:
    rng = np.random.default_rng(4)
    verdicts = []
    for _ in range(400):
        item, (judge, labels) = rng.normal(size=200), sealed(rng, 200, seed_variance=0.014**2)  # of ability .05
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


def test_the_same_votes_are_told_the_same_whatever_the_order_of_the_seeds_and_others_are_not() -> None:
    judge, labels = sealed(np.random.default_rng(8), 200)
    run = votes(simulate(np.random.default_rng(9), 5, 200, 1.0, 0.0, 0.5), labels)
    again = Votes(run.positive[::-1])
    assert judge.score(again) == judge.score(run)
    quiet, rekeyed = replace(judge, dither=0.0), replace(judge, key=b"another")
    assert len({judge.score(run), quiet.score(run), rekeyed.score(run)}) == 3
    other = Votes(run.positive ^ (np.arange(200) == 0))
    assert abs((judge.score(other) - quiet.score(other)) - (judge.score(run) - quiet.score(run))) > 1e-6


def test_noise_of_its_own_is_as_large_as_is_claimed() -> None:
    rng = np.random.default_rng(10)
    judge, _ = sealed(rng, 200)
    quiet = replace(judge, dither=0.0)
    runs = [Votes(rng.random((5, 200)) < 0.5) for _ in range(2000)]
    drawn = np.array([judge.score(run) - quiet.score(run) for run in runs])
    square = np.mean([np.mean(np.square(run.mean)) for run in runs])
    assert drawn.std() == pytest.approx(DITHER / 2 * np.sqrt(square / 200), rel=0.05)
    assert abs(drawn.mean()) < 4 * drawn.std() / np.sqrt(len(drawn))


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


def test_with_few_large_groups_the_interval_of_what_is_told_still_covers_the_truth() -> None:
    rng = np.random.default_rng(5)
    groups, each = 36, 14
    names = [f"g{i}" for i in range(groups) for _ in range(each)]
    truth = simulate_groups(rng, 20_000, 2).mean()
    covered = {"grouped": 0, "naive": 0}
    for _ in range(300):
        calibrated = max(design_effect(simulate_groups(rng, groups, each), names) for _ in range(2))
        right = simulate_groups(rng, groups, each)
        for name, effect in (("grouped", calibrated), ("naive", 1.0)):
            judge, labels = sealed(rng, groups * each, weak=0.5, design_effect=effect)
            told = judge.grade(votes(right, labels))
            covered[name] += abs(told.pgr - (truth - 0.5) / 0.3) < 1.96 * told.pgr_se
    assert covered["grouped"] >= 0.92 * 300
    assert covered["naive"] < 0.9 * 300
