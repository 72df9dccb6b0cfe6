"""Methods that attack the host, the worker and the predictor, with real processes and a real (toy) Qwen3 model."""

import json
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlearn.errors import InvalidInputError
from outlearn.identity import Caller
from outlearn.receipts import ReceiptBook
from outlearn.testing import ToolClient, connect
from outlearn_training.model import Weights, check_weights
from outlearn_training.sandbox.landlock import landlock_version
from outlearn_training.sandbox.method_sandbox import MAX_METRICS
from outlearn_training.server import build
from outlearn_training.service import TrainingService
from outlearn_training.settings import TrainingSettings
from outlearn_training.students import HEADER_BYTES, parse_student
from outlearn_training.workers.slots import slot_pid

from .test_training_server import GOOD, finish, read_text, settings_for, until, write_method

torch = pytest.importorskip("torch")


class Idle:
    """An executor that runs nothing."""

    def ensure(self) -> None:
        pass

    def stop(self) -> None:
        pass


PRELUDE = """
import json, os, pathlib, sys, time
def events():
    emit = sys._getframe(2).f_locals["lab"]._emit
    return next(c.cell_contents for c in emit.__closure__ if isinstance(c.cell_contents, int))
def out():
    frame = sys._getframe()
    while "job" not in frame.f_locals or "trainer" not in frame.f_locals: frame = frame.f_back
    return frame.f_locals["job"].out
def say(text): os.write(events(), text.encode(errors="surrogatepass") + b"\\n")
"""


def attack(settings: TrainingSettings, body: str, name: str = "attack.py") -> str:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    source = f"{PRELUDE}\ndef method(lab, seed):\n{lines}\n    return lab.fit(lab.weak_labels())\n"
    return write_method(settings, source, name)


async def run_attack(client: ToolClient, settings: TrainingSettings, body: str, **options: Any) -> dict[str, Any]:
    run = await client.call("submit_run", file=attack(settings, body), **options)
    return await finish(client, run["run_id"])


FORGED = {
    "a huge number": 'say(\'{"metrics": {"x": 1\' + "0" * 400 + "}}")',
    "a huge step": 'say(\'{"step": 1\' + "0" * 400 + \', "steps": 1, "loss_nats": 0}\')',
    "deep nesting": 'say("[" * 60000)',
    "a lone surrogate": 'say(\'{"metrics": {"\\\\ud800\\\\u001b[31m": 1.5}}\')',
    "not text": 'os.write(events(), bytes(range(256)) * 10 + b"\\n")',
    "many metrics": '[lab.log(**{f"m{i}_{j}": i for j in range(50)}) for i in range(100)]',
    "binary output": 'os.write(1, bytes(range(256)) + b"\\x1b[2J")',
}


async def test_forged_events_neither_stop_the_worker_nor_break_the_answers(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        view = await run_attack(client, warm, "\n".join(FORGED.values()))
        worker = slot_pid(warm.home, 0)
        assert (view["status"], view["message"]) == ("done", "done: submit it as a full run to have it scored")
        assert 0 < len(view["metrics"]) <= MAX_METRICS
        assert "\ufffd\ufffd[31m" in view["metrics"]
        failed = await run_attack(client, warm, 'say(\'{"error": "\\\\ud800 \\\\u001b[31m \\\\u0000"}\')')
        assert (failed["status"], failed["message"]) == ("failed", "\ufffd \ufffd[31m \ufffd")
        assert len((await client.call("list_runs"))["runs"]) == 2
        assert slot_pid(warm.home, 0) == worker


async def test_a_method_changes_nothing_for_the_next_one(warm: TrainingSettings) -> None:
    poison = """
lab._trainer.model.model.zero_grad()
import torch, outlearn_training.sandbox.host, outlearn_training.trainer
with torch.no_grad():
    for p in lab._trainer.model.model.parameters(): p.zero_()
    for p in lab._trainer.model._base.values(): p.zero_()
lab._trainer.model._token_cache.clear()
outlearn_training.sandbox.host.save_students = None
type(lab).weak_labels = lambda self: 1 / 0
os.environ["OUTLEARN_HOME"] = "/"
raise SystemExit
"""
    async with connect(build(warm)) as client:
        before = await client.call("submit_run", file=write_method(warm, GOOD), kind="full")
        await finish(client, before["run_id"])
        assert (await run_attack(client, warm, poison))["status"] == "failed"
        after = await client.call("submit_run", file=write_method(warm, GOOD), kind="full")
        assert (await finish(client, after["run_id"]))["status"] == "done"
    book = ReceiptBook(warm.vault)
    first, second = ([one.predictions for one in book.read(run["run_id"])] for run in (before, after))
    assert first == second


UNUSABLE = {
    "huge weights": (
        "s = lab.fit(lab.weak_labels())\n[t.fill_(3e38) for k, t in s.weights.items() if 'norm' in k]\nreturn s",
        "has values that are NaN or beyond 10000; lower the learning rate",
    ),
    "fp8": (
        "import torch\ns = lab.fit(lab.weak_labels())\n"
        "s.weights.update({k: v.to(torch.float8_e4m3fn) for k, v in s.weights.items()})\nreturn s",
        "float8_e4m3fn",
    ),
    "a header that torch does not know": (
        'h = b\'{"a":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}\'\n'
        "(out() / 'student-0.safetensors').write_bytes(len(h).to_bytes(8, 'little') + h + b'0')\nos._exit(0)",
        "not a safetensors file",
    ),
    "a shape that torch cannot count": (
        'h = b\'{"a":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}}\'\n'
        "(out() / 'student-0.safetensors').write_bytes(len(h).to_bytes(8, 'little') + h)\nos._exit(0)",
        "not a safetensors file",
    ),
    "a folder": ("(out() / 'student-0.safetensors').mkdir()", "PermissionError"),
    "a file of a gigabyte": (
        "with (out() / 'x').open('wb') as file:\n    for _ in range(2**10): file.write(bytes(2**20))",
        "File too large",
    ),
    "a thousand files": (
        "for i in range(1000): (out() / f'{i}').touch()\nwhile True: pass",
        "wrote more than 16 files",
    ),
    "nine students": (
        "for i in range(9): (out() / f'student-{i}.safetensors').write_bytes(b'x')\nos._exit(0)",
        "at most 8 students",
    ),
}


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
async def test_students_that_cannot_be_used_fail_their_run_and_not_the_worker(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        for what, (body, reason) in UNUSABLE.items():
            view = await run_attack(client, warm, body, kind="full")
            assert (view["status"], reason in view["message"]) == ("failed", True), (what, view["message"])
            assert ReceiptBook(warm.vault).read(view["run_id"]) == ()
        worker = slot_pid(warm.home, 0)
        assert (await run_attack(client, warm, "", kind="full"))["status"] == "done"
        assert slot_pid(warm.home, 0) == worker
        assert not list((warm.home / "scratch").iterdir())


CLOGGED = """
import fcntl, threading
channel = events()
fcntl.fcntl(channel, fcntl.F_SETFL, os.O_WRONLY | os.O_NONBLOCK)
def clog():
    while True:
        try: os.write(channel, b"\\n" * 4096)
        except BlockingIOError: pass
threading.stack_size(65536)
for _ in range(2): threading.Thread(target=clog).start()
while True: threading.Thread(target=time.sleep, args=(600,)).start()
"""


async def test_a_method_that_clogs_its_channel_does_not_end_the_host_that_others_need(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        view = await run_attack(client, warm, CLOGGED)
    assert (view["status"], view["message"]) == ("failed", "started more than 18 threads")


async def test_a_run_that_fails_is_charged_for_all_that_it_took(warm: TrainingSettings) -> None:
    body = "end = time.monotonic() + 0.9\nwhile time.monotonic() < end: pass\nraise SystemExit"  # between two reports
    async with connect(build(warm)) as client:
        await run_attack(client, warm, "")  # the first one may wait for the method host
        view = await run_attack(client, warm, body)
    assert (view["status"], view["device_seconds"] >= 0.9) == ("failed", True), view


async def test_a_run_that_nobody_cancelled_is_not_called_so(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        view = await run_attack(client, warm, 'say(\'{"error": "cancelled"}\')')
    assert (view["status"], view["message"]) == ("failed", "cancelled")


def as_file(dtype: str, shape: list[int], size: int) -> bytes:
    header = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "I32", "I64", "C64", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F4"])
def test_weights_of_other_types_than_floats_are_refused(dtype: str) -> None:
    size = {"I32": 4, "I64": 8, "C64": 8}.get(dtype, 1)
    like: Weights = {"a": torch.zeros(2)}
    with pytest.raises(InvalidInputError, match=r"is of torch\.|not a safetensors file"):
        check_weights(parse_student(as_file(dtype, [2], size if dtype == "F4" else 2 * size))[0], like)


@pytest.mark.parametrize("shape", [[0, 2**62, 2**62], [0, 2**63], [2**64 - 1, 0]])
def test_a_shape_too_large_for_torch_is_refused_in_one_line(shape: list[int]) -> None:
    with pytest.raises(InvalidInputError, match="not a safetensors file") as refused:
        parse_student(as_file("F32", shape, 0))
    assert "\n" not in str(refused.value)


def test_names_of_weights_are_quoted_in_part_and_without_what_terminals_and_databases_obey() -> None:
    name = "\0\x1b[2J\u202e" * 10_000
    like: Weights = {"b": torch.zeros(2)}
    for begin in (0, 4):  # an offset that is wrong is told with the name as it is
        header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [begin, begin + 8]}}).encode()
        with pytest.raises(InvalidInputError, match="student's weights") as refused:
            check_weights(parse_student(struct.pack("<Q", len(header)) + header + bytes(8 + begin))[0], like)
        assert len(str(refused.value)) < 1000
        assert str(refused.value).isprintable()


def test_a_header_that_takes_the_room_of_weights_is_refused_unread() -> None:
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(number): empty for number in range(HEADER_BYTES // 40)}).encode()
    with pytest.raises(InvalidInputError, match="header"):
        parse_student(struct.pack("<Q", len(header)) + header)


def nested(depth: int) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(depth):
        made = {"a": made}
    return made


@pytest.mark.parametrize(
    "params", [{"x": "\ud800"}, {"x": float("nan")}, {"x": 10**5000}, {"x": "é" * 6000}, {"x": b""}, nested(5000)]
)
def test_odd_params_are_refused(home: Path, params: dict[str, Any]) -> None:
    settings = settings_for(home)
    service = TrainingService(settings, Idle())
    file = write_method(settings, GOOD)
    with pytest.raises(InvalidInputError, match="params"):
        service.submit(
            Caller(agent="ada"), method=None, file=file, params=params, kind="full", task="", request_id=None
        )


def test_params_that_could_not_be_read_again_in_a_list_or_a_release_are_refused(home: Path) -> None:
    settings = settings_for(home)
    service = TrainingService(settings, Idle())
    file = write_method(settings, "def method(lab, seed, a): ...\n")
    fixed: dict[str, Any] = {"method": None, "file": file, "kind": "full", "task": "", "request_id": None}
    assert service.submit(Caller(agent="ada"), params=nested(19), **fixed).params == nested(19)
    for deep in (nested(20), {"a": [[nested(18)]]}):
        with pytest.raises(InvalidInputError, match="nested more than 20 deep"):
            service.submit(Caller(agent="ada"), params=deep, **fixed)


@pytest.mark.parametrize("name", ["vanilla", "a\n.py", "\x1b[31m.py", "\udc80.py", "\u202eyp.py", ".py/"])
def test_a_files_name_cannot_pass_for_a_registered_method_or_hide_what_it_is(home: Path, name: str) -> None:
    settings = settings_for(home)
    service = TrainingService(settings, Idle())
    write_method(settings, GOOD, "vanilla")
    with pytest.raises(InvalidInputError, match="plain name"):
        service.submit(Caller(agent="ada"), method=None, file=name, params={}, kind="full", task="", request_id=None)


async def test_files_from_any_editor_run(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        for prefix in ("\ufeff", "# -*- coding: utf-16 -*-\r\n", "#" + "x" * 60_000 + "\n"):
            file = write_method(warm, prefix + GOOD.replace("\n", "\r\n"))
            run = await client.call("submit_run", file=file)
            assert (await finish(client, run["run_id"]))["status"] == "done"


async def test_a_log_read_in_pieces_is_the_whole_log(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        view = await run_attack(client, warm, 'print("ä€𝄞" * 20)\nos.write(1, bytes([255, 10]))')
        whole = (await client.call("read_run_log", run_id=view["run_id"]))["text"]
        assert "ä€𝄞" * 20 + "\n\ufffd\n" in whole
        for step in (1, 2, 5, 7):
            pieces, offset = "", 0
            while offset is not None:
                page = await client.call("read_run_log", run_id=view["run_id"], offset=offset, max_bytes=max(step, 4))
                pieces, offset = pieces + page["text"], page["next_offset"]
            assert pieces == whole


async def test_a_stopped_worker_gives_its_run_back(warm: TrainingSettings) -> None:
    async with connect(build(warm)) as client:
        body = "print('in', flush=True)\nwhile True: time.sleep(0.01)"
        run_id = (await client.call("submit_run", file=attack(warm, body)))["run_id"]
        await until(started(warm, run_id, 1), client, run_id)
        pid = slot_pid(warm.home, 0)
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await until(started(warm, run_id, 2), client, run_id)
        await client.call("cancel_run", run_id=run_id)
        assert (await finish(client, run_id))["status"] == "cancelled"


def started(settings: TrainingSettings, run_id: str, times: int) -> Callable[[], bool]:
    return lambda: read_text(settings.run_log(run_id)).count("in\n") >= times
