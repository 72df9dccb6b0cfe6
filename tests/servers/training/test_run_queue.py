"""The run queue under concurrency and death, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from submitting import submission

from outlearn.errors import BudgetError, ConfigError, NotFoundError
from outlearn.identity import Caller
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.seed_claims import MAX_ATTEMPTS, Claim, Claims
from outlearn_training.workers.slots import hold_slot, slot_is_alive, slot_pid

pytest.importorskip("torch")

from outlearn_training.sandbox.method_sandbox import _parse_event

ADA, BOB, OPERATOR = Caller(agent="ada"), Caller(agent="bob"), Caller(agent="op", role="operator")


@pytest.fixture
def queue(database_url: str) -> Iterator[RunQueue]:
    queue = RunQueue(database_url)
    yield queue
    queue.engine.dispose()


@pytest.fixture
def claims(database_url: str) -> Iterator[Claims]:
    claims = Claims(database_url)
    yield claims
    claims.engine.dispose()


def submit(queue: RunQueue, agent: str = "ada", max_waiting: int = 100, **changes: Any) -> str:
    return queue.submit(submission(agent, **changes), max_waiting=max_waiting).run_id


def everybody_lives(slot: int) -> bool:
    return True


def claim(claims: Claims, slot: int, going_on: str = "") -> Claim:
    found = claims.claim(slot, everybody_lives, going_on)
    assert found is not None
    return found


def finish(claims: Claims, run_id: str) -> None:
    """Do all the seeds of a run in slot 0."""
    while (found := claims.claim(0, everybody_lives, run_id)) is not None and found.run.run_id == run_id:
        claims.seed_done(found)


def test_concurrent_workers_never_claim_the_same_seed(queue: RunQueue, database_url: str) -> None:
    ids = [submit(queue) for _ in range(20)]

    def claim_all(slot: int) -> list[tuple[str, int]]:
        claims, found = Claims(database_url), []
        while (one := claims.claim(slot, everybody_lives)) is not None:
            found.append((one.run.run_id, one.seed))
            claims.seed_done(one)
        claims.engine.dispose()
        return found

    with ThreadPoolExecutor(4) as pool:
        claimed = [seed for part in pool.map(claim_all, range(4)) for seed in part]
    assert sorted(claimed) == sorted((run_id, seed) for run_id in ids for seed in (0, 1))
    assert {queue.view(run_id, ADA).status for run_id in ids} == {"done"}


def test_what_a_seed_took_is_charged_when_another_one_has_failed_the_run_meanwhile(
    queue: RunQueue, claims: Claims
) -> None:
    run_id = submit(queue)
    first, second = claim(claims, 0), claim(claims, 1)
    claims.report(first, seconds=1.0, share=0.1)
    claims.fail(run_id, "no")
    assert not claims.report(second, seconds=2.0, share=0.5, message="going on")
    view = queue.view(run_id, ADA)
    assert (view.status, view.message, view.device_seconds, view.progress) == ("failed", "no", 3.0, 0.05)


def test_agents_take_turns(queue: RunQueue, claims: Claims) -> None:
    first, second = submit(queue, "ada"), submit(queue, "ada")
    third = submit(queue, "bob")
    assert [claim(claims, slot).run.run_id for slot in range(3)] == [first, third, second]


def order_on_one_device(queue: RunQueue, claims: Claims, refill: str, bobs: list[str]) -> str:
    """Initials of the agents whose runs one worker takes, while `refill` queues another for each that is done."""
    order, last = "", ""
    while any(queue.view(run_id, BOB).status == "queued" for run_id in bobs) and len(order) < 60:
        one = claim(claims, 0, going_on=last)
        if one.run.run_id != last:
            order, last = order + one.run.agent[0], one.run.run_id
        claims.seed_done(one)
        if one.run.agent == refill and queue.view(last, Caller(agent=refill)).status == "done":
            submit(queue, refill)
    return order


def test_on_one_device_an_agents_first_run_waits_for_one_of_each_other_agents_at_most(
    queue: RunQueue, claims: Claims
) -> None:
    for _ in range(20):
        submit(queue, "ada")
    claims.seed_done(claim(claims, 0))
    bobs = [submit(queue, "bob") for _ in range(3)]
    assert [queue.view(run_id, BOB).queue_position for run_id in bobs] == [0, 2, 4]
    assert order_on_one_device(queue, claims, "ada", bobs) == "bababa"[:5]


def work_off(claims: Claims) -> list[Claim]:
    """Do seed after seed in slot 0, until there are no more."""
    done = list[Claim]()
    while (one := claims.claim(0, everybody_lives)) is not None:
        claims.seed_done(one)
        done.append(one)
    return done


def test_an_agent_that_was_long_idle_has_the_next_turn_and_not_all_of_them(queue: RunQueue, claims: Claims) -> None:
    for agent in ("carol", "ada", "bob", "ada", "bob", "ada"):
        submit(queue, agent, seeds=(0,))
        work_off(claims)
    for agent in ("ada", "bob", "carol") * 2:
        submit(queue, agent, seeds=(0,))
    assert [one.run.agent for one in work_off(claims)] == ["carol", "bob", "ada"] * 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_place_in_the_queue_that_is_told_is_the_one_that_comes_true_on_one_device(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('queue') / 'training.sqlite'}"
    queue, claims = RunQueue(url), Claims(url)
    agents = st.lists(st.sampled_from(["ada", "bob", "carol"]), min_size=1, max_size=8)
    for agent in data.draw(agents):
        submit(queue, agent, seeds=(0,))
        work_off(claims)
    for agent in data.draw(agents):
        submit(queue, agent, seeds=(0,))
    views = queue.page(OPERATOR, status="queued", limit=9, before=None)[0]
    told = sorted((view.queue_position, view.run_id) for view in views)
    assert told == list(enumerate(one.run.run_id for one in work_off(claims)))
    queue.engine.dispose()
    claims.engine.dispose()


def test_a_worker_goes_on_with_its_run_before_it_takes_another(queue: RunQueue, claims: Claims) -> None:
    first, second = submit(queue), submit(queue, "bob")
    claims.seed_done(claim(claims, 0))
    assert claim(claims, 0, going_on=first).run.run_id == first
    assert claim(claims, 1).run.run_id == second


def test_an_idle_worker_helps_with_a_run_that_another_is_at(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue, seeds=(5, 6, 7))
    seeds = [claim(claims, slot) for slot in range(3)]
    assert [one.seed for one in seeds] == [5, 6, 7]
    assert claims.claim(3, everybody_lives) is None
    claims.report(seeds[2], seconds=2, share=0.5, message="")
    claims.seed_done(seeds[0])
    view = queue.view(run_id, ADA)
    assert (view.seeds_done, view.progress, view.seconds_left) == (1, 0.5, 1.0)
    for one in seeds[1:]:
        assert queue.view(run_id, ADA).status == "running"
        claims.seed_done(one)
    assert (queue.view(run_id, ADA).status, queue.view(run_id, ADA).progress) == ("done", 1.0)


def test_a_run_that_waits_comes_before_one_that_could_be_helped(queue: RunQueue, claims: Claims) -> None:
    submit(queue)
    claim(claims, 0)
    waiting = submit(queue)
    assert claim(claims, 1).run.run_id == waiting


def test_when_one_seed_fails_the_others_are_told_to_stop(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    one, other = claim(claims, 0), claim(claims, 1)
    claims.fail(run_id, "broken")
    assert not claims.report(other, seconds=1, share=0.1)
    claims.seed_done(other)
    claims.seed_done(one)
    assert (queue.view(run_id, ADA).status, queue.view(run_id, ADA).message) == ("failed", "broken")


def test_a_dead_worker_costs_its_own_seed_and_no_other(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue, seeds=(0, 1, 2))
    claims.seed_done(claim(claims, 0))
    lost, alive = claim(claims, 0, run_id), claim(claims, 1)
    again = claims.claim(2, lambda slot: slot == 1)
    assert again is not None
    assert (lost.seed, alive.seed, again.seed) == (1, 2, 1)
    assert queue.view(run_id, ADA).seeds_done == 1


def test_a_run_between_two_seeds_whose_worker_left_is_taken_up(queue: RunQueue, claims: Claims) -> None:
    submit(queue)
    claims.seed_done(claim(claims, 0))
    assert claim(claims, 1).seed == 1


def test_a_cancelled_run_that_nobody_is_at_has_ended(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    claims.seed_done(claim(claims, 0))
    assert queue.cancel(run_id, ADA).status == "running"
    assert claims.claim(0, everybody_lives) is None
    assert queue.view(run_id, ADA).status == "cancelled"


def test_a_run_whose_worker_died_is_queued_again_but_not_for_ever(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    for _ in range(MAX_ATTEMPTS):
        run = claims.claim(1, lambda slot: False)
        assert run is not None
        assert run.run.run_id == run_id
    assert claims.claim(1, lambda slot: False) is None
    view = queue.view(run_id, ADA)
    assert (view.status, "died 3 times" in view.message) == ("failed", True)


def test_a_living_workers_seed_is_left_alone(queue: RunQueue, claims: Claims) -> None:
    submit(queue, seeds=(0,))
    claim(claims, 0)
    assert claims.claim(1, everybody_lives) is None


def test_a_finished_run_does_not_change(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    one = claim(claims, 0)
    claims.seed_done(one)
    finish(claims, run_id)
    assert not claims.report(one, seconds=1, share=0.1)
    claims.fail(run_id, "late")
    assert queue.cancel(run_id, ADA).status == "done"
    view = queue.view(run_id, ADA)
    assert (view.status, view.message, view.progress) == ("done", "done: `evaluate` it", 1.0)


def test_a_failed_run_that_is_queued_again_does_what_was_not_done(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue, seeds=(0, 1, 2))
    claims.seed_done(claim(claims, 0))
    for slot in (0, 1):
        claim(claims, slot)
    claims.fail(run_id, "took longer than 1 seconds")
    for _ in range(2):
        queue.queue_again(run_id)
    view = queue.view(run_id, ADA)
    assert (view.status, view.seeds_done, view.progress, view.finished_at) == ("queued", 1, 0.333, None)
    assert [one.seed for one in work_off(claims)] == [1, 2]
    done = queue.view(run_id, ADA)
    assert (done.status, done.seeds_done) == ("done", 3)
    queue.queue_again(run_id)
    assert queue.view(run_id, ADA) == done


def test_a_run_that_failed_since_workers_died_has_all_its_attempts_again(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    while claims.claim(0, everybody_lives):
        pass
    assert "its worker died" in queue.view(run_id, ADA).message
    queue.queue_again(run_id)
    assert [one.seed for one in work_off(claims)] == [0, 1]


def test_seconds_add_up_over_reports_and_attempts(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    assert claims.report(claim(claims, 0), seconds=1.5, share=0.1)
    assert claims.report(claim(claims, 0), seconds=2.0, share=0.1)
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
    assert set(_parse_event(line)) <= {
        *("error", "metrics", "usage", "step", "steps", "loss_nats", "item", "items", "watched", "where")
    }


def test_events_have_finite_numbers_only() -> None:
    assert _parse_event(b'{"metrics": {"a": 1, "b": NaN, "c": "x", "d": true}}') == {"metrics": {"a": 1}}
    assert _parse_event(b'{"usage": {"mfu": 0.5, "peak_memory_mb": 1, "x": 2}}') == {"usage": {"mfu": 0.5}}
    assert _parse_event(b'{"step": 1, "steps": 0, "loss_nats": 1}') == {}
    assert _parse_event(b'{"step": 1, "steps": 2, "loss_nats": Infinity}') == {}
    assert _parse_event(b'{"item": 1, "items": 20}') == {"item": 1, "items": 20}
    assert _parse_event(b'{"item": 1, "items": "20"}') == {}


def test_a_run_given_back_does_not_use_up_its_attempts(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    for _ in range(MAX_ATTEMPTS - 1):
        claim(claims, 0)  # the worker in this slot died, or it would not ask again
    for _ in range(2 * MAX_ATTEMPTS):
        claims.give_back(claim(claims, 0))
        assert queue.view(run_id, ADA).status == "queued"


def test_a_run_of_which_one_seed_is_given_back_goes_on(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    given, other = claim(claims, 0), claim(claims, 1)
    claims.give_back(given)
    assert queue.view(run_id, ADA).status == "running"
    assert claim(claims, 2).seed == given.seed
    assert other.seed != given.seed


def test_a_cancelled_run_that_is_given_back_has_ended(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    one = claim(claims, 0)
    queue.cancel(run_id, ADA)
    claims.give_back(one)
    assert queue.view(run_id, ADA).status == "cancelled"


def test_a_run_that_is_done_has_done_all_its_seeds(queue: RunQueue, claims: Claims) -> None:
    run_id = submit(queue)
    finish(claims, run_id)
    assert queue.view(run_id, ADA).seeds_done == 2
