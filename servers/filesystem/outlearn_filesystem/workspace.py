"""One agent's workspace: text files below one folder, written whole, by one writer at a time, within a quota."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from outlearn.confined import (
    Entry,
    check_regular,
    list_confined,
    look_up,
    place_confined,
    read_confined,
    rename_confined,
    split_path,
    walk_confined,
)
from outlearn.errors import BudgetError, ConflictError, InvalidInputError, NotFoundError
from outlearn.locks import locked
from outlearn.printable import check_plain
from outlearn.types import Deleted, FileWritten, Loaded
from outlearn_filesystem.diffs import edit_diff, find_once
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.trash import Trash, below, new_trash_id, total_bytes


class Workspace:
    """The workspace of `agent`. Paths are relative to it and cannot leave it."""

    def __init__(self, settings: FilesystemSettings, agent: str) -> None:
        self.root = settings.workspaces / agent
        self.root.mkdir(parents=True, exist_ok=True)
        # agents' names begin with a letter or digit, so these are no agent's
        self._staged = settings.workspaces / ".staging" / agent
        self._lock = settings.workspaces / ".locks" / agent
        self._trash = Trash(
            settings.workspaces / ".trash" / agent,
            max_bytes=settings.max_workspace_bytes,
            max_entries=settings.max_files,
        )
        self._settings = settings

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the workspace's lock: of all servers' threads and processes, one changes it at a time."""
        with locked(self._lock):
            yield

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A path for a file or folder that is prepared outside the workspace, gone afterwards unless it was placed.

        Use it while `changing`: what else stands there was left by a process that was killed.
        """
        self._staged.parent.mkdir(exist_ok=True)
        self._clear_staged()
        try:
            yield self._staged
        finally:
            self._clear_staged()

    def read_bytes(self, path: str) -> bytes:
        """A file's contents. Raises as `read_confined` does."""
        return read_confined(self.root, path, max_bytes=self._settings.max_file_bytes)

    def read_text(self, path: str) -> str:
        """A file's text. Raises InvalidInputError where it is not UTF-8."""
        data = self.read_bytes(path)
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise InvalidInputError(
                f"{path!r} is not UTF-8 text ({len(data):,} bytes, sha256 {_sha256(data)}); "
                "binary files can be listed, moved, deleted and saved in snapshots"
            ) from None

    def has(self, written: FileWritten) -> bool:
        """Whether a file is as `written` says."""
        with self.changing():
            there = look_up(self.root, written.path)
            return (
                there is not None and there.kind == "file" and _sha256(self.read_bytes(written.path)) == written.sha256
            )

    def write_file(self, path: str, text: str, expected_sha256: str | None = None) -> FileWritten:
        """Write a file whole, replacing what was there. An empty `expected_sha256` means: only if there is none.

        Raises:
            ConflictError: the file is not what the caller expected.
            InvalidInputError, PermissionDeniedError: the path names no place for a file, or the text is too long.
            BudgetError: the workspace would exceed its quota.
        """
        data = self._encode(text, path)
        with self.changing():
            self._expect(path, expected_sha256)
            self._put(path, data)
        return FileWritten(path=path, bytes=len(data), sha256=_sha256(data))

    def edit_file(
        self,
        path: str,
        old: str,
        new: str,
        expected_sha256: str | None = None,
        announce: Callable[[FileWritten], None] = lambda _: None,
    ) -> FileWritten:
        """Replace `old`, which must stand in the file exactly once, by `new`; `announce` is told right before that.

        Raises:
            NotFoundError, InvalidInputError, PermissionDeniedError, BudgetError: as in `read_text` and `write_file`.
            ConflictError: the file is not what the caller expected, or has `old` never or more than once.
        """
        if not old or old == new:
            raise InvalidInputError("`old` must have text, and `new` must differ from it")
        with self.changing():
            self._expect(path, expected_sha256)
            text = self.read_text(path)
            start = find_once(path, text, old)
            edited = text[:start] + new + text[start + len(old) :]
            data = self._encode(edited, path)
            diff = edit_diff(path, text, edited)
            written = FileWritten(path=path, bytes=len(data), sha256=_sha256(data), diff=diff)
            announce(written)
            self._put(path, data)
        return written

    def move(
        self,
        source: str,
        target: str,
        expected_sha256: str | None = None,
        announce: Callable[[FileWritten], None] = lambda _: None,
    ) -> FileWritten:
        """Move or rename a file or folder; `announce` is told right before that. Nothing is ever overwritten.

        Raises:
            NotFoundError: there is no source.
            ConflictError: the target exists, or the file is not what the caller expected.
            InvalidInputError: a folder would move into itself, or too deep.
            PermissionDeniedError: the source is neither a regular file nor a folder.
        """
        with self.changing():
            entry = look_up(self.root, source)
            if entry is None:
                raise NotFoundError(f"no {source!r} here; `list_directory` shows what there is")
            self._expect(source, expected_sha256)
            if entry.kind != "folder":
                check_regular(entry.status, source)
            inside = below(self.root, entry)
            self._check_new_place(target, entry, inside)
            self.check_quota(0, self.missing(target) - 1)
            sha256 = "" if entry.kind == "folder" else _sha256(self.read_bytes(source))
            moved = FileWritten(path=target, bytes=total_bytes([entry, *inside]), sha256=sha256)
            announce(moved)
            rename_confined(self.root, source, target)
        return moved

    def delete(
        self, path: str, expected_sha256: str | None = None, announce: Callable[[Deleted], None] = lambda _: None
    ) -> Deleted:
        """Move a file, a folder with all that it holds, or a symlink (not what it points at) to the trash.

        `announce` is told right before that.

        Raises:
            NotFoundError: there is nothing of this name.
            InvalidInputError: it is the workspace itself.
            ConflictError: the file is not what the caller expected.
        """
        with self.changing():
            self._expect(path, expected_sha256)
            entry = look_up(self.root, path)
            inside = [entry, *below(self.root, entry)] if entry else []
            files = sum(one.kind != "folder" for one in inside)
            deleted = Deleted(path=path, files=files, undo=new_trash_id())
            announce(deleted)
            self._trash.take(self.root, path, deleted.undo)
        return deleted

    def has_deleted(self, deleted: Deleted) -> bool:
        """Whether what `deleted` tells of is in the trash."""
        return self._trash.has(deleted.undo)

    def restore(self, trash_id: str, target: str, announce: Callable[[Loaded], None] = lambda _: None) -> Loaded:
        """Move what was deleted to a new path, back to its old one or to another; `announce` is told right before that.

        Raises:
            NotFoundError: it is not in the trash any more.
            ConflictError: the target exists.
            InvalidInputError: it would be too deep.
            BudgetError: the workspace has no room.
        """
        with self.changing():
            entry, inside = self._trash.look(trash_id)
            self._check_new_place(target, entry, inside)
            restored = [entry, *inside]
            self.check_quota(total_bytes(restored), self.missing(target) + len(inside))
            files = sum(one.kind != "folder" for one in restored)
            loaded = Loaded(snapshot_id=trash_id, folder=target, files=files)
            announce(loaded)
            self._trash.give_back(trash_id, self.root, target)
        return loaded

    def holds(self, path: str) -> bool:
        """Whether there is a file of this name, or a folder with something in it."""
        entry = look_up(self.root, path)
        return entry is not None and (entry.kind != "folder" or bool(list_confined(self.root, path)))

    def check_quota(self, more_bytes: int, more_entries: int) -> None:
        """Raises BudgetError where the workspace has no room for this much more. Call it while `changing`."""
        limits = self._settings
        size = entries = 0
        for entry in walk_confined(self.root):
            entries += 1
            size += entry.status.st_size if entry.kind == "file" else 0
        if more_bytes > 0 and size + more_bytes > limits.max_workspace_bytes:
            raise BudgetError(
                f"the workspace has {size:,} of {limits.max_workspace_bytes:,} bytes, and this needs {more_bytes:,} "
                "more; delete what you no longer need (a snapshot keeps it)"
            )
        if more_entries > 0 and entries + more_entries > limits.max_files:
            raise BudgetError(
                f"the workspace has {entries:,} of {limits.max_files:,} files and folders, and this needs "
                f"{more_entries:,} more; delete what you no longer need (a snapshot keeps it)"
            )

    def missing(self, path: str) -> int:
        """How many folders and files would have to be made for `path`."""
        parts = split_path(path)
        paths = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return sum(look_up(self.root, name) is None for name in paths)

    def check_snapshots(self, count: int, held_bytes: int) -> None:
        """Raises BudgetError where so many snapshots that hold so much leave no room for another."""
        limits = self._settings
        if count >= limits.max_snapshots or held_bytes >= limits.max_snapshot_bytes:
            raise BudgetError(
                f"you have {count:,} snapshots that hold {held_bytes:,} bytes; the limits are {limits.max_snapshots:,} "
                f"and {limits.max_snapshot_bytes:,}. Keep what matters in the workspace, or ask the operator for room"
            )

    def _clear_staged(self) -> None:
        if self._staged.is_dir():
            shutil.rmtree(self._staged)
        self._staged.unlink(missing_ok=True)

    def _encode(self, text: str, path: str) -> bytes:
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"the text for {path!r} is not valid Unicode at {error.start}") from None
        if len(data) > self._settings.max_file_bytes:
            raise InvalidInputError(
                f"{path!r} would have {len(data):,} bytes; the limit is {self._settings.max_file_bytes:,}"
            )
        return data

    def _expect(self, path: str, expected_sha256: str | None) -> None:
        if expected_sha256 is None:
            return
        current = "" if look_up(self.root, path) is None else _sha256(self.read_bytes(path))
        if current != expected_sha256.lower():
            now = f"has sha256 {current}" if current else "does not exist"
            raise ConflictError(f"{path!r} changed: it {now}, not {expected_sha256[:64]!r}; read it again")

    def _check_new_place(self, target: str, entry: Entry, inside: Sequence[Entry]) -> None:
        if look_up(self.root, target) is not None:
            raise ConflictError(f"{target!r} exists; delete it first, or use another name")
        check_plain(target, "path", name=True)
        for one in (entry, *inside):
            split_path("/".join((target, *one.parts[len(entry.parts) :])))  # nothing may come to be too deep

    def _put(self, path: str, data: bytes) -> None:
        known = look_up(self.root, path)
        check_plain(path, "path", name=True)
        if known is not None:
            check_regular(known.status, path)
        self.check_quota(len(data) - (known.status.st_size if known else 0), self.missing(path))
        with self.staging() as staged:
            with staged.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            place_confined(staged, self.root, path)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
