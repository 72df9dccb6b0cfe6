"""Attacks on the feedback, on few servers; `make attacks` measures all of them on many."""

from pathlib import Path

import numpy as np
import pytest
from adaptive import ADAPTIVE
from measure import BUDGET, Figure, gains, tell
from probing import PROBES
from scipy.stats import kendalltau
from world import world


@pytest.mark.parametrize("name", ["hill_climb", "blank_boosting", "informed_boosting", "reconstruction"])
def test_what_an_attacker_learns_of_the_public_half_is_worth_nothing_on_the_private_one(
    name: str, tmp_path: Path
) -> None:
    found = gains(PROBES[name].attack, tmp_path, 4)
    assert found[:, 1].mean() <= PROBES[name].private
    assert found[:, 2].max() <= BUDGET


@pytest.mark.parametrize("name", ["scattered_boosting", "whispered_boosting", "foretold_boosting"])
def test_masks_in_disguise_get_nine_tokens_few_answers(name: str, tmp_path: Path) -> None:
    [found] = gains(ADAPTIVE[name].attack, tmp_path, 1)
    assert 1 <= found[2] <= 30


def test_flipping_one_answer_at_a_time_gains_nothing(tmp_path: Path) -> None:
    [found] = gains(PROBES["one_flip"].attack, tmp_path, 1)
    assert found[0] <= 1.0
    assert found[2] <= BUDGET


def test_what_is_told_ranks_honest_runs_as_the_truth_does(tmp_path: Path) -> None:
    taus = []
    for seed in range(4):
        with world(tmp_path, seed) as one:
            _, public, pgr, *_ = tell(one, 60).T
            taus.append(kendalltau(pgr, public).statistic)
    assert np.mean(taus) >= 0.75


@pytest.mark.parametrize(("bar", "at_most", "held"), [(1.0, True, False), (1.0, False, True), (3.0, True, True)])
def test_a_figure_is_held_on_the_right_side_of_its_bar(bar: float, at_most: bool, held: bool) -> None:
    assert Figure("kendall_tau", 2.0, bar, at_most).held is held


def test_a_figure_without_a_bar_is_held_and_shown_without_one() -> None:
    figure = Figure("power", 0.5)
    assert figure.held
    assert str(figure).split() == ["power", "0.50"]
