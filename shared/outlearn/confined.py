"""Paths that cannot leave a folder: each component is opened relative to the last, and symlinks are never followed.

Checking a path and opening it later can be raced; walking it with `O_NOFOLLOW` and file descriptors cannot.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from outlearn.errors import InvalidInputError, NotFoundError, PermissionDeniedError

MAX_NAME_BYTES = 255
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def split_path(path: str) -> tuple[str, ...]:
    """The components of a relative path; `""`, `"."` and `"/"` are the root itself.

    Raises:
        InvalidInputError: NUL bytes, a name that is too long or not encodable.
        PermissionDeniedError: a `..` component.
    """
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
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
            if create:
                _make_folder(descriptor, part)
            try:
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
    """
    parts = split_path(path)
    if not parts:
        raise InvalidInputError("the path names the root folder, not a file")
    with open_folder(root, parts[:-1]) as folder:
        try:
            # O_NONBLOCK: opening a FIFO would wait for a writer
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        except OSError as error:
            raise _explain(error, "/".join(parts), folder, parts[-1]) from None
    with os.fdopen(descriptor, "rb") as file:
        check_regular(os.fstat(descriptor), path)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InvalidInputError(f"{path!r} is larger than {max_bytes:,} bytes")
    return data


def check_regular(status: os.stat_result, path: str) -> None:
    """Raises unless `status` is of a regular file with one name (a hard link may lead to a file outside)."""
    if stat.S_ISDIR(status.st_mode):
        raise InvalidInputError(f"{path!r} is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise PermissionDeniedError(f"{path!r} is not a regular file")
    if status.st_nlink > 1:
        raise PermissionDeniedError(f"{path!r} has other hard links; copy it to a new file")


def _make_folder(parent: int, name: str) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)


def _explain(error: OSError, shown: str, folder: int, name: str) -> Exception:
    if error.errno in (errno.ELOOP, errno.EMLINK) or (error.errno == errno.ENOTDIR and _is_symlink(folder, name)):
        return PermissionDeniedError(f"{shown!r} is a symlink; symlinks are not followed")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(f"no {shown!r} here; `list_directory` shows what there is")
    if error.errno == errno.ENXIO:
        return PermissionDeniedError(f"{shown!r} is not a regular file")
    return InvalidInputError(f"cannot open {shown!r}: {error.strerror}")


def _is_symlink(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
