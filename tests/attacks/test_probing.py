"""Attacks on the feedback, on few servers; `make attacks` measures all of them on many."""

from pathlib import Path

import pytest
from measure import BARS, gains, kendall
from world import world


@pytest.mark.parametrize("name", ["hill_climb", "blank_boosting", "informed_boosting", "reconstruction"])
def test_what_an_attacker_learns_of_the_public_half_is_worth_nothing_on_the_private_one(
    name: str, tmp_path: Path
) -> None:
    found = gains(name, tmp_path, 4)
    assert found[:, 1].mean() <= BARS[name][1]
    assert found[:, 2].max() <= 200


def test_flipping_one_answer_at_a_time_gains_nothing(tmp_path: Path) -> None:
    [found] = gains("one_flip", tmp_path, 1)
    assert found[0] <= 1.0
    assert found[2] <= 200


def test_what_is_told_ranks_honest_students_as_the_truth_does(tmp_path: Path) -> None:
    taus = []
    for seed in range(4):
        with world(tmp_path, seed) as one:
            taus.append(kendall(one))
    assert sum(taus) / len(taus) >= 0.75
