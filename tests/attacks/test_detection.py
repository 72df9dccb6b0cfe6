"""Attackers found and honest teams let alone, on few servers; `detectors_measure` counts on many."""

import pytest
from detectors_measure import attacked, honest
from home_worlds import EQUAL, Home, like
from probing import PROBES
from watched import DRESSES


@pytest.mark.parametrize("name", PROBES)
def test_a_campaign_is_found_however_its_seeds_are_dressed(name: str) -> None:
    for dress in DRESSES:
        tally = attacked(name, dress, 2)
        assert tally.found == 2, (dress, tally.detectors)
        assert "detector failed" not in tally.detectors


@pytest.mark.parametrize("home", [Home("math", 400), Home(EQUAL, 1263)], ids=str)
def test_a_homes_own_thresholds_find_masks_and_suspect_no_honest_team(home: Home) -> None:
    with like(home) as thresholds:
        assert thresholds.calibrated
        assert attacked("reconstruction", "mimicking", 1, thresholds).found == 1
        assert honest(1, thresholds).flagged_runs == 0


def test_honest_teams_are_not_suspected() -> None:
    tally = honest(4)
    assert tally.flagged_runs == 0, tally.detectors
