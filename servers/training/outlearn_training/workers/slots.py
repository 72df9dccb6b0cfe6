"""Device slots: whoever trains on this machine holds one, a worker or a calibration.

A slot is a lock on a file, which the kernel frees when its holder ends, however it ends. They make room for each other:
a calibration asks for a slot, and a worker gives its own up between two runs; a server that has runs but no worker at
all says so, and a calibration then leaves the next slot alone.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from outlearn.locks import holder, is_held, take

CALIBRATION = "calibration"
ASK_SECONDS = 5.0
WANTED_SECONDS = 10.0
"""Servers that want a worker say so every two seconds."""


@contextmanager
def hold_slot(home: Path, slot: int) -> Iterator[bool]:
    """Hold the slot as a worker; yields False where somebody has it. The file names the process that holds it."""
    file = take_slot(home, slot, str(os.getpid()))
    if file is None:
        yield False
        return
    with file:
        _wanted(home).unlink(missing_ok=True)
        yield True


def take_slot(home: Path, slot: int, by: str = CALIBRATION) -> IO[str] | None:
    """Hold a slot until the file, and every copy of it in another process, is closed; None where somebody has it."""
    return take(_slot(home, slot), by)


def slot_is_held(home: Path, slot: int) -> bool:
    """Whether a worker or a calibration holds this slot."""
    return is_held(_slot(home, slot))


def slot_is_alive(home: Path, slot: int) -> bool:
    """Whether a worker holds this slot."""
    return slot_pid(home, slot) is not None


def slot_pid(home: Path, slot: int) -> int | None:
    """The process id of the worker that holds this slot; None where none does."""
    return holder(_slot(home, slot))


def ask_for_slot(home: Path, *, urgent: bool) -> None:
    """Ask workers for a slot: an idle one, or (urgent) also one that is between two runs."""
    _asked(home, urgent=urgent).touch()


class Asking:
    """Asks for slots, and not again and again while a worker is on its way out."""

    def __init__(self) -> None:
        self._asked = -ASK_SECONDS

    def ask(self, home: Path, *, urgent: bool) -> None:
        """As `ask_for_slot`, unless that was just done."""
        if time.monotonic() - self._asked > ASK_SECONDS:
            ask_for_slot(home, urgent=urgent)
            self._asked = time.monotonic()


def stop_asking(home: Path) -> None:
    """A slot was got, or none is needed."""
    for urgent in (False, True):
        _asked(home, urgent=urgent).unlink(missing_ok=True)


def give_way(home: Path, *, idle: bool) -> bool:
    """Whether a worker is to leave its slot to a calibration; one worker is told so for each time that one was asked
    for."""
    for urgent in (True, False) if idle else (True,):
        with suppress(FileNotFoundError):
            _asked(home, urgent=urgent).unlink()
            return True
    return False


def want_worker(home: Path) -> None:
    """Say that runs wait and that calibrations have all the slots."""
    _wanted(home).touch()


def worker_is_wanted(home: Path) -> bool:
    """Whether a server said so within the last ten seconds, and no worker has come since."""
    with suppress(FileNotFoundError):
        return time.time() - _wanted(home).stat().st_mtime < WANTED_SECONDS
    return False


def _slot(home: Path, slot: int) -> Path:
    return _folder(home) / f"slot-{slot}.lock"


def _asked(home: Path, *, urgent: bool) -> Path:
    return _folder(home) / ("asked" if urgent else "asked-idle")


def _wanted(home: Path) -> Path:
    return _folder(home) / "wanted"


def _folder(home: Path) -> Path:
    folder = home / "workers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
