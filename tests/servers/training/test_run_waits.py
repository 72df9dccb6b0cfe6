"""What a run's owner is told about its start, and while it predicts."""

from pathlib import Path

import pytest
from submitting import submission

from outlearn.errors import MethodError
from outlearn.identity import Caller
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.seed_claims import Claims

OPERATOR = Caller(agent="op", role="operator")


def test_a_queued_run_says_when_it_will_probably_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'training.sqlite'}"
    queue, claims = RunQueue(url), Claims(url)

    def submit(agent: str) -> str:
        return queue.submit(submission(agent, (0,), kind="pilot"), max_waiting=9).run_id

    def claim(slot: int = 0) -> None:
        found = claims.claim(slot, lambda _: True)
        assert found
        claims.report(found, seconds=10.0, share=0.5)
        if slot == 0:
            claims.seed_done(found)

    first = submit("ada")
    assert queue.view(first, OPERATOR).expected_wait_seconds is None, "nothing to go by"
    claim()
    others = [submit("boole") for _ in range(3)]
    waits = [queue.view(one, OPERATOR).expected_wait_seconds for one in others]
    assert waits == [0.0, 10.0, 20.0], "a run took 10 s of a device"
    claim(slot=1)
    assert queue.view(others[0], OPERATOR).expected_wait_seconds is None, "it runs"
    assert queue.view(others[1], OPERATOR).expected_wait_seconds == 5.0, "half of the running one is left"
    assert queue.view(others[2], OPERATOR).expected_wait_seconds == 15.0


def test_a_run_that_predicts_tells_how_far_it_is_and_can_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from outlearn_training.workers import worker

    monkeypatch.setattr(worker, "REPORT_SECONDS", 0.0)
    url = f"sqlite:///{tmp_path / 'training.sqlite'}"
    queue, claims = RunQueue(url), Claims(url)
    run_id = queue.submit(submission(seeds=(7, 8)), max_waiting=9).run_id
    found = claims.claim(0, lambda _: True)
    assert found
    progress, heard = worker._Progress(claims, found), list[tuple[str, float]]()

    def hear() -> None:
        view = queue.view(run_id, OPERATOR)
        heard.append((view.message, view.progress))

    progress.on_event({"item": 512.0, "items": 3000.0})
    progress.should_stop()
    hear()
    progress.on_event({"step": 10.0, "steps": 10.0, "loss_nats": 0.5})
    progress.should_stop()
    hear()
    for done in (631, 1263):
        progress.on_test_items(done, 1263)
        hear()
    assert heard == [
        ("seed 1 of 2: item 512 of 3,000", 0.0),
        ("seed 1 of 2: step 10 of 10, loss 0.500", 0.475),
        ("seed 1 of 2: test item 631 of 1,263", 0.487),
        ("seed 1 of 2: test item 1,263 of 1,263", 0.5),
    ]
    queue.cancel(run_id, OPERATOR)
    with pytest.raises(MethodError, match="cancelled"):
        progress.on_test_items(1263, 1263)
