"""Budgets of device-seconds in the run queue."""

from pathlib import Path

import pytest
from submitting import submission

from outlearn.errors import BudgetError
from outlearn.identity import Caller
from outlearn.types import RunView
from outlearn_training.queue.device_budget import DeviceBudget
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.seed_claims import Claims

OPERATOR = Caller(agent="operator", role="operator")
TEAM = DeviceBudget(agent_seconds=10, team_seconds=25)


class Lab:
    """A queue, and a worker whose seeds take as long as one says."""

    def __init__(self, url: str) -> None:
        self.queue, self._claims = RunQueue(url), Claims(url)

    def submit(self, agent: str, seeds: int = 1, budget: DeviceBudget = TEAM) -> RunView:
        asked = submission(agent, tuple(range(seeds)))
        return self.queue.submit(asked, max_waiting=100, budget=budget)

    def work(self, seconds: float, seeds: int = 1, is_done: bool = True) -> None:
        for _ in range(seeds):
            claim = self._claims.claim(0, lambda _: True)
            assert claim is not None
            self._claims.report(claim, seconds=seconds, share=0.5)
            if is_done:
                self._claims.seed_done(claim)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(f"sqlite:///{tmp_path / 'training.sqlite'}")


def test_a_run_that_would_exceed_the_agents_device_seconds_is_refused(lab: Lab) -> None:
    lab.submit("ada", seeds=2)
    lab.work(3, seeds=2)
    with pytest.raises(BudgetError, match=r"your budget of 10 device-seconds has 4 left, .* may take 6"):
        lab.submit("ada", seeds=2)
    assert lab.submit("ada").message == "queued; your budget of 10 device-seconds is 90% used"
    with pytest.raises(BudgetError, match="may take 6"):
        lab.submit("ada")


def test_the_team_has_a_budget_of_its_own(lab: Lab) -> None:
    for agent in ("ada", "boole", "curie"):
        lab.submit(agent)
        lab.work(8)
    with pytest.raises(BudgetError, match="the team's budget of 25 device-seconds has 1 left"):
        lab.submit("dirac")


def test_without_budgets_any_run_is_welcome(lab: Lab) -> None:
    lab.submit("ada", budget=DeviceBudget())
    lab.work(1e6)
    assert lab.submit("ada", budget=DeviceBudget()).message == "queued"


def test_runs_of_an_agent_that_has_overspent_are_ended(lab: Lab) -> None:
    long, waiting = lab.submit("ada").run_id, lab.submit("ada").run_id
    other = lab.submit("boole").run_id
    lab.work(11, is_done=False)
    lab.queue.end_overspent(TEAM)
    views = {run_id: lab.queue.view(run_id, OPERATOR) for run_id in (long, waiting, other)}
    assert views[waiting].status == "cancelled"
    assert "device-seconds is spent" in views[waiting].message
    assert views[other].status == "queued"
    lab.work(1)  # the worker hears of it with its next report, and takes the other agent's run
    assert lab.queue.view(other, OPERATOR).status == "done"
