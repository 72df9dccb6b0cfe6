"""Attackers found and honest teams let alone, on few servers; `detectors_measure` counts on many."""

import pytest
from detectors_measure import attacked, honest
from probing import PROBES
from watched import DRESSES


@pytest.mark.parametrize("name", PROBES)
def test_a_campaign_is_found_however_its_seeds_are_dressed(name: str) -> None:
    for dress in DRESSES:
        tally = attacked(name, dress, 2)
        assert tally.found == 2, (dress, tally.detectors)
        assert "detector failed" not in tally.detectors


def test_honest_teams_are_not_suspected() -> None:
    tally = honest(4)
    assert tally.flagged_runs == 0, tally.detectors
