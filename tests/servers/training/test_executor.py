"""Workers are started once a slot, and come after tool calls from the first moment."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from outlearn_training.sandbox.limits import NICENESS
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import LocalExecutor

AGENTS = 9


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process ids of the workers, which only sleep."""
    spawn, started = os.posix_spawn, list[int]()

    def count(*_arguments: object, **_options: object) -> int:
        started.append(spawn("/bin/sleep", ["sleep", "60"], {}))
        return started[-1]

    monkeypatch.setattr(os, "posix_spawn", count)
    return started


@pytest.fixture
def executor(tmp_path: Path, started: list[int]) -> Iterator[LocalExecutor]:
    executor = LocalExecutor(TrainingSettings(home=tmp_path, workers=2))
    yield executor
    executor.stop()


def test_agents_who_submit_at_the_same_moment_start_one_worker_a_slot(
    executor: LocalExecutor, started: list[int]
) -> None:
    ready = Barrier(AGENTS)

    def submit(_: int) -> None:
        ready.wait()
        executor.ensure()

    with ThreadPoolExecutor(AGENTS) as pool:
        list(pool.map(submit, range(AGENTS)))
    assert len(started) == 2


def test_a_worker_takes_second_place_from_its_first_moment(executor: LocalExecutor, started: list[int]) -> None:
    executor.ensure()
    assert [os.getpriority(os.PRIO_PROCESS, pid) >= NICENESS for pid in started] == [True, True]
