"""Locks that tell which process is at work, so that one that its runner left behind can be found and ended."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from outlearn.errors import ConflictError

POLITE_SECONDS = 5.0
POLL_SECONDS = 0.05
TRIES = (0.0, 0.02, 0.05)
"""Pauses before each: somebody who only looks holds a lock too, for a moment."""


@contextmanager
def holding(path: Path, refusal: str = "") -> Iterator[None]:
    """Hold the lock `path`, with this process's id in it. However the process ends, the lock is free then.

    Raises:
        ConflictError: another process holds it; `refusal` says so in the caller's words.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not any(_try(file, fcntl.LOCK_EX, pause) for pause in TRIES):
            raise ConflictError(refusal or f"another process holds {str(path)!r}; end it first")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock, or None where nobody does."""
    try:
        with path.open("a+") as file:
            if not _try(file, fcntl.LOCK_SH):
                file.seek(0)
                return int(file.read() or 0) or None
    except (FileNotFoundError, PermissionError):
        pass
    return None


def end_holder(path: Path) -> int | None:
    """End the process that holds the lock, by force where it does not end by itself. Returns its id."""
    pid = holder(path)
    if pid is None:
        return None
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + POLITE_SECONDS
    while holder(path) == pid:
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return pid


def _try(file: IO[str], kind: int, pause: float = 0.0) -> bool:
    time.sleep(pause)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
