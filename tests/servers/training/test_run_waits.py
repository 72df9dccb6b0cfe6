"""What a queued run's owner is told about its start."""

from pathlib import Path

from outlearn.identity import Caller
from outlearn_training.claims import Claims
from outlearn_training.queue import RunQueue
from outlearn_training.queue_tables import Submission

OPERATOR = Caller(agent="op", role="operator")


def test_a_queued_run_says_when_it_will_probably_start(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'training.sqlite'}"
    queue, claims = RunQueue(url), Claims(url)

    def submit(agent: str) -> str:
        fields = {"task": "toy", "method": "vanilla", "source_sha256": "0" * 64, "params": {}, "kind": "pilot"}
        return queue.submit(Submission(agent=agent, seeds=(0,), **fields), max_waiting=9).run_id

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
