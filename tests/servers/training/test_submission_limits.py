"""What is kept of an agent's submissions has an end, and what is refused leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlearn.errors import BudgetError
from outlearn.identity import Caller
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.tables import Submission
from outlearn_training.service import TrainingService
from outlearn_training.settings import TrainingSettings

ADA, BOB = Caller(agent="ada"), Caller(agent="bob")
SOURCE = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"


class Idle:
    """An executor that runs nothing."""

    def ensure(self) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    return RunQueue(f"sqlite:///{tmp_path / 'training.sqlite'}")


def submit(queue: RunQueue, digit: int = 0, agent: str = "ada", size: int = 100, **limits: Any) -> str:
    fields = {"agent": agent, "task": "toy", "method": "mine.py", "params": {}, "kind": "pilot", "seeds": (0,)}
    submission = Submission(source_sha256=f"{digit:064d}", source_bytes=size, **fields)  # type: ignore[arg-type]
    return queue.submit(submission, max_waiting=10**6, **limits).run_id


@pytest.fixture
def mine(toy_home: Path) -> Callable[..., tuple[TrainingService, Callable[[int], str], Callable[[], int]]]:
    """A service with limits, a submission of ada's file number n, and a count of the sources that are stored."""

    def make(**limits: Any) -> tuple[TrainingService, Callable[[int], str], Callable[[], int]]:
        settings = TrainingSettings(home=toy_home, unsafe_no_sandbox=True, **limits)
        service = TrainingService(settings, Idle())
        given: dict[str, Any] = {"method": None, "params": {}, "kind": "pilot", "task": "", "request_id": None}

        def submit(number: int) -> str:
            path = settings.workspaces / "ada" / f"m{number}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{SOURCE}# {number}\n")
            return service.submit(ADA, file=path.name, **given).run_id

        return service, submit, lambda: sum(path.is_file() for path in (toy_home / "artifacts").glob("??/*"))

    return make


def test_a_refused_submission_stores_nothing(mine: Callable[..., Any]) -> None:
    _, submit, stored = mine(max_waiting=2)
    submit(0)
    submit(1)
    for number in range(2, 9):
        with pytest.raises(BudgetError, match="2 unfinished runs"):
            submit(number)
    assert stored() == 2


def test_submitting_and_cancelling_comes_to_an_end(mine: Callable[..., Any]) -> None:
    service, submit, stored = mine(max_runs=5)
    for number in range(5):
        service.cancel(ADA, submit(number))
    with pytest.raises(BudgetError, match="you have had 5 runs, and may have no more; the operator can raise"):
        submit(5)
    assert stored() == 5


def test_different_files_of_an_agent_have_a_limit_and_the_same_ones_none(mine: Callable[..., Any]) -> None:
    service, submit, stored = mine(source_mb=200 / 2**20)
    for number in (0, 1, 2, 0, 1, 2):
        service.cancel(ADA, submit(number))
    with pytest.raises(BudgetError, match=r"more than .* MiB; submit one of them again with other `params`"):
        submit(3)
    submit(1)
    assert stored() == 3


def test_other_agents_sources_are_not_counted(queue: RunQueue) -> None:
    limits = {"max_source_bytes": 250, "max_runs": 3}
    submit(queue, 1, "bob")
    for digit in (2, 3, 3):
        submit(queue, digit, **limits)
    with pytest.raises(BudgetError, match="had 3 runs"):
        submit(queue, 4, **limits)
    with pytest.raises(BudgetError, match="different files"):
        submit(queue, 5, max_source_bytes=250)
    submit(queue, 5, "bob", **limits)


def test_a_source_is_stored_once_its_run_is_let_in_and_before_anybody_sees_it(queue: RunQueue) -> None:
    seen: list[int] = []
    submit(queue, store=lambda: seen.append(queue.waiting()))
    assert (seen, queue.waiting()) == ([0], 1)


def test_a_run_whose_source_cannot_be_stored_is_not_queued(queue: RunQueue) -> None:
    def full() -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        submit(queue, store=full)
    assert queue.waiting() == 0


@pytest.mark.parametrize(
    "source",
    [
        "def method(lab, seed, trust): ...",
        "def method(lab, seed, **more): ...",
        "def method(lab, seed, /, trust=1): ...",
        "def method(*given, trust=1): ...",
        "@decorated\ndef method(lab, seed): ...",
        "def method(lab, seed): ...\ndef method(lab, seed, trust): ...",
    ],
)
def test_params_that_a_file_may_take_are_left_to_it(toy_home: Path, source: str) -> None:
    settings = TrainingSettings(home=toy_home, unsafe_no_sandbox=True)
    path = settings.workspaces / "ada" / "mine.py"
    path.parent.mkdir(parents=True)
    path.write_text(f"{source}\n")
    given: dict[str, Any] = {"method": None, "params": {"trust": 1}, "kind": "pilot", "task": "", "request_id": None}
    assert TrainingService(settings, Idle()).submit(ADA, file=path.name, **given).status == "queued"
