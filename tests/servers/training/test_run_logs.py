"""Logs of runs are removed when the disk is needed: the oldest of whoever has many, and whoever reads one is told."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from outlearn.errors import NotFoundError
from outlearn.identity import Caller
from outlearn.receipts import RunId
from outlearn.results import ResultBook, VerifiedResult
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.seed_claims import Claims
from outlearn_training.queue.tables import Submission
from outlearn_training.run_logs import RunLogs
from outlearn_training.service import TrainingService
from outlearn_training.settings import TrainingSettings

ADA = Caller(agent="ada")


class Idle:
    """An executor that runs nothing."""

    def ensure(self) -> None: ...

    def stop(self) -> None: ...


class Home:
    """A home folder whose runs have logs of ten bytes each."""

    def __init__(self, folder: Path, room: int) -> None:
        self.settings = TrainingSettings(home=folder, keep_logs_mb=room / 2**20, unsafe_no_sandbox=True)
        url = self.settings.database("training")
        self.queue, self.claims = RunQueue(url), Claims(url)
        self.logs, self.slots = RunLogs(self.settings, self.claims), count()

    def run(self, agent: str = "ada", *, ends: bool = True, size: int = 10) -> RunId:
        fields: dict[str, Any] = {"task": "toy", "method": "vanilla", "params": {}, "kind": "pilot", "seeds": (0,)}
        run_id = self.queue.submit(
            Submission(agent=agent, source_sha256="0" * 64, source_bytes=9, **fields), max_waiting=99
        ).run_id
        claim = self.claims.claim(next(self.slots), lambda _: True)
        assert claim
        path = self.logs.begin(run_id, agent)
        path.write_bytes(b"x" * size)
        if ends:
            self.claims.seed_done(claim)
        return run_id

    def has(self, run_id: RunId) -> bool:
        return self.settings.run_log(run_id).exists()


def test_the_oldest_logs_go_first_and_only_as_many_as_must(tmp_path: Path) -> None:
    home = Home(tmp_path, room=25)
    runs = [home.run() for _ in range(5)]
    assert [home.has(run) for run in runs] == [False, False, True, True, True]  # the last one began when two were left


def test_logs_of_evaluated_runs_of_the_newest_and_of_unfinished_ones_stay(tmp_path: Path) -> None:
    home = Home(tmp_path, room=0)
    evaluated, unfinished = home.run(), home.run(ends=False)
    fields: dict[str, Any] = {"agent": "ada", "method": "vanilla", "task": "toy", "seeds": 5, "pgr": 0, "pgr_se": 1}
    ResultBook(tmp_path).publish(VerifiedResult(run_id=evaluated, **fields))
    old, newest = home.run(), home.run()
    assert all(map(home.has, (evaluated, unfinished, old, newest)))
    home.run()
    assert [home.has(run) for run in (evaluated, unfinished, old, newest)] == [True, True, False, True]


def test_an_agent_with_many_logs_pushes_out_its_own_alone(tmp_path: Path) -> None:
    home = Home(tmp_path, room=20)
    bobs = [home.run("bob"), home.run("bob")]
    adas = [home.run(size=20) for _ in range(9)]
    assert all(map(home.has, bobs))
    assert [home.has(run) for run in adas] == [False] * 7 + [True, True]


def test_a_run_that_goes_on_keeps_its_log(tmp_path: Path) -> None:
    home = Home(tmp_path, room=0)
    run = home.run(ends=False)
    assert home.logs.begin(run, "ada").read_bytes() == b"x" * 10


def test_who_reads_a_log_that_went_or_never_began_is_told_so(toy_home: Path) -> None:
    home = Home(toy_home, room=0)
    service = TrainingService(home.settings, Idle())
    old, new = home.run(), home.run()
    home.run()
    with pytest.raises(NotFoundError, match=rf"log of run '{old}' made room for newer ones \(--keep-logs-mb.*again"):
        service.read_log(ADA, old, 0, 100)
    assert service.read_log(ADA, new, 0, 100).text == "x" * 10
    given: dict[str, Any] = {"file": None, "params": {}, "kind": "pilot", "task": "", "request_id": None}
    queued = service.submit(ADA, method="vanilla", **given).run_id
    with pytest.raises(NotFoundError, match=rf"run '{queued}' has not started, .* 0 runs are ahead of it in the queue"):
        service.read_log(ADA, queued, 0, 100)
    service.cancel(ADA, queued)
    with pytest.raises(NotFoundError, match=rf"run '{queued}' ended before it started, and has no log"):
        service.read_log(ADA, queued, 0, 100)


def test_the_limit_is_at_least_nothing() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TrainingSettings(keep_logs_mb=-1)
