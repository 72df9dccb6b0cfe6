"""Locks on files. The kernel frees one when its holder ends, however it ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from outlearn.errors import ConflictError

LOOKS = 50
LOOK_SECONDS = 0.02


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that lock `path` out, while it is read, changed and written; waits for its turn.

    Uses a file beside it.
    """
    with _open(path.with_name(f".{path.name}.lock")) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def holding(path: Path, refusal: str = "") -> Iterator[None]:
    """Hold the lock `path`, with this process's id in it.

    Raises:
        ConflictError: another process holds it; `refusal` says so in the caller's words.
    """
    file = take(path, str(os.getpid()))
    if file is None:
        raise ConflictError(refusal or f"another process holds {str(path)!r}; end it first")
    with file:
        yield


def take(path: Path, holder: str = "") -> IO[str] | None:
    """Hold the lock `path`, with `holder` in it, until the file, and every copy of it in another process, is closed.

    None where somebody has it.
    """
    file = _open(path)
    for _ in range(LOOKS):
        if _lock(file, fcntl.LOCK_EX):
            file.truncate(0)
            file.write(holder)
            file.flush()
            return file
        if not _lock(file, fcntl.LOCK_SH):
            break
        fcntl.flock(file, fcntl.LOCK_UN)  # somebody only looks, as `is_held` does
        time.sleep(LOOK_SECONDS)
    file.close()
    return None


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock `path`."""
    with suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
        return not _lock(file, fcntl.LOCK_SH)
    return False


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock `path`; None where nobody does, or who does left none."""
    with suppress(FileNotFoundError, ValueError):
        return int(path.read_text(encoding="ascii")) if is_held(path) else None
    return None


def _open(path: Path) -> IO[str]:
    """The file, its owner's alone: whoever can open it can hold the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "a", encoding="ascii")


def _lock(file: IO[str] | IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
