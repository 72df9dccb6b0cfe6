"""`get_run` that waits: many callers share a look at the queue, and the loop is free. `list_methods` in few words."""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anyio
import pytest

from outlearn.testing import connect
from outlearn_training.queue.run_queue import Glance
from outlearn_training.queue.waiting import RunWatch
from outlearn_training.server import build
from outlearn_training.settings import TrainingSettings

CALLERS = 64


class Looks:
    """Remembers what was asked for, and in which threads."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.threads: set[int] = set()

    def __call__(self, run_ids: Iterable[str]) -> Mapping[str, Glance]:
        self.asked.append(set(run_ids))
        self.threads.add(threading.get_ident())
        return {run_id: Glance("running", 0.5, run_id) for run_id in run_ids if run_id != "none"}


class NoWorkers:
    """Leaves every run in the queue."""

    def ensure(self) -> None: ...

    def stop(self) -> None: ...


async def test_callers_that_wait_share_one_look_in_a_thread() -> None:
    looks, found = Looks(), dict[str, Glance | None]()
    watch = RunWatch(looks, 0.0)

    async def wait_for(run_id: str) -> None:
        found[run_id] = await watch.glance(run_id)

    async with anyio.create_task_group() as group:
        for number in range(CALLERS):
            group.start_soon(wait_for, f"run-{number % 4}")
        group.start_soon(wait_for, "none")
    assert looks.asked == [{"run-0", "run-1", "run-2", "run-3", "none"}]
    assert threading.get_ident() not in looks.threads
    assert found == {f"run-{n}": Glance("running", 0.5, f"run-{n}") for n in range(4)} | {"none": None}


async def test_a_caller_that_leaves_takes_no_other_with_it() -> None:
    looks, seen = Looks(), list[Glance | None]()
    watch = RunWatch(looks, 0.0)

    async def wait() -> None:
        seen.append(await watch.glance("run-0"))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as first:
            group.start_soon(wait)  # begins after the first, so it follows
            first.cancel()
            await watch.glance("run-0")
    assert seen == [Glance("running", 0.5, "run-0")]
    assert watch._coming is None


async def test_a_caller_keeps_its_turn_until_it_waits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = list[str]()
    for kit in ("outlearn.server", "outlearn_training.server"):
        monkeypatch.setattr(f"{kit}.step_aside", lambda: happened.append("stepped aside"), raising=False)
    ask = RunWatch.ask

    async def asked(watch: RunWatch, question: Callable[[], object]) -> object:
        happened.append("asked")
        return await ask(watch, question)

    monkeypatch.setattr(RunWatch, "ask", asked)
    async with connect(build(TrainingSettings(home=home, agent="ada"), NoWorkers())) as client:
        run = await client.call("submit_run", method="vanilla")
        await client.call("get_run", run_id=run["run_id"])
        assert happened == ["asked"]
        await client.call("get_run", run_id=run["run_id"], wait_seconds=0.1)
    assert happened[1:3] == ["asked", "stepped aside"]


async def test_an_error_reaches_every_caller_that_waits() -> None:
    def fail(_: Iterable[str]) -> Mapping[str, Glance]:
        raise RuntimeError("no database")

    watch, failed = RunWatch(fail, 0.0), list[int]()

    async def wait(number: int) -> None:
        with pytest.raises(RuntimeError, match="no database"):
            await watch.glance("run-0")
        failed.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(wait, number)
    assert sorted(failed) == [0, 1, 2]


async def test_the_event_loop_is_free_while_the_database_is_slow() -> None:
    begun, answer = threading.Event(), threading.Event()

    def slow(run_ids: Iterable[str]) -> Mapping[str, Glance]:
        begun.set()
        assert answer.wait(60)
        return {run_id: Glance("done", 1.0, "") for run_id in run_ids}

    watch = RunWatch(slow, 0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(watch.glance, "run-0")
        assert await anyio.to_thread.run_sync(begun.wait, 60)
        answer.set()  # by the loop, which would wait for it otherwise


async def test_methods_are_listed_in_few_words_and_one_is_shown_with_its_source(home: Path) -> None:
    async with connect(build(TrainingSettings(home=home, agent="ada"), NoWorkers())) as client:
        listed = await client.client.call_tool("list_methods", {})
        (named,) = (await client.call("list_methods", method="critic"))["methods"]
        shown = (await client.client.call_tool("list_methods", {"method": "critic"})).content[0].text
    methods = {one["name"]: one for one in listed.structured_content["methods"]}
    assert {"vanilla", "critic", "ue_zeroshot"} <= set(methods)
    assert not any("source" in one for one in methods.values())
    assert {name for name, one in methods.items() if not one.get("uses_weak_labels", True)} >= {"ue_zeroshot"}
    text = listed.content[0].text
    assert len(text) < 400 * len(methods)
    assert "vanilla: Fine-tune the student on the weak labels as they are" in text
    assert "epochs=1.0, maximum 4, minimum 0.25" in text
    assert "def method(" in named["source"]
    assert named["source"] in shown


async def test_get_run_waits_until_the_run_has_ended_and_tells_what_comes(home: Path) -> None:
    settings, told = TrainingSettings(home=home, agent="ada"), anyio.Event()
    async with connect(build(settings, NoWorkers())) as client:
        run_id = (await client.call("submit_run", method="vanilla"))["run_id"]
        assert (await client.call("get_run", run_id=run_id, wait_seconds=0.1))["status"] == "queued"
        views = list[str]()

        async def follow() -> None:
            told.set()
            views.append((await client.call("get_run", run_id=run_id, wait_seconds=50))["status"])

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(follow)
            await told.wait()
            await client.call("cancel_run", run_id=run_id)
        assert views == ["cancelled"] * 8
