"""Snapshots of workspaces: contents in the artifact store, each stored once; what stood where, in the database."""

import re
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    func,
    insert,
    or_,
    select,
)

from outlearn.artifacts import ArtifactStore
from outlearn.confined import check_regular, place_confined, split_path, walk_confined
from outlearn.database import open_database, reading, writing
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError
from outlearn.identity import Caller
from outlearn.paging import fit_page, make_cursor, read_cursor
from outlearn.printable import check_plain
from outlearn.types import Loaded, Snapshot, SnapshotList
from outlearn_filesystem.workspace import Workspace

MAX_MESSAGE = 500
ROW_BYTES = 100
"""Of a file in the database, beside its path."""
SNAPSHOT_ID = re.compile(r"snap-[0-9a-f]{12}")
tables = MetaData()

snapshots = Table(
    "snapshots",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("snapshot_id", String(40), nullable=False, unique=True),
    Column("agent", String(32), nullable=False),
    Column("message", Text, nullable=False),
    Column("parent", String(40), ForeignKey("snapshots.snapshot_id"), comment="The agent's snapshot before this one."),
    Column("files", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("shared", Boolean, nullable=False),
    Column("saved_at", Float, nullable=False, comment="Unix time in seconds."),
    Index("snapshots_by_agent", "agent", "seq"),
    sqlite_autoincrement=True,
)

snapshot_files = Table(
    "snapshot_files",
    tables,
    Column("snapshot_id", String(40), ForeignKey("snapshots.snapshot_id"), primary_key=True),
    Column("path", Text, primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("bytes", Integer, nullable=False),
)


class SnapshotStore:
    """Saves workspaces and loads them again. A snapshot never changes."""

    def __init__(self, url: str, blobs: ArtifactStore) -> None:
        self.engine = open_database(url, tables)
        self._blobs = blobs

    def save(
        self,
        workspace: Workspace,
        agent: str,
        message: str,
        *,
        shared: bool,
        announce: Callable[[Snapshot], None] = lambda _: None,
    ) -> Snapshot:
        """Save all files of a workspace. Its parent is the agent's snapshot before. Empty folders are not kept.

        `announce` is told of the snapshot right before it is there.

        Raises:
            InvalidInputError: the message is empty or too long, or it or a file's name has hidden characters.
            BudgetError: the agent's snapshots are too many, or hold too much.
            PermissionDeniedError: there is a symlink, a pipe or a hard link, which cannot be saved.
        """
        message = message.strip()
        if not message or len(message) > MAX_MESSAGE:
            raise InvalidInputError(f"a message has 1 to {MAX_MESSAGE} characters; say what you saved")
        check_plain(message, "message")
        snapshot_id = f"snap-{secrets.token_hex(6)}"
        with workspace.changing():
            self._check_room(workspace, agent)
            files = self._store_files(workspace)
            row = {
                "snapshot_id": snapshot_id,
                "agent": agent,
                "message": message,
                "parent": self._newest(agent),
                "files": len(files),
                "bytes": sum(file["bytes"] for file in files),
                "shared": shared,
                "saved_at": time.time(),
            }
            made = _view(SimpleNamespace(**row))
            announce(made)
            with writing(self.engine) as connection:
                connection.execute(insert(snapshots).values(row))
                if files:
                    rows = [{"snapshot_id": snapshot_id, **file} for file in files]
                    connection.execute(insert(snapshot_files), rows)
            return made

    def has(self, snapshot_id: str) -> bool:
        """Whether there is such a snapshot, of anybody's."""
        query = select(snapshots.c.seq).where(snapshots.c.snapshot_id == snapshot_id)
        with reading(self.engine) as connection:
            return connection.scalar(query) is not None

    def list_snapshots(
        self, caller: Caller, agent: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> SnapshotList:
        """Snapshots that the caller may load, newest first: own ones and those that others share."""
        query = select(snapshots).where(_visible(caller)).order_by(snapshots.c.seq.desc()).limit(limit + 1)
        if agent:
            query = query.where(snapshots.c.agent == agent)
        if cursor:
            query = query.where(snapshots.c.seq < read_cursor(cursor, {"before": 1})[1][0])
        with reading(self.engine) as connection:
            rows = connection.execute(query).all()
        page = fit_page(_view(row) for row in rows[:limit])
        more = make_cursor("before", rows[len(page) - 1].seq) if len(page) < len(rows) else None
        return SnapshotList(snapshots=tuple(page), next_cursor=more)

    def load(
        self,
        caller: Caller,
        workspace: Workspace,
        snapshot_id: str,
        folder: str,
        announce: Callable[[Loaded], None] = lambda _: None,
    ) -> Loaded:
        """Copy a snapshot's files into a folder that is new or empty: all of them, or none.

        `announce` is told right before they are there.

        Raises:
            NotFoundError: there is no such snapshot, or its owner does not share it.
            ConflictError: the folder has something in it.
            InvalidInputError: the folder is the workspace itself, or too deep.
            BudgetError: the workspace has no room.
            IntegrityError: a stored file was damaged.
        """
        if not split_path(folder):
            raise InvalidInputError("name a new folder for the snapshot, such as 'from-alice'")
        check_plain(folder, "folder", name=True)
        found, files = self.contents(caller, snapshot_id)
        for path in files:
            split_path(f"{folder}/{path}")
        with workspace.changing(), workspace.staging() as staged:
            workspace.check_quota(found.bytes, len(files) + len(_folders(files)) + workspace.missing(folder))
            if workspace.holds(folder):
                raise ConflictError(f"{folder!r} exists; delete it first, or use another name")
            self._unpack(files, staged)
            loaded = Loaded(snapshot_id=snapshot_id, folder=folder, files=len(files))
            announce(loaded)
            place_confined(staged, workspace.root, folder)
        return loaded

    def contents(self, caller: Caller, snapshot_id: str) -> tuple[Snapshot, dict[str, str]]:
        """A snapshot and the SHA-256 of each of its files, by path.

        Raises NotFoundError where there is none, or its owner does not share it.
        """
        files = select(snapshot_files.c.path, snapshot_files.c.sha256).where(
            snapshot_files.c.snapshot_id == snapshot_id
        )
        with reading(self.engine) as connection:
            found = _find(connection, snapshot_id, caller)
            return _view(found), {row.path: row.sha256 for row in connection.execute(files)}

    def read(self, sha256: str) -> bytes:
        """A saved file's contents. Raises IntegrityError where they were damaged."""
        return self._blobs.get(sha256)

    def _check_room(self, workspace: Workspace, agent: str) -> None:
        """What is kept for good, equal contents once and every name, must not fill the disk for everybody."""
        mine = snapshots.c.agent == agent
        files = snapshot_files.join(snapshots, snapshot_files.c.snapshot_id == snapshots.c.snapshot_id)
        distinct = select(snapshot_files.c.sha256, snapshot_files.c.bytes).select_from(files).where(mine).distinct()
        names = select(func.sum(func.length(snapshot_files.c.path) + ROW_BYTES)).select_from(files).where(mine)
        with reading(self.engine) as connection:
            count = connection.scalar(select(func.count()).select_from(snapshots).where(mine)) or 0
            held = connection.scalar(select(func.sum(distinct.subquery().c.bytes))) or 0
            listed = connection.scalar(names) or 0
        workspace.check_snapshots(count, held + listed)

    def _newest(self, agent: str) -> str | None:
        newest = select(snapshots.c.snapshot_id).where(snapshots.c.agent == agent).order_by(snapshots.c.seq.desc())
        with reading(self.engine) as connection:
            return connection.scalar(newest.limit(1))

    def _store_files(self, workspace: Workspace) -> list[dict[str, Any]]:
        files = []
        for entry in walk_confined(workspace.root):
            if entry.kind == "folder":
                continue
            check_regular(entry.status, entry.path)
            check_plain("/".join(entry.parts), f"path {entry.path!r}", name=True)
            data = workspace.read_bytes(entry.path)
            files.append({"path": entry.path, "sha256": self._blobs.put(data), "bytes": len(data)})
        return files

    def _unpack(self, files: dict[str, str], staged: Path) -> None:
        staged.mkdir()
        for path, sha256 in files.items():
            place = staged.joinpath(*split_path(path))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.read(sha256))


def _visible(caller: Caller) -> Any:
    return True if caller.is_operator else or_(snapshots.c.agent == caller.agent, snapshots.c.shared)


def _find(connection: Connection, snapshot_id: str, caller: Caller) -> Row[Any]:
    query = select(snapshots).where(snapshots.c.snapshot_id == snapshot_id, _visible(caller))
    if not SNAPSHOT_ID.fullmatch(snapshot_id) or (row := connection.execute(query).first()) is None:
        raise NotFoundError(f"no snapshot {snapshot_id[:80]!r} that you may load; `list_snapshots` shows them")
    return row


def _view(row: Row[Any] | SimpleNamespace) -> Snapshot:
    return Snapshot(
        snapshot_id=row.snapshot_id,
        agent=row.agent,
        message=row.message,
        parent=row.parent,
        files=row.files,
        bytes=row.bytes,
        shared=row.shared,
        saved_at=datetime.fromtimestamp(row.saved_at, UTC),
    )


def _folders(paths: Iterable[str]) -> set[str]:
    """All folders that these files stand in."""
    return {path[:place] for path in paths for place, letter in enumerate(path) if letter == "/"}
