"""Calibration on the executor's slots: real processes, which share the slots with workers and with each other."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pytest

pytest.importorskip("torch")

from outlearn.errors import OutlearnError
from outlearn.prepared import Parts, write_prepared
from outlearn.tasks import TaskCard, load_public, load_secret
from outlearn_agents import cli
from outlearn_training.calibration.calibrate import calibrate, choose_task, find_task
from outlearn_training.calibration.seed_training import KeptSeeds, OnProgress, SeedPredictions, train_here
from outlearn_training.calibration.slots import SlotTraining
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import LocalExecutor, count_slots, slot_environment, visible_gpus
from outlearn_training.workers.slots import (
    ask_for_slot,
    give_way,
    hold_slot,
    slot_is_alive,
    slot_is_held,
    take_slot,
    want_worker,
    worker_is_wanted,
)

from .test_training_server import finish, serving, settings_for

Prepared = tuple[Path, Parts]


@pytest.fixture
def prepared(home: Path) -> Prepared:
    """A home folder where the toy task is prepared, too, as `mine`."""
    task, secret = load_public(home, "toy"), load_secret(home, "toy")
    train = tuple(item.model_copy(update={"id": f"a{i}"}) for i, item in enumerate(secret.test[:8]))
    secret = secret.model_copy(update={"train": train})
    card = task.card.model_copy(update={"name": "mine", "seeds": (), "fingerprint": ""})
    write_prepared(home, (card, task.pool, secret), {}, "{}")
    return home, find_task(home, "mine")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """The processes that are started in this test."""
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*args: object, **options: object) -> "subprocess.Popen[bytes]":
        processes.append(popen(*args, **options))  # type: ignore[call-overload]
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


def settings(home: Path, workers: int = 1) -> TrainingSettings:
    return TrainingSettings(home=home, workers=workers)


def nothing(_what: str, _share: float) -> None: ...


def some_predictions(task: Parts) -> SeedPredictions:
    pool, test = np.full(len(task[1]), 0.25), np.full(len(task[2].test), 0.75)
    return SeedPredictions(pool, test, test, test, test)


def test_seeds_side_by_side_in_processes_are_the_same_as_one_after_another_here(prepared: Prepared) -> None:
    home, task = prepared
    heard: list[tuple[str, float]] = []
    apart = KeptSeeds(home, task[0])
    SlotTraining(settings(home, 2))(task, apart, [0, 3], lambda what, share: heard.append((what, share)))
    assert "teachers and ceilings of 2 seeds" in {what for what, _ in heard}
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    here = KeptSeeds(home / "elsewhere", task[0])
    train_here(task, here, [3, 0], nothing)
    for seed in (0, 3):
        one, other = apart.read(seed), here.read(seed)
        assert one
        assert other
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in vars(one))
    assert not any(slot_is_held(home, slot) for slot in range(2))


def test_it_says_that_it_waits_for_a_device_and_asks_for_one(prepared: Prepared) -> None:
    home, task = prepared
    worker, heard = take_slot(home, 0, "12345"), list[str]()
    assert worker
    asked = []

    def report(what: str, _share: float) -> None:
        heard.append(what)
        if not worker.closed:
            asked.append(give_way(home, idle=False))
            worker.close()

    SlotTraining(settings(home))(task, KeptSeeds(home, task[0]), [1], report)
    assert (heard[0], asked) == ("1 waiting for a device", [True])
    assert any(what.startswith(("starting", "teacher", "ceiling", "shuffled")) for what in heard)
    assert KeptSeeds(home, task[0]).missing([1]) == []
    assert not give_way(home, idle=True)  # it asks no more


def test_an_interrupt_ends_the_processes_and_frees_their_slots(prepared: Prepared) -> None:
    home, task = prepared

    def stop(what: str, _share: float) -> None:
        assert slot_is_held(home, 0)
        assert not slot_is_alive(home, 0)  # it is no worker
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SlotTraining(settings(home))(task, KeptSeeds(home, task[0]), [0, 1], stop)
    assert not slot_is_held(home, 0)
    assert KeptSeeds(home, task[0]).missing([0, 1]) == [0, 1]


def test_a_seed_that_another_calibration_is_at_is_left_to_it(prepared: Prepared) -> None:
    home, task = prepared
    kept, heard = KeptSeeds(home, task[0]), list[str]()
    from outlearn_training.calibration.slots import _take_first

    locked = _take_first(kept, [4])
    assert locked
    assert _take_first(kept, [4]) is None

    def report(what: str, _share: float) -> None:
        heard.append(what)
        kept.write(4, some_predictions(task))

    with locked[1]:
        SlotTraining(settings(home))(task, kept, [4], report)
    assert heard == ["1 waiting for another calibration of this task", "done"]


def test_what_prevents_the_training_of_a_seed_is_said(prepared: Prepared, tmp_path: Path) -> None:
    home, (card, pool, secret) = prepared
    card = card.model_copy(update={"teacher": str(tmp_path / "nowhere")})
    with pytest.raises(OutlearnError, match=r"cannot load the model .*nowhere"):
        SlotTraining(settings(home))((card, pool, secret), KeptSeeds(home, card), [0], nothing)
    assert not slot_is_held(home, 0)


class HubWithoutModels(ThreadingHTTPServer):
    """Answers as the Hugging Face hub does where there is no such model, once `asked_for` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _NoSuchModel)
        self.asked_for = Event()


class _NoSuchModel(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        assert isinstance(self.server, HubWithoutModels)
        self.server.asked_for.wait(60)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubWithoutModels]:
    """Where processes look for models that are not here; their cache is empty."""
    with HubWithoutModels() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        yield server
        server.shutdown()


def test_a_model_that_is_fetched_is_named_and_where_it_cannot_be_what_to_do(
    prepared: Prepared, hub: HubWithoutModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, (card, pool, secret) = prepared
    task, heard = (card.model_copy(update={"student": "no-such/model"}), pool, secret), set[str]()
    fetching = "fetching the student, no-such/model, from the Hugging Face hub"

    def hear(what: str, _share: float) -> None:
        heard.add(what)
        if what == fetching:
            hub.asked_for.set()

    def why_not() -> str:
        with pytest.raises(OutlearnError) as error:
            SlotTraining(settings(home))(task, KeptSeeds(home, task[0]), [0], hear)
        assert "`hf download no-such/model` brings it into the cache" in str(error.value)
        return str(error.value)

    why = why_not()
    assert fetching in heard
    assert why.startswith("cannot fetch the model 'no-such/model' from the Hugging Face hub: no-such/model is not a ")
    assert "/models'. Where there is a network, `hf" in why
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "from the Hugging Face hub: HF_HUB_OFFLINE is set. Where there is a network, `hf" in why_not()


def test_what_prevents_predictions_from_being_kept_is_said(prepared: Prepared) -> None:
    home, task = prepared
    kept = KeptSeeds(home, task[0])
    folder = kept.path(0).parent

    def put_a_file_in_its_place(_what: str, _share: float) -> None:
        if folder.is_dir():
            shutil.rmtree(folder)
            folder.touch()

    with pytest.raises(OutlearnError, match=r"^\[Errno \d+\] .*seed-0\.npz'$"):
        SlotTraining(settings(home))(task, kept, [0], put_a_file_in_its_place)


def test_a_process_that_is_killed_is_an_error_that_says_what_to_do(
    prepared: Prepared, started: list["subprocess.Popen[bytes]"]
) -> None:
    home, task = prepared

    def kill(_what: str, _share: float) -> None:
        started[0].send_signal(signal.SIGKILL)

    with pytest.raises(OutlearnError, match=r"seed 2 died \(-9\).*calibrate-mine-2\.log.*again"):
        SlotTraining(settings(home, 2))(task, KeptSeeds(home, task[0]), [2], kill)


async def test_an_idle_worker_leaves_its_slot_to_a_calibration(prepared: Prepared) -> None:
    home, task = prepared
    heard: list[str] = []
    async with serving(settings_for(home)) as client:
        await finish(client, (await client.call("submit_run", method="vanilla", task="toy"))["run_id"])
        assert slot_is_alive(home, 0)
        SlotTraining(settings(home))(task, KeptSeeds(home, task[0]), [0], lambda what, _share: heard.append(what))
    assert heard[0] == "1 waiting for a device"
    assert KeptSeeds(home, task[0]).read(0)


def test_a_calibration_from_the_command_line_goes_on_with_other_settings_in_one_process(
    prepared: Prepared, started: list["subprocess.Popen[bytes]"]
) -> None:
    from typer.testing import CliRunner

    home, _ = prepared
    changes = {"student_tuning.lr": "2e-3", "max_tokens": "12"}
    task = choose_task(home, "mine", None, changes)
    kept = KeptSeeds(home, task[0])
    only_predictions(task, kept, [0, 2], nothing)
    words = ["calibrate", "mine", "--home", str(home), "--workers", "1", "--json"]
    words += [word for name, value in changes.items() for word in ("--set", f"{name}={value}")]
    done = CliRunner().invoke(cli.app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert (len(started), kept.missing(range(5))) == (1, [])
    assert json.loads(done.stdout)["seeds"] == 5
    found = load_public(home, "mine").card
    assert (found.student_tuning.lr, found.max_tokens, found.fingerprint) == (2e-3, 12, task[0].fingerprint)
    assert (home / "data" / "mine" / "card.md").exists()


# slots


def test_workers_give_way_once_for_each_time_that_they_are_asked(tmp_path: Path) -> None:
    assert not give_way(tmp_path, idle=True)
    ask_for_slot(tmp_path, urgent=False)
    assert not give_way(tmp_path, idle=False)
    assert [give_way(tmp_path, idle=True) for _ in range(2)] == [True, False]
    ask_for_slot(tmp_path, urgent=True)
    assert [give_way(tmp_path, idle=False) for _ in range(2)] == [True, False]


def test_a_server_whose_runs_wait_gets_the_next_slot(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    home, task = prepared
    calibration = take_slot(home, 0)
    assert calibration
    with calibration:
        LocalExecutor(settings(home)).ensure()
        assert worker_is_wanted(home)
    heard: list[str] = []

    def come(what: str, _share: float) -> None:
        heard.append(what)
        with hold_slot(home, 0) as got:
            assert got
        KeptSeeds(home, task[0]).write(0, some_predictions(task))

    SlotTraining(settings(home))(task, KeptSeeds(home, task[0]), [0], come)
    assert heard == ["1 waiting for a device", "done"]
    assert not worker_is_wanted(home)


def test_a_worker_is_not_wanted_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want_worker(tmp_path)
    assert worker_is_wanted(tmp_path)
    monkeypatch.setattr("outlearn_training.workers.slots.WANTED_SECONDS", 0.0)
    assert not worker_is_wanted(tmp_path)


def test_each_slot_has_a_gpu_of_those_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    gpus, three = visible_gpus(), settings(tmp_path, 3)
    assert gpus == ["2", "5"]
    assert count_slots(TrainingSettings(home=tmp_path), gpus) == 2
    assert [slot_environment(three, slot, gpus)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["2", "5", "2"]
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert visible_gpus() == []
    assert count_slots(TrainingSettings(home=tmp_path), []) >= 1


def only_predictions(task: Parts, kept: KeptSeeds, seeds: Sequence[int], _report: OnProgress) -> None:
    for seed in seeds:
        kept.write(seed, some_predictions(task))


def test_seeds_that_were_not_kept_are_noticed(prepared: Prepared) -> None:
    home, _ = prepared
    with pytest.raises(OutlearnError, match="lacks seeds"):
        calibrate(home, "mine", train=lambda *_: None)
    assert isinstance(calibrate(home, "mine", train=only_predictions), TaskCard)
