"""Snapshots: saved whole, stored once, shared by id, never overwriting."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlearn.artifacts import LocalArtifactStore
from outlearn.confined import MAX_PATH_BYTES
from outlearn.errors import (
    BudgetError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
)
from outlearn.identity import Caller
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.snapshots import SnapshotStore
from outlearn_filesystem.workspace import Workspace

ALICE, BOB, OPERATOR = Caller(agent="alice"), Caller(agent="bob"), Caller(agent="ops", role="operator")


class Home:
    def __init__(self, folder: Path, **limits: int) -> None:
        settings = FilesystemSettings(home=folder, **limits)
        self.blobs = folder / "artifacts"
        self.store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(self.blobs))
        self.alice, self.bob = Workspace(settings, "alice"), Workspace(settings, "bob")

    def files(self, workspace: Workspace) -> dict[str, str]:
        root = workspace.root
        return {str(p.relative_to(root)): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    home.alice.write_file("method.py", "one")
    home.alice.write_file("lib/util.py", "two")
    yield home
    home.store.engine.dispose()


def test_a_shared_snapshot_loads_into_another_workspace_as_it_was_saved(home: Home) -> None:
    saved = home.store.save(home.alice, "alice", "first", shared=True)
    assert (saved.files, saved.bytes, saved.parent, saved.agent) == (2, 6, None, "alice")
    home.alice.write_file("method.py", "changed")
    home.alice.delete("lib")
    loaded = home.store.load(BOB, home.bob, saved.snapshot_id, "from/alice")
    assert loaded.files == 2
    assert home.files(home.bob) == {"from/alice/method.py": "one", "from/alice/lib/util.py": "two"}
    home.store.load(ALICE, home.alice, saved.snapshot_id, "undo")
    assert home.files(home.alice)["undo/method.py"] == "one"


def test_each_agents_snapshots_form_a_chain_of_their_own(home: Home) -> None:
    first = home.store.save(home.alice, "alice", "1", shared=False)
    other = home.store.save(home.bob, "bob", "empty", shared=True)
    home.store.load(ALICE, home.alice, other.snapshot_id, "bobs")
    second = home.store.save(home.alice, "alice", "2", shared=True)
    third = home.store.save(home.alice, "alice", "3", shared=True)
    assert [s.parent for s in (first, other, second, third)] == [None, None, first.snapshot_id, second.snapshot_id]


def test_private_snapshots_are_hidden_from_others_but_not_from_the_operator(home: Home) -> None:
    private = home.store.save(home.alice, "alice", "private", shared=False)
    shared = home.store.save(home.alice, "alice", "shared", shared=True)
    ids = [s.snapshot_id for s in home.store.list_snapshots(BOB).snapshots]
    assert ids == [shared.snapshot_id]
    for caller in (ALICE, OPERATOR):
        listed = home.store.list_snapshots(caller, "alice").snapshots
        assert [s.snapshot_id for s in listed] == [shared.snapshot_id, private.snapshot_id]
    assert home.store.list_snapshots(ALICE, "bob").snapshots == ()
    for unknown in (private.snapshot_id, "snap-000000000000", "", "\0"):
        with pytest.raises(NotFoundError, match="that you may load"):
            home.store.load(BOB, home.bob, unknown, "x")


def test_lists_come_in_pages(home: Home) -> None:
    saved = [home.store.save(home.alice, "alice", f"{i}", shared=True).snapshot_id for i in range(5)]
    seen, cursor = [], None
    while True:
        page = home.store.list_snapshots(BOB, limit=2, cursor=cursor)
        seen += [snapshot.snapshot_id for snapshot in page.snapshots]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == saved[::-1]


def test_nothing_is_overwritten_and_a_failed_load_leaves_nothing(home: Home) -> None:
    saved = home.store.save(home.alice, "alice", "first", shared=True).snapshot_id
    before = home.files(home.alice)
    for folder in ("lib", "method.py"):
        with pytest.raises(ConflictError, match="exists"):
            home.store.load(ALICE, home.alice, saved, folder)
    for folder in ("", ".", "/"):
        with pytest.raises(InvalidInputError, match="name a new folder"):
            home.store.load(ALICE, home.alice, saved, folder)
    with pytest.raises(InvalidInputError, match="names deep"):
        home.store.load(ALICE, home.alice, saved, "d/" * 62 + "d")
    with pytest.raises(PermissionDeniedError):
        home.store.load(ALICE, home.alice, saved, "../bob/x")
    assert home.files(home.alice) == before
    assert list((home.alice.root.parent / ".staging").iterdir()) == []


def test_equal_contents_are_stored_once_and_damage_is_noticed(home: Home) -> None:
    home.alice.write_file("copy.py", "one")
    home.store.save(home.alice, "alice", "1", shared=True)
    saved = home.store.save(home.alice, "alice", "2", shared=True)
    blobs = [p for p in home.blobs.rglob("*") if p.is_file()]
    assert sorted(p.read_text() for p in blobs) == ["one", "two"]
    blobs[0].write_text("forged")
    with pytest.raises(IntegrityError, match="damaged"):
        home.store.load(BOB, home.bob, saved.snapshot_id, "x")
    assert home.files(home.bob) == {}


def test_what_cannot_be_saved_is_named(home: Home, tmp_path: Path) -> None:
    for message in ("", "  ", "m" * 501, "a\0"):
        with pytest.raises(InvalidInputError, match="message"):
            home.store.save(home.alice, "alice", message, shared=True)
    (tmp_path / "outside").write_text("secret")
    (home.alice.root / "lib" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(PermissionDeniedError, match="'lib/link'"):
        home.store.save(home.alice, "alice", "m", shared=True)
    home.alice.delete("lib/link")
    assert home.store.save(home.alice, "alice", "m", shared=True).files == 2


def test_names_that_others_could_not_read_are_not_saved(home: Home) -> None:
    """Who has a shell can give files any names; two that are shown alike broke the database's rules."""
    for name, refused in ((b"\\xff", False), (b"\xff", True), ("a\u202eb".encode(), True)):
        file = home.alice.root / os.fsdecode(name)
        file.write_text("x")
        if refused:
            with pytest.raises(InvalidInputError, match=r"path '.*' has a hidden U\+[0-9A-F]{4} character"):
                home.store.save(home.alice, "alice", "m", shared=True)
            file.unlink()
    assert home.store.save(home.alice, "alice", "m", shared=True).files == 3


def test_what_was_saved_under_long_names_can_be_loaded(home: Home) -> None:
    longest = "/".join(["d" * 250] * 4 + ["f" * 9])
    assert len(f"from-alice/{longest}") == MAX_PATH_BYTES
    home.alice.write_file(longest, "x")
    saved = home.store.save(home.alice, "alice", "m", shared=True).snapshot_id
    assert home.store.load(BOB, home.bob, saved, "from-alice").files == 3
    with pytest.raises(InvalidInputError, match=f"the limit is {MAX_PATH_BYTES:,}"):
        home.store.load(BOB, home.bob, saved, "from-alice-again")


def test_folders_on_the_way_to_a_loaded_snapshot_count_for_the_quota(tmp_path: Path) -> None:
    home = Home(tmp_path, max_files=6)
    home.alice.write_file("a/b.txt", "x")
    saved = home.store.save(home.alice, "alice", "m", shared=True).snapshot_id
    with pytest.raises(BudgetError, match="0 of 6 files and folders, and this needs 7 more"):
        home.store.load(BOB, home.bob, saved, "1/2/3/4/5")
    assert home.store.load(BOB, home.bob, saved, "1/2/3/4").files == 1
    home.store.engine.dispose()


def test_long_names_count_as_what_snapshots_hold(tmp_path: Path) -> None:
    """A snapshot of a thousand empty files with names of 16 kB took 33 MB in the database, and held nothing."""
    home = Home(tmp_path, max_snapshot_bytes=5_000)
    for number in range(4):
        home.alice.write_file(f"{'n' * 250}/{number}", "")
    for _ in range(4):
        home.store.save(home.alice, "alice", "m", shared=True)
    with pytest.raises(BudgetError, match="4 snapshots that hold"):
        home.store.save(home.alice, "alice", "m", shared=True)
    home.store.engine.dispose()
