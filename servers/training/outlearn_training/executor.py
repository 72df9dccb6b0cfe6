"""Who runs the queued runs. The local executor keeps one warm worker process a slot; workers outlive the server."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from outlearn_training.settings import TrainingSettings

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
        self._slots = settings.workers or count_devices()
        self._starting: dict[int, int] = {}  # slot to process id, until the worker holds the lock

    def ensure(self) -> None:
        for slot in range(self._slots):
            if slot_is_alive(self._settings.home, slot):
                continue
            if slot not in self._starting or _reap(self._starting[slot]):
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
            return os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "outlearn_training.worker", str(slot)],
                os.environ | QUIET | {"OMP_NUM_THREADS": str(self._settings.threads)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reader, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
            )
        finally:
            os.write(writer, self._settings.model_dump_json().encode())
            os.close(writer)
            os.close(reader)


def count_devices() -> int:
    """GPUs, else CPU cores."""
    with suppress(OSError, subprocess.SubprocessError):
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S607
        if listing.stdout.strip():
            return len(listing.stdout.strip().splitlines())
    return os.cpu_count() or 1


@contextmanager
def hold_slot(home: Path, slot: int) -> Iterator[bool]:
    """Hold the slot's lock; yields False where a worker has it. The file names the process that holds it."""
    with _slot_file(home, slot) as file:
        if not _lock(file):
            yield False
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield True


def slot_is_alive(home: Path, slot: int) -> bool:
    """Whether a worker holds this slot."""
    with _slot_file(home, slot) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def slot_pid(home: Path, slot: int) -> int | None:
    """The process id of the worker in this slot."""
    with suppress(ValueError, OSError):
        return int(_slot_path(home, slot).read_text(encoding="ascii"))
    return None


def _reap(pid: int) -> bool:
    """Whether this child of ours has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _lock(file: IO[str]) -> bool:
    for _ in range(10):  # somebody may hold a shared lock for a moment, to see whether the slot is free
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.1)
    return False


def _slot_file(home: Path, slot: int) -> IO[str]:
    path = _slot_path(home, slot)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", encoding="ascii")


def _slot_path(home: Path, slot: int) -> Path:
    return home / "workers" / f"slot-{slot}.lock"
