"""Files that are written whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FileVersion = tuple[int, int, int, int]
Versions = tuple[tuple[str, FileVersion | None], ...]
"""Of several files or folders, by path."""


def file_version(path: Path | str) -> FileVersion | None:
    """Tells one version of a file from another, also where somebody set its times back. None where there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116  (asked often)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def file_versions(*paths: Path) -> Versions:
    """Their versions, looked at in this order."""
    return tuple((str(path), file_version(path)) for path in paths)


def unchanged(known: Versions) -> bool:
    """Whether all of them have these versions still."""
    return all(file_version(path) == version for path, version in known)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    Without `durable`, a machine that loses power may lose the file or leave it empty; a killed process never does.
    """
    draft, flags, changed = _draft(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL, [path.parent]
    with _naming(path):
        try:
            descriptor = os.open(draft, flags, mode)
        except FileNotFoundError:
            changed += [folder.parent for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(draft, flags, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        for folder in changed if durable else ():
            _sync_names(folder)


def create_once(path: Path, data: bytes, *, mode: int = 0o600) -> bytes:
    """Write `data` unless `path` exists; return what it holds. Of two processes that race, one wins and both agree."""
    if path.exists():
        return path.read_bytes()
    draft = _draft(path)
    with _naming(path):
        try:
            write_atomic(draft, data, mode=mode)
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
        _sync_names(path.parent)
    return path.read_bytes()


def private_folder(path: Path) -> None:
    """Make a folder for its owner alone, or close one of ours that everybody may look into.

    One that a group may look into and others may not (`chmod 750`) stays so: somebody wanted it.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = path.stat().st_mode
    if mode & stat.S_IRWXO and not mode & stat.S_ISVTX and path.resolve() != Path("/"):  # nor /tmp, whoever names that
        _close(path)


def private_file(path: Path) -> None:
    """Take from everybody else what they may do with a file of ours; nothing where there is none."""
    with suppress(FileNotFoundError):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            _close(path)


def _close(path: Path) -> None:
    status = path.stat()
    if status.st_uid == os.geteuid():
        with suppress(PermissionError):  # a file system without modes
            path.chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_IRWXG | stat.S_IRWXO))


def _sync_names(folder: Path) -> None:
    """Have a file's new name outlive a loss of power, where the file system can do so."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder to be written to and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """What cannot be written is told of `path`, which the caller knows, and not of its draft."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _draft(path: Path) -> Path:
    """A new name beside `path`; short, whatever the length of `path`'s name."""
    return path.with_name(f".{secrets.token_hex(8)}.draft")
