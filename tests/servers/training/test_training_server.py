"""The training server end to end, with real workers, real forks and a real (toy) Qwen3 model."""

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mcp.server.mcpserver.exceptions import ToolError
from transformers import AutoModelForCausalLM, AutoTokenizer

from outlearn.errors import NotFoundError, OutlearnError
from outlearn.identity import OPERATOR, Caller
from outlearn.receipts import ReceiptBook
from outlearn.tasks import load_card, load_secret
from outlearn.testing import ToolClient, connect
from outlearn_training.export import export_students
from outlearn_training.lab import prompts_for
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.sandbox.landlock import landlock_version
from outlearn_training.sandbox.mechanisms import describe_mechanisms, find_mechanisms
from outlearn_training.server import build
from outlearn_training.service import TrainingService
from outlearn_training.settings import TrainingSettings
from outlearn_training.weights import weight_files
from outlearn_training.workers.executor import LocalExecutor
from outlearn_training.workers.slots import slot_is_alive, slot_pid
from outlearn_training.workers.worker import FULL

from .test_waiting_and_listing import NoWorkers

LIMIT_SECONDS = 300
GOOD = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"


def settings_for(home: Path, **changes: Any) -> TrainingSettings:
    return TrainingSettings(home=home, workers=1, agent="ada", worker_idle_seconds=30, **changes)


@asynccontextmanager
async def serving(settings: TrainingSettings) -> AsyncIterator[ToolClient]:
    """A client of a training server whose workers end with the test."""
    try:
        async with connect(build(settings)) as client:
            yield client
    finally:
        LocalExecutor(settings).stop()


async def finish(client: ToolClient, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        view: dict[str, Any] = await client.call("get_run", run_id=run_id, wait_seconds=10)
        if view["status"] in ("done", "failed", "cancelled"):
            return view
    raise AssertionError(f"{run_id} did not finish: {view}")


async def until(condition: Callable[[], bool], client: ToolClient, run_id: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await client.call("get_run", run_id=run_id, wait_seconds=0.2)


def write_method(settings: TrainingSettings, source: str, name: str = "mine.py") -> str:
    folder = settings.workspaces / settings.agent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(source, encoding="utf-8")
    return name


async def test_all_built_in_methods_run_and_get_receipts_for_the_servers_seeds(warm: TrainingSettings) -> None:
    card = load_card(warm.home, "toy")
    async with connect(build(warm)) as client:
        names = [method["name"] for method in (await client.call("list_methods"))["methods"]]
        assert {"vanilla", "confident", "logconf", "ue_zeroshot"} <= set(names)
        runs = [await client.call("submit_run", method=name, kind="full") for name in names]
        for run in runs:
            view = await finish(client, run["run_id"])
            assert (view["status"], view["seeds_done"]) == ("done", 5), view
            receipts = ReceiptBook(warm.vault).read(run["run_id"])
            assert tuple(receipt.seed for receipt in receipts) == card.seeds
            assert {receipt.task_fingerprint for receipt in receipts} == {card.fingerprint}
            assert {receipt.sandbox for receipt in receipts} == {describe_mechanisms(find_mechanisms(warm))}
            assert {len(receipt.predictions) for receipt in receipts} == {card.test_size}


async def test_a_runs_students_are_exported_as_transformers_loads_them(warm: TrainingSettings, tmp_path: Path) -> None:
    home, card = warm.home, load_card(warm.home, "toy")
    async with connect(build(warm)) as client:
        run = await client.call("submit_run", method="vanilla", kind="full")
        assert (await finish(client, run["run_id"]))["status"] == "done"
    receipt = ReceiptBook(home / "vault").read(run["run_id"])[-1]
    folders = export_students(home, run["run_id"], None, tmp_path / "all")
    assert [str(one.relative_to(tmp_path / "all")) for one in folders] == [f"seed-{s}/student-0" for s in card.seeds]
    assert export_students(home, run["run_id"], receipt.seed, tmp_path / "one") == [tmp_path / "one/seed-4/student-0"]
    folder = folders[-1]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    words = [tokenizer.encode(word)[0] for word in card.label_words]
    for prompt, expected in zip(prompts_for(card, load_secret(home, card.name).test), receipt.predictions, strict=True):
        logits = model(torch.tensor([tokenizer.encode(prompt)])).logits[0, -1, words]
        assert logits.softmax(-1)[1].item() == pytest.approx(expected, abs=1e-5)
    with pytest.raises(OutlearnError, match="not empty"):
        export_students(home, run["run_id"], None, tmp_path / "all")
    with pytest.raises(NotFoundError, match="no receipt for seed 77; it has 0, 1, 2, 3, 4"):
        export_students(home, run["run_id"], 77, tmp_path / "other")
    with pytest.raises(NotFoundError, match=r"there is no run 'run-0.* with students in .*; only full runs.*--home"):
        export_students(home, "run-0000000000", None, tmp_path / "other")
    with pytest.raises(NotFoundError, match="there is no run"):
        export_students(tmp_path / "empty", run["run_id"], None, tmp_path / "other")
    assert not (tmp_path / "empty").exists()


async def test_students_make_room_for_newer_ones_and_receipts_stay(home: Path, tmp_path: Path) -> None:
    settings = settings_for(home, keep_weights_gb=0, seed_seconds=99, log_bytes=12_345)
    async with serving(settings) as client:
        old, new = [
            (await client.call("submit_run", method="vanilla", params=params, kind="full"))["run_id"]
            for params in ({"epochs": 0.5}, {"epochs": 1})
        ]
        assert [(await finish(client, run_id))["status"] for run_id in (old, new)] == ["done", "done"]
        await until(lambda: not any(map(has_students(home, old), range(5))), client, old)
    assert len(export_students(home, new, None, tmp_path / "new")) == 5
    with pytest.raises(NotFoundError, match=r"removed to make room.*'vanilla' of 'ada' run again"):
        export_students(home, old, None, tmp_path / "old")
    assert not (tmp_path / "old").exists()
    assert len(ReceiptBook(settings.vault).read(old)) == 5
    kept = TrainingSettings.as_kept(home)
    assert (kept.workers, kept.seed_seconds, kept.log_bytes) == (1, 99, 12_345)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
async def test_a_run_that_found_the_disk_full_says_so_and_goes_on_once_there_is_room(home: Path) -> None:
    settings = settings_for(home)
    given: dict[str, Any] = {"method": "vanilla", "file": None, "params": {}, "kind": "pilot", "task": ""}
    run_id = TrainingService(settings, NoWorkers()).submit(Caller(agent="ada"), **given, request_id=None).run_id
    log = settings.run_log(run_id)
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")

    def says_so() -> bool:
        view = RunQueue(settings.database("training")).view(run_id, OPERATOR)
        return (view.status, view.message) == ("queued", f"queued again: {FULL}")

    async with serving(settings) as client:
        await until(says_so, client, run_id)
        log.unlink()
        view = await finish(client, run_id)
        assert (view["status"], view["seeds_done"]) == ("done", 1)


def has_students(home: Path, run_id: str) -> Callable[[int], bool]:
    receipts = ReceiptBook(home / "vault").read(run_id)
    return lambda seed: weight_files(home).has(receipts[seed].weights_sha256[0])


async def test_pilot_runs_one_seed_and_gets_no_receipt(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        run = await client.call("submit_run", method="vanilla", kind="pilot")
        assert (await finish(client, run["run_id"]))["seeds_total"] == 1
    assert ReceiptBook(warm.vault).read(run["run_id"]) == ()


async def test_a_run_tells_how_it_used_the_machine(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        view = await finish(client, (await client.call("submit_run", method="vanilla", kind="pilot"))["run_id"])
    assert view["seconds_left"] is None
    assert view["usage"]["tokens_per_second"] > 0
    assert 0 < view["usage"]["mfu"] < 2
    assert view["usage"]["peak_memory_mb"] > 100
    assert view["usage"]["peak_gpu_mb"] >= 0


BROKEN = {
    "raises": ("raise ValueError('my own mistake')", "ValueError: my own mistake"),
    "nan targets": ("return lab.fit([float('nan')] * len(lab.pool))", "targets must be in [0, 1]"),
    "wrong length": ("return lab.fit([0.5])", "targets has shape (1,)"),
    "no student": ("return None", "returned NoneType"),
    "empty ensemble": ("return []", "returned list"),
    "exits": ("import os; os._exit(3)", "ended with exit code 3"),
    "sys.exit": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "nan weights": (
        "s = lab.fit(lab.weak_labels())\n    [t.fill_(float('nan')) for t in s.weights.values()]\n    return s",
        "NaN or beyond 10000",
    ),
    "foreign weights": (
        "s = lab.fit(lab.weak_labels())\n    s.weights['extra'] = next(iter(s.weights.values()))\n    return s",
        "not of this base model",
    ),
    "eats memory": ("x = bytearray(3 * 2**30)", "out of memory"),
    "signals itself": ("import os; os.kill(os.getpid(), 9)", "killed by signal 9"),
    "bad loss name": ("return lab.fit(lab.weak_labels(), loss='mystery')", "no loss 'mystery'"),
    "bad epochs": ("return lab.fit(lab.weak_labels(), epochs=-1)", "epochs must be above 0"),
    "unknown param": ("return lab.fit(lab.weak_labels(), depth=3)", "TypeError"),
}


async def test_a_method_that_misbehaves_fails_with_its_reason_and_the_worker_goes_on(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        runs = {}
        for what, (body, _) in BROKEN.items():
            file = write_method(warm, f"def method(lab, seed):\n    {body}\n")
            runs[what] = (await client.call("submit_run", file=file, kind="full"))["run_id"]
        file = write_method(warm, GOOD)
        good = (await client.call("submit_run", file=file, kind="full"))["run_id"]
        for what, (_, reason) in BROKEN.items():
            view = await finish(client, runs[what])
            assert view["status"] == "failed", (what, view)
            assert reason in view["message"], (what, view["message"])
            assert ReceiptBook(warm.vault).read(runs[what]) == ()
        assert (await finish(client, good))["status"] == "done"
        log = await client.call("read_run_log", run_id=runs["raises"])
        assert "method.py" in log["text"]
        assert "host.py" not in log["text"]


async def test_a_method_that_loops_forever_is_stopped_at_the_limit(home: Path) -> None:
    settings = settings_for(home, seed_seconds=1)
    async with serving(settings) as client:
        file = write_method(settings, "def method(lab, seed):\n    while True: pass\n")
        run = await client.call("submit_run", file=file)
        view = await finish(client, run["run_id"])
        assert view["status"] == "failed"
        assert "longer than the 1 seconds" in view["message"]


async def test_a_method_that_prints_a_gigabyte_keeps_a_short_log_and_goes_on(warm: TrainingSettings) -> None:
    source = "def method(lab, seed):\n    line = 'x' * 2**20\n    for _ in range(1024): print(line)\n"
    async with connect(build(warm)) as client:
        file = write_method(warm, source + "    return lab.fit(lab.weak_labels())\n")
        run = await client.call("submit_run", file=file)
        assert (await finish(client, run["run_id"]))["status"] == "done"
        page = await client.call("read_run_log", run_id=run["run_id"], max_bytes=50_000)
        assert page["size"] < 11_000
        assert page["text"].rstrip().endswith("[the rest of the output is not kept]")


async def test_a_running_run_is_cancelled_within_two_seconds(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        file = write_method(warm, "def method(lab, seed):\n    print('in', flush=True)\n    while True: pass\n")
        run_id = (await client.call("submit_run", file=file))["run_id"]
        waiting = (await client.call("submit_run", file=file))["run_id"]
        await until(lambda: "in" in read_text(warm.run_log(run_id)), client, run_id)
        start = time.monotonic()
        await client.call("cancel_run", run_id=run_id)
        assert (await client.call("cancel_run", run_id=waiting))["status"] == "cancelled"
        assert (await finish(client, run_id))["status"] == "cancelled"
        assert time.monotonic() - start < 2


async def test_a_run_survives_the_kill_of_its_worker_and_repeats_no_finished_seed(warm: TrainingSettings) -> None:
    gate = warm.home / "data" / "gate"
    source = (
        "import time, pathlib\n"
        "def method(lab, seed):\n"
        "    print('ran', seed, flush=True)\n"
        f"    while seed == 2 and not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)\n"
        "    return lab.fit(lab.weak_labels())\n"
    )
    async with connect(build(warm)) as client:
        file = write_method(warm, source)
        run_id = (await client.call("submit_run", file=file, kind="full"))["run_id"]
        await until(lambda: "ran 2" in read_text(warm.run_log(run_id)), client, run_id)
        pid = slot_pid(warm.home, 0)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        gate.touch()
        view = await finish(client, run_id)
        assert (view["status"], view["seeds_done"]) == ("done", 5)
    gate.unlink()
    log = read_text(warm.run_log(run_id))
    assert [log.count(f"ran {seed}\n") for seed in range(5)] == [1, 1, 2, 1, 1]
    assert [receipt.seed for receipt in ReceiptBook(warm.vault).read(run_id)] == [0, 1, 2, 3, 4]


async def test_what_a_killed_worker_left_of_a_run_that_nobody_wants_any_more_is_removed(warm: TrainingSettings) -> None:
    home = warm.home
    source = "import time\ndef method(lab, seed):\n    print('in', flush=True)\n    while True: time.sleep(0.01)\n"
    async with connect(build(warm)) as client:
        run_id = (await client.call("submit_run", file=write_method(warm, source)))["run_id"]
        await until(lambda: "in" in read_text(warm.run_log(run_id)), client, run_id)
        pid = slot_pid(home, 0)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert list((home / "scratch").iterdir())
        await client.call("cancel_run", run_id=run_id)
        assert (await finish(client, run_id))["status"] == "cancelled"
        assert (await finish(client, (await client.call("submit_run", method="vanilla"))["run_id"]))["status"] == "done"
        assert not list((home / "scratch").iterdir())


async def test_runs_go_on_when_the_server_leaves_and_a_second_server_shows_them(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        run_id = (await client.call("submit_run", method="vanilla", kind="full"))["run_id"]
    async with connect(build(warm)) as second:
        assert (await finish(second, run_id))["status"] == "done"


async def test_two_servers_on_one_home_start_one_worker_a_slot(home: Path) -> None:
    settings = settings_for(home)
    async with serving(settings) as one, connect(build(settings)) as two:
        first = (await one.call("submit_run", method="vanilla"))["run_id"]
        second = (await two.call("submit_run", method="vanilla"))["run_id"]
        assert (await finish(one, second))["status"] == "done"
        assert (await finish(two, first))["status"] == "done"
        assert slot_is_alive(home, 0)
        assert not slot_is_alive(home, 1)


def read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


async def test_bad_requests_say_what_to_do(home: Path) -> None:
    settings = settings_for(home)
    async with serving(settings) as client:
        for tool, arguments, expected in (
            ("submit_run", {"method": "vanila"}, "vanilla"),
            ("list_methods", {"method": "vanila"}, "vanilla"),
            ("submit_run", {}, "`method`"),
            ("submit_run", {"method": "vanilla", "file": "a.py"}, "not both"),
            ("submit_run", {"method": "vanilla", "params": {"epoch": 1}}, "epochs"),
            ("submit_run", {"method": "vanilla", "params": {"epochs": 1e9}}, "less than or equal to 4"),
            ("submit_run", {"method": "vanilla", "params": "x"}, "valid dictionary"),
            ("submit_run", {"method": "vanilla", "kind": "huge"}, "pilot"),
            ("submit_run", {"method": "vanilla", "request_id": "a\0b"}, "1 to 100 printable characters"),
            ("submit_run", {"method": "vanilla", "task": "chess"}, "toy"),
            ("submit_run", {"file": "missing.py"}, "missing.py"),
            ("submit_run", {"file": "../bob/mine.py"}, ".."),
            ("get_run", {"run_id": "run-0000000000"}, "list_runs"),
            ("get_run", {"run_id": "'; drop table runs"}, "list_runs"),
            ("cancel_run", {"run_id": "\0"}, "list_runs"),
            ("read_run_log", {"run_id": "../../vault"}, "list_runs"),
            ("list_runs", {"cursor": "abc"}, "cursor"),
            ("describe_task", {"task": "../vault"}, "toy"),
            ("sample_items", {"count": 1000}, "less than or equal to 50"),
        ):
            with pytest.raises(ToolError) as caught:
                await client.call(tool, **arguments)
            assert expected in str(caught.value), (tool, arguments, str(caught.value))
        write_method(settings, "def method(lab, seed:\n", "broken.py")
        with pytest.raises(ToolError, match="not Python that parses"):
            await client.call("submit_run", file="broken.py")
        write_method(settings, "x = 1\n", "empty.py")
        with pytest.raises(ToolError, match="no function"):
            await client.call("submit_run", file="empty.py")
        write_method(settings, "def method(lab, seed, trust=0.3, *, keep=1):\n    ...\n", "named.py")
        for wrong in ("trsut", "seed"):
            with pytest.raises(ToolError, match=f"'named.py' takes no '{wrong}'; its params are: trust, keep"):
                await client.call("submit_run", file="named.py", params={wrong: 1})
        assert (await client.call("list_runs"))["runs"] == []


async def test_a_retried_submission_makes_one_run(warm: TrainingSettings) -> None:
    async with connect(build(warm.model_copy(update={"max_waiting": 2}))) as client:
        first = await client.call("submit_run", method="vanilla", request_id="once")
        again = await client.call("submit_run", method="vanilla", request_id="once")
        assert first["run_id"] == again["run_id"]
        with pytest.raises(ToolError, match="used for another run"):
            await client.call("submit_run", method="logconf", request_id="once")
        await finish(client, first["run_id"])
        assert len((await client.call("list_runs"))["runs"]) == 1


async def test_another_agents_run_cannot_be_seen_or_cancelled(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as ada:
        run_id = (await ada.call("submit_run", method="vanilla"))["run_id"]
        async with connect(build(warm.model_copy(update={"agent": "bob"}))) as bob:
            for tool in ("get_run", "cancel_run", "read_run_log"):
                with pytest.raises(ToolError, match="you have no run"):
                    await bob.call(tool, run_id=run_id)
            assert (await bob.call("list_runs"))["runs"] == []


async def test_agents_see_no_truth(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        card = (await client.call("describe_task"))["card"]
        items = (await client.call("sample_items", count=50))["items"]
    assert not {"public_half", "pool_labels", "label"} & set(card)
    assert all(set(item) == {"id", "text", "group", "weak_labels"} for item in items)
    assert not any("!" in item["text"] for item in items)  # only the test items have one


ESCAPES = {
    "vault": "open({home!r} + '/vault/toy/secret.json').read()",
    "vault listing": "os.listdir({home!r} + '/vault')",
    "receipts key": "open({home!r} + '/vault/signing.key', 'rb').read()",
    "database": "open({home!r} + '/training.sqlite', 'rb').read()",
    "hard link": "os.link({home!r} + '/vault/toy/secret.json', 'x')",
    "symlink": "os.symlink({home!r} + '/vault', {out!r} + '/x')",
    "workspace of another": "os.listdir({home!r} + '/workspaces/bob')",
    "write elsewhere": "open('/tmp/escaped', 'w')",
    "write a workspace": "open({home!r} + '/workspaces/ada/left', 'w')",
    "a parent's memory": "open(f'/proc/{{os.getppid()}}/mem', 'rb')",
    "a parent's environment": "open(f'/proc/{{os.getppid()}}/environ', 'rb')",
    "a program": "os.execv('/bin/ls', ['ls'])",
    "a child program": "__import__('subprocess').run(['/bin/true'])",
    "a signal": "os.kill(os.getppid(), 15)",
    "the network": "__import__('socket').create_connection(('127.0.0.1', 9))",
}


@pytest.mark.skipif(landlock_version() < 6, reason="this kernel has no Landlock of version 6")
async def test_a_method_cannot_leave_its_sandbox(home: Path) -> None:
    settings = settings_for(home, bubblewrap=False)
    (home / "workspaces" / "bob").mkdir(parents=True)
    lines = ["import os", "def method(lab, seed):", "    held = []"]
    for name, attack in ESCAPES.items():
        code = attack.format(home=str(home), out=str(home / "scratch"))
        lines += ["    try:", f"        {code}", "    except PermissionError:", f"        held.append({name!r})"]
    source = "\n".join([*lines, "    print('HELD', held)", "    return lab.fit(lab.weak_labels())", ""])
    async with serving(settings) as client:
        run = await client.call("submit_run", file=write_method(settings, source), kind="full")
        view = await finish(client, run["run_id"])
        log = (await client.call("read_run_log", run_id=run["run_id"]))["text"]
    assert view["status"] == "done", (view, log)
    assert f"HELD {list(ESCAPES)!r}" in log, log
