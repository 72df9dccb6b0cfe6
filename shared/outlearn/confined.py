"""Paths that cannot leave a folder: each component is opened relative to the last, and symlinks are never followed.

Checking a path and opening it later can be raced; walking it with `O_NOFOLLOW` and file descriptors cannot.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from outlearn.errors import ConflictError, InvalidInputError, NotFoundError, PermissionDeniedError, is_full_disk

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1_024
MAX_DEPTH = 64
SETTLED_SECONDS, READ_ATTEMPTS = 0.01, 5
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Entry:
    """A name in a confined folder, with its path relative to the root. Symlinks are reported, never followed."""

    parts: tuple[str, ...]
    status: os.stat_result

    @property
    def path(self) -> str:
        """Relative path. Bytes that are not UTF-8 are shown escaped."""
        return os.fsencode("/".join(self.parts)).decode(errors="backslashreplace")

    @property
    def kind(self) -> Literal["file", "folder", "symlink", "other"]:
        """What it is; pipes, sockets and devices are "other"."""
        mode = self.status.st_mode
        if stat.S_ISREG(mode):
            return "file"
        if stat.S_ISDIR(mode):
            return "folder"
        return "symlink" if stat.S_ISLNK(mode) else "other"


def split_path(path: str) -> tuple[str, ...]:
    """The components of a relative path; `""`, `"."` and `"/"` are the root itself.

    Raises:
        InvalidInputError: NUL bytes, a name that is too long or not encodable, more than `MAX_DEPTH` names or
            `MAX_PATH_BYTES` in all.
        PermissionDeniedError: a `..` component.
    """
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if len(parts) > MAX_DEPTH:
        raise InvalidInputError(f"path {path[:200]!r} is {len(parts)} names deep; the limit is {MAX_DEPTH}")
    for part in parts:
        if part == "..":
            raise PermissionDeniedError(f"path {path[:200]!r} has a '..'; name files relative to the root")
        try:
            encoded = os.fsencode(part)
        except UnicodeEncodeError:
            raise InvalidInputError(f"path {path[:200]!r} cannot be encoded for this file system") from None
        if b"\0" in encoded:
            raise InvalidInputError(f"path {path[:200]!r} has a NUL byte")
        if len(encoded) > MAX_NAME_BYTES:
            raise InvalidInputError(f"a name of {len(encoded)} bytes is too long; the limit is {MAX_NAME_BYTES}")
    if (size := len(os.fsencode("/".join(parts)))) > MAX_PATH_BYTES:
        raise InvalidInputError(f"path {path[:200]!r} has {size:,} bytes; the limit is {MAX_PATH_BYTES:,}")
    return parts


@contextmanager
def open_folder(root: Path, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder `root/parts`, for use as `dir_fd`. `create` makes what is missing below `root`.

    Raises:
        NotFoundError: a component is missing or is a file.
        PermissionDeniedError: a component is a symlink.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for depth, part in enumerate(parts):
            shown = "/".join(parts[: depth + 1])
            try:
                if create:
                    _make_folder(descriptor, part)
                child = os.open(part, DIRECTORY, dir_fd=descriptor)
            except OSError as error:
                raise _explain(error, shown, descriptor, part) from None
            os.close(descriptor)
            descriptor = child
        yield descriptor
    finally:
        os.close(descriptor)


def read_confined(root: Path, path: str, *, max_bytes: int) -> bytes:
    """The bytes of the regular file `root/path`.

    Raises:
        NotFoundError, PermissionDeniedError: as in `open_folder`.
        InvalidInputError: it is not a regular file, has other hard links, or is larger than `max_bytes`.
        ConflictError: it is being changed all the time.
    """
    parts = split_path(path)
    if not parts:
        raise InvalidInputError("the path names the root folder, not a file")
    for _ in range(READ_ATTEMPTS):
        if (data := _read_settled(root, path, parts, max_bytes)) is not None:
            return data
        time.sleep(SETTLED_SECONDS)
    raise ConflictError(f"{path!r} is being changed all the time; read it again later")


def _read_settled(root: Path, path: str, parts: tuple[str, ...], max_bytes: int) -> bytes | None:
    """The file's bytes, or None where it was changed a moment ago: a hard link to a file outside may have been
    removed since it was opened, which only the time of the change tells."""
    since = time.time_ns() - int(SETTLED_SECONDS * 1e9)
    with open_folder(root, parts[:-1]) as folder:
        try:
            # O_NONBLOCK: opening a FIFO would wait for a writer
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        except OSError as error:
            raise _explain(error, "/".join(parts), folder, parts[-1]) from None
    try:
        check_regular(status := os.fstat(descriptor), path)
        if since < status.st_ctime_ns <= time.time_ns():  # a time to come is another machine's clock
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise InvalidInputError(f"{path!r} is larger than {max_bytes:,} bytes")
    return data


def look_up(root: Path, path: str) -> Entry | None:
    """What stands at `root/path`, or None where nothing does.

    Raises:
        PermissionDeniedError: a folder on the way is a symlink.
    """
    parts = split_path(path)
    try:
        with open_folder(root, parts[:-1]) as folder:
            status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False) if parts else os.fstat(folder)
    except (FileNotFoundError, NotFoundError):
        return None
    return Entry(parts, status)


def list_confined(root: Path, path: str = "") -> list[Entry]:
    """The entries of the folder `root/path`, sorted by name. Raises as `open_folder` does."""
    return _list(root, split_path(path))


def walk_confined(root: Path, path: str = "") -> Iterator[Entry]:
    """Everything below the folder `root/path`, each folder before its contents.

    Folders that vanish, and what lies more than `MAX_DEPTH` names deep, are skipped.

    Raises:
        NotFoundError, PermissionDeniedError: as in `open_folder`, for `path` itself.
    """
    pending = list_confined(root, path)[::-1]
    while pending:
        entry = pending.pop()
        yield entry
        if entry.kind == "folder" and len(entry.parts) < MAX_DEPTH:
            with suppress(NotFoundError, PermissionDeniedError):
                pending += _list(root, entry.parts)[::-1]


def place_confined(staged: Path, root: Path, path: str) -> None:
    """Move a file or folder that was prepared outside `root` (on its file system) to `root/path`, in one step.

    A regular file there is replaced. A folder that is not empty never is. Missing parents are made.

    Raises:
        ConflictError: something stands there that may not be replaced.
    """
    parts = split_path(path)
    if not parts:
        raise InvalidInputError("the path names the root folder; name something in it")
    with open_folder(root, parts[:-1], create=True) as folder:
        try:
            os.rename(staged, parts[-1], dst_dir_fd=folder)
        except OSError as error:
            raise _explain_rename(error, path, path) from None


def rename_confined(root: Path, source: str, target: str) -> None:
    """Move `root/source` to `root/target`. Missing parents are made; symlinks are moved, not followed.

    Raises:
        NotFoundError: there is no source.
        ConflictError: the target is a folder that is not empty, or a file where the source is a folder.
        InvalidInputError: a folder would move into itself.
    """
    old, new = split_path(source), split_path(target)
    if not old or not new:
        raise InvalidInputError("the root folder itself cannot be moved or replaced; name something in it")
    # both before the target's parents are made
    if (entry := look_up(root, source)) is None:
        raise NotFoundError(f"no {source!r} here; `list_directory` shows what there is")
    if entry.kind == "folder" and len(new) > len(old) and new[: len(old)] == old:
        raise InvalidInputError(f"{source!r} cannot move into itself, to {target!r}")
    with open_folder(root, old[:-1]) as old_folder, open_folder(root, new[:-1], create=True) as new_folder:
        try:
            os.rename(old[-1], new[-1], src_dir_fd=old_folder, dst_dir_fd=new_folder)
        except OSError as error:
            raise _explain_rename(error, source, target) from None


def remove_confined(root: Path, path: str) -> None:
    """Delete `root/path`: a folder with all that it holds, anything else by its name alone (links are not followed).

    Raises:
        NotFoundError: there is nothing of this name.
    """
    entry = look_up(root, path)
    if entry is None:
        raise NotFoundError(f"no {path!r} here; `list_directory` shows what there is")
    if not entry.parts:
        raise InvalidInputError("the root folder itself cannot be deleted; name something in it")
    with open_folder(root, entry.parts[:-1]) as folder:
        try:
            if entry.kind == "folder":
                shutil.rmtree(entry.parts[-1], dir_fd=folder)
            else:
                os.unlink(entry.parts[-1], dir_fd=folder)
        except OSError as error:
            raise _explain(error, path, folder, entry.parts[-1]) from None


def check_regular(status: os.stat_result, path: str) -> None:
    """Raises unless `status` is of a regular file with one name (a hard link may lead to a file outside)."""
    if stat.S_ISDIR(status.st_mode):
        raise InvalidInputError(f"{path!r} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise PermissionDeniedError(f"{path!r} is not a regular file")
    if status.st_nlink > 1:
        raise PermissionDeniedError(f"{path!r} has other hard links; copy it to a new file")


def _list(root: Path, parts: tuple[str, ...]) -> list[Entry]:
    entries = []
    with open_folder(root, parts) as folder:
        for name in sorted(os.listdir(folder)):  # noqa: PTH208  (a Path cannot list a descriptor)
            with suppress(FileNotFoundError):
                entries.append(Entry((*parts, name), os.stat(name, dir_fd=folder, follow_symlinks=False)))
    return entries


def _make_folder(parent: int, name: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)


def _explain(error: OSError, shown: str, folder: int, name: str) -> Exception:
    if error.errno in (errno.ELOOP, errno.EMLINK) or (error.errno == errno.ENOTDIR and _is_symlink(folder, name)):
        return PermissionDeniedError(f"{shown!r} is a symlink; symlinks are not followed")
    if error.errno == errno.ENOTDIR:
        return NotFoundError(f"{shown!r} is a file, not a folder")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"no {shown!r} here; `list_directory` shows what there is")
    if error.errno == errno.ENXIO:
        return PermissionDeniedError(f"{shown!r} is not a regular file")
    if is_full_disk(error):
        return error
    return InvalidInputError(f"cannot open {shown!r}: {error.strerror}")


def _explain_rename(error: OSError, source: str, target: str) -> Exception:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
        return ConflictError(f"{target!r} exists; delete it first, or use another name")
    if error.errno == errno.ENOENT:
        return NotFoundError(f"no {source!r} here; `list_directory` shows what there is")
    return error


def _is_symlink(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
