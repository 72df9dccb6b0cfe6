"""Time that runs down, and stands still in pauses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.countdown import Countdown
from outlearn.researcher import Stop


@given(st.lists(st.tuples(st.sampled_from(("pause", "go_on", "wait")), st.floats(0, 1000)), max_size=20))
def test_only_the_time_between_pauses_runs_down(steps: list[tuple[str, float]]) -> None:
    now = worked = 0.0
    countdown = Countdown(500, clock=lambda: now)
    for what, seconds in steps:
        if what != "wait":
            getattr(countdown, what)()
        now += seconds
        worked += 0 if countdown.is_paused else seconds
        assert countdown.passed == pytest.approx(worked, abs=1e-6)
        assert countdown.left == pytest.approx(500 - worked, abs=1e-6)


def test_the_end_can_come_sooner_but_not_later_also_in_a_pause() -> None:
    now = 0.0
    countdown = Countdown(10, clock=lambda: now)
    countdown.pause()
    now = 4.0
    countdown.end()
    assert (countdown.left, countdown.passed, countdown.is_paused) == (0, 0, False)
    now = 20.0
    countdown.end()
    assert countdown.left == -16


def test_a_researcher_has_as_much_time_after_a_pause_as_before_it() -> None:
    stop = Stop(60)
    stop.countdown.pause()
    left = stop.seconds_left
    assert stop.seconds_left == left > 59
    stop.ask()
    assert stop.seconds_left == 0
