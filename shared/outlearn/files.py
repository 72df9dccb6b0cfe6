"""Files that are written whole or not at all."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FileVersion = tuple[int, int, int, int]


def file_version(path: Path) -> FileVersion | None:
    """Tells one version of a file from another, also where somebody set its times back. None where there is no file."""
    try:
        return _version(path.stat())
    except FileNotFoundError:
        return None


def folder_versions(path: Path, ending: str) -> tuple[tuple[str, FileVersion], ...]:
    """The versions of a folder's files whose names end so, by name; nothing where there is no folder."""
    try:
        with os.scandir(path) as entries:
            return tuple(sorted((one.name, _version(one.stat())) for one in entries if one.name.endswith(ending)))
    except FileNotFoundError:  # the folder, or a file that has just gone
        return ()


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old file or the new one, never a part.

    Without `durable`, a machine that loses power may lose the file or leave it empty; a killed process never does.
    """
    draft, flags = _draft(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with _naming(path):
        try:
            descriptor = os.open(draft, flags, mode)
        except FileNotFoundError:
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


def _version(status: os.stat_result) -> FileVersion:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _close(path: Path) -> None:
    status = path.stat()
    if status.st_uid == os.geteuid():
        with suppress(PermissionError):  # a file system without modes
            path.chmod(stat.S_IMODE(status.st_mode) & ~(stat.S_IRWXG | stat.S_IRWXO))


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
