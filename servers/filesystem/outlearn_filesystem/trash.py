"""What an agent deleted last, kept beside the workspaces so that a deletion can be undone."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from outlearn.confined import (
    Entry,
    list_confined,
    look_up,
    open_folder,
    place_confined,
    remove_confined,
    split_path,
    walk_confined,
)
from outlearn.errors import InvalidInputError, NotFoundError

TRASH_ID = re.compile(r"trash-[0-9a-f]{16}")


class Trash:
    """The trash of one agent in `folder`, on the file system of its workspace. Call it while that is locked.

    What was deleted last is always kept, and what was deleted before as long as all of it has at most `max_bytes` and
    `max_entries` files and folders.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_entries: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_entries = max_entries

    def take(self, root: Path, path: str, trash_id: str) -> None:
        """Move `root/path` here in one step, under a new id. Links are moved, not followed.

        Raises:
            NotFoundError: there is nothing of this name.
            InvalidInputError: it is the root folder itself.
        """
        parts = split_path(path)
        if not parts:
            raise InvalidInputError("the root folder itself cannot be deleted; name something in it")
        self._folder.mkdir(parents=True, exist_ok=True)
        with open_folder(root, parts[:-1]) as folder:
            try:
                os.rename(parts[-1], self._folder / trash_id, src_dir_fd=folder)
            except FileNotFoundError:
                raise NotFoundError(f"no {path!r} here; `list_directory` shows what there is") from None
        self._trim()

    def has(self, trash_id: str) -> bool:
        """Whether there is something of this id."""
        return self._folder.exists() and look_up(self._folder, trash_id) is not None

    def look(self, trash_id: str) -> tuple[Entry, list[Entry]]:
        """What has this id, and what is below it. Raises NotFoundError."""
        there = TRASH_ID.fullmatch(trash_id) and self._folder.exists()
        if not there or (entry := look_up(self._folder, trash_id)) is None:
            raise NotFoundError(
                f"no {trash_id[:80]!r} in your trash: it was put back, or made room for later deletions"
            )
        return entry, below(self._folder, entry)

    def give_back(self, trash_id: str, root: Path, path: str) -> None:
        """Move what has this id to `root/path` in one step. Raises as `place_confined` does."""
        place_confined(self._folder / trash_id, root, path)

    def _trim(self) -> None:
        size = entries = 0
        for age, entry in enumerate(reversed(list_confined(self._folder))):
            inside = [entry, *below(self._folder, entry)]
            size += total_bytes(inside)
            entries += len(inside)
            if age and (size > self._max_bytes or entries > self._max_entries):
                remove_confined(self._folder, entry.path)


def new_trash_id() -> str:
    """An id for what is deleted next; ids sort by age."""
    return f"trash-{time.time_ns():016x}"


def below(root: Path, entry: Entry) -> list[Entry]:
    """All that is in `entry`, at any depth; nothing where it is no folder."""
    return list(walk_confined(root, "/".join(entry.parts))) if entry.kind == "folder" else []


def total_bytes(entries: Sequence[Entry]) -> int:
    """The sum of the files' sizes."""
    return sum(entry.status.st_size for entry in entries if entry.kind == "file")
