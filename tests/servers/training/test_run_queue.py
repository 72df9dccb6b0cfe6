"""The run queue under concurrency and death."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.errors import BudgetError, ConfigError, NotFoundError
from outlearn.identity import Caller
from outlearn_training.queue import MAX_ATTEMPTS, RunQueue, Submission
from outlearn_training.slots import hold_slot, slot_is_alive, slot_pid

pytest.importorskip("torch")

from outlearn_training.sandbox import _parse_event

ADA, BOB, OPERATOR = Caller(agent="ada"), Caller(agent="bob"), Caller(agent="op", role="operator")


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    return RunQueue(f"sqlite:///{tmp_path / 'training.sqlite'}")


def submit(queue: RunQueue, agent: str = "ada", max_waiting: int = 100, **changes: Any) -> str:
    fields = {"task": "toy", "method": "vanilla", "source_sha256": "0" * 64, "params": {}, "kind": "full"}
    submission = Submission(agent=agent, seeds=(0, 1), **(fields | changes))
    return queue.submit(submission, max_waiting=max_waiting).run_id


def everybody_lives(slot: int) -> bool:
    return True


def test_concurrent_workers_never_claim_the_same_run(queue: RunQueue, tmp_path: Path) -> None:
    ids = [submit(queue) for _ in range(20)]
    others = [RunQueue(f"sqlite:///{tmp_path / 'training.sqlite'}") for _ in range(4)]

    def claim_all(slot: int) -> list[str]:
        found = []
        while (run := others[slot].claim(slot, everybody_lives)) is not None:
            found.append(run.run_id)
            others[slot].finish(run.run_id, "done", "")
        return found

    with ThreadPoolExecutor(4) as pool:
        claimed = [run_id for part in pool.map(claim_all, range(4)) for run_id in part]
    assert sorted(claimed) == sorted(ids)


def test_agents_take_turns(queue: RunQueue) -> None:
    first, second = submit(queue, "ada"), submit(queue, "ada")
    third = submit(queue, "bob")
    claimed = [queue.claim(slot, everybody_lives) for slot in range(3)]
    assert [run.run_id for run in claimed if run] == [first, third, second]


def test_a_run_whose_worker_died_is_queued_again_but_not_for_ever(queue: RunQueue) -> None:
    run_id = submit(queue)
    for _ in range(MAX_ATTEMPTS):
        run = queue.claim(1, lambda slot: False)
        assert run is not None
        assert run.run_id == run_id
    assert queue.claim(1, lambda slot: False) is None
    view = queue.view(run_id, ADA)
    assert (view.status, "died 3 times" in view.message) == ("failed", True)


def test_a_living_workers_run_is_left_alone(queue: RunQueue) -> None:
    submit(queue)
    assert queue.claim(0, everybody_lives) is not None
    assert queue.claim(1, everybody_lives) is None


def test_a_finished_run_does_not_change(queue: RunQueue) -> None:
    run_id = submit(queue)
    queue.claim(0, everybody_lives)
    queue.finish(run_id, "done", "well")
    assert not queue.report(run_id, seconds=1, progress=0.1)
    queue.finish(run_id, "failed", "late")
    assert queue.cancel(run_id, ADA).status == "done"
    view = queue.view(run_id, ADA)
    assert (view.status, view.message, view.progress) == ("done", "well", 1.0)


def test_seconds_add_up_over_reports_and_attempts(queue: RunQueue) -> None:
    run_id = submit(queue)
    queue.claim(0, everybody_lives)
    assert queue.report(run_id, seconds=1.5, progress=0.1)
    queue.claim(0, everybody_lives)
    assert queue.report(run_id, seconds=2.0, progress=0.1)
    assert queue.view(run_id, ADA).device_seconds == 3.5


def test_an_agent_may_have_so_many_unfinished_runs(queue: RunQueue) -> None:
    submit(queue, max_waiting=1)
    with pytest.raises(BudgetError, match="1 unfinished runs"):
        submit(queue, max_waiting=1)
    submit(queue, "bob", max_waiting=1)


def test_pages_go_from_new_to_old_and_operators_see_all(queue: RunQueue) -> None:
    ids = [submit(queue, agent) for agent in ("ada", "bob", "ada")]
    views, cursor = queue.page(OPERATOR, status=None, limit=2, before=None)
    rest, end = queue.page(OPERATOR, status=None, limit=2, before=cursor)
    assert [view.run_id for view in views + rest] == ids[::-1]
    assert end is None
    assert [view.run_id for view in queue.page(BOB, status="queued", limit=9, before=None)[0]] == [ids[1]]
    with pytest.raises(NotFoundError):
        queue.view(ids[0], BOB)
    assert queue.view(ids[2], ADA).queue_position == 2


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_text("not a database, not at all, but long enough to be taken for one")
    with pytest.raises(ConfigError, match="cannot open the database"):
        RunQueue(f"sqlite:///{tmp_path / 'x.sqlite'}")


def test_a_slot_is_held_by_one_and_freed_by_its_end(tmp_path: Path) -> None:
    assert not slot_is_alive(tmp_path, 0)
    with hold_slot(tmp_path, 0) as first:
        assert first
        assert slot_is_alive(tmp_path, 0)
        assert slot_pid(tmp_path, 0) is not None
        with hold_slot(tmp_path, 0) as second:
            assert not second
    assert not slot_is_alive(tmp_path, 0)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_whatever_a_method_writes_to_the_event_channel_is_an_event_or_nothing(line: bytes) -> None:
    assert set(_parse_event(line)) <= {"error", "metrics", "usage", "step", "steps", "loss_nats"}


def test_events_have_finite_numbers_only() -> None:
    assert _parse_event(b'{"metrics": {"a": 1, "b": NaN, "c": "x", "d": true}}') == {"metrics": {"a": 1}}
    assert _parse_event(b'{"usage": {"mfu": 0.5, "peak_memory_mb": 1, "x": 2}}') == {"usage": {"mfu": 0.5}}
    assert _parse_event(b'{"step": 1, "steps": 0, "loss_nats": 1}') == {}
    assert _parse_event(b'{"step": 1, "steps": 2, "loss_nats": Infinity}') == {}


def test_a_run_given_back_does_not_use_up_its_attempts(queue: RunQueue) -> None:
    run_id = submit(queue)
    for _ in range(MAX_ATTEMPTS - 1):
        queue.claim(0, everybody_lives)  # the worker in this slot died, or it would not ask again
    for _ in range(2 * MAX_ATTEMPTS):
        claimed = queue.claim(0, everybody_lives)
        assert claimed is not None
        queue.give_back(claimed.run_id)
        assert queue.view(run_id, ADA).status == "queued"


def test_a_cancelled_run_that_is_given_back_has_ended(queue: RunQueue) -> None:
    run_id = submit(queue)
    queue.claim(0, everybody_lives)
    queue.cancel(run_id, ADA)
    queue.give_back(run_id)
    assert queue.view(run_id, ADA).status == "cancelled"


def test_a_run_that_is_done_has_done_all_its_seeds(queue: RunQueue) -> None:
    run_id = submit(queue)
    queue.claim(0, everybody_lives)
    queue.finish(run_id, "done", "")
    assert queue.view(run_id, ADA).seeds_done == 2
