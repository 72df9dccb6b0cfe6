"""Who runs the queued runs. The local executor keeps one warm worker process a slot; workers outlive the server."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Protocol

from outlearn_training.sandbox.limits import count_cores, take_second_place
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.slots import slot_is_alive, slot_is_held, slot_pid, want_worker

QUIET = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}


class Executor(Protocol):
    """Makes sure that queued runs get run."""

    def ensure(self) -> None:
        """Have workers at work. Cheap; called on every submission and from time to time."""
        ...

    def stop(self) -> None:
        """End the workers now. What they were running is queued again."""
        ...


class LocalExecutor:
    """Worker processes on this machine. A worker holds the lock on its slot's file while it lives, however it dies."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings
        self._gpus = visible_gpus()
        self._slots = count_slots(settings, self._gpus)
        self._starting: dict[int, int] = {}  # slot to process id, until the worker holds the lock
        self._ensuring = Lock()

    def ensure(self) -> None:
        with self._ensuring:
            self._ensure()

    def _ensure(self) -> None:
        if not any(slot_is_alive(self._settings.home, slot) for slot in range(self._slots)):
            want_worker(self._settings.home)
        for slot in range(self._slots):
            if slot_is_held(self._settings.home, slot):
                continue
            if slot not in self._starting or has_ended(self._starting[slot]):
                self._starting[slot] = self._start(slot)

    def stop(self) -> None:
        workers = set(self._starting.values())
        for slot in range(self._slots):
            if slot_is_alive(self._settings.home, slot) and (pid := slot_pid(self._settings.home, slot)):
                workers.add(pid)
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in workers:
            with suppress(ChildProcessError):  # not ours: another server started it, and it leaves by itself
                os.waitpid(pid, 0)
        self._starting.clear()

    def _start(self, slot: int) -> int:
        """Start a worker that outlives this process: its settings come through a pipe, and it makes its own session."""
        log = self._settings.home / "logs" / f"worker-{slot}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        reader, writer = os.pipe()  # not the command line, which shows the database's password to everybody
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "outlearn_training.workers.worker", str(slot), str(self._slots)],
                slot_environment(self._settings, slot, self._gpus),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
            )
            with suppress(ProcessLookupError):  # it has ended already
                take_second_place(pid)  # it imports much before it can do so itself
            return pid
        finally:
            os.write(writer, self._settings.model_dump_json().encode())
            os.close(writer)
            os.close(reader)


def count_slots(settings: TrainingSettings, gpus: Sequence[str]) -> int:
    """As many as the settings say; else one for each GPU, else one for each CPU core that this process may use."""
    return settings.workers or len(gpus) or count_cores()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES would name them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name != "-1"]
    with suppress(OSError, subprocess.SubprocessError):
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
        return [str(index) for index in range(len(listing.stdout.strip().splitlines()))]
    return []


def slot_environment(settings: TrainingSettings, slot: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of a process that trains in a slot: its threads, and its GPU where there are any."""
    gpu = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
    return os.environ | QUIET | {"OMP_NUM_THREADS": str(settings.threads)} | gpu


def has_ended(pid: int) -> bool:
    """Whether this child of ours has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
