"""Files that are written whole or not at all."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FileVersion = tuple[int, int, int, int]


def file_version(path: Path) -> FileVersion | None:
    """Tells one version of a file from another, also where somebody set its times back. None where there is no file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    Without `durable`, a machine that loses power may lose the file or leave it empty; a killed process never does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def create_once(path: Path, data: bytes, *, mode: int = 0o600) -> bytes:
    """Write `data` unless `path` exists; return what it holds. Of two processes that race, one wins and both agree."""
    if path.exists():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
    try:
        write_atomic(draft, data, mode=mode)
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
    return path.read_bytes()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes that lock `path` out, while it is read, changed and written. Uses a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _draft(path: Path) -> Path:
    """A new name beside `path`; short, whatever the length of `path`'s name."""
    return path.with_name(f".{secrets.token_hex(8)}.draft")
