"""What is different between two snapshots."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import NotFoundError
from outlearn.identity import Caller
from outlearn_filesystem.comparison import diff_snapshots
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.snapshots import SnapshotStore
from outlearn_filesystem.workspace import Workspace

ALICE, BOB = Caller(agent="alice"), Caller(agent="bob")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SnapshotStore]:
    store = SnapshotStore(FilesystemSettings(home=tmp_path).database("filesystem"), LocalArtifactStore(tmp_path / "a"))
    yield store
    store.engine.dispose()


@pytest.fixture
def space(tmp_path: Path) -> Workspace:
    return Workspace(FilesystemSettings(home=tmp_path), "alice")


def save(store: SnapshotStore, space: Workspace, *, shared: bool = True) -> str:
    return store.save(space, "alice", "a state", shared=shared).snapshot_id


def test_a_snapshot_is_compared_with_its_parent_or_with_another(store: SnapshotStore, space: Workspace) -> None:
    space.write_file("same.py", "same")
    space.write_file("method.py", "a = 1\nb = 2\n")
    space.write_file("gone.md", "gone\n")
    (space.root / "weights.bin").write_bytes(b"\xff\0")
    first = save(store, space)
    space.write_file("method.py", "a = 1\nb = 3\n")
    space.delete("gone.md")
    space.write_file("new/n.md", "")
    (space.root / "weights.bin").write_bytes(b"\xff\1")
    second = save(store, space)
    found = diff_snapshots(store, BOB, second)
    assert (found.base, found.changed, found.truncated) == (first, 4, False)
    assert [(c.path, c.change) for c in found.changes] == [
        ("gone.md", "removed"),
        ("method.py", "changed"),
        ("new/n.md", "added"),
        ("weights.bin", "changed"),
    ]
    diffs = [c.diff for c in found.changes]
    assert diffs[0].endswith("@@ -1,1 +0,0 @@\n-gone\n")
    assert diffs[1].endswith(" a = 1\n-b = 2\n+b = 3\n")
    assert diffs[2:] == ["", ""]
    back = diff_snapshots(store, BOB, first, second, "*.md")
    assert [(c.path, c.change) for c in back.changes] == [("gone.md", "added"), ("new/n.md", "removed")]
    assert diff_snapshots(store, BOB, first, first).changes == ()


def test_all_files_of_a_first_snapshot_are_new(store: SnapshotStore, space: Workspace) -> None:
    space.write_file("a.py", "a\n")
    (change,) = diff_snapshots(store, ALICE, save(store, space)).changes
    assert (change.change, change.diff.endswith("@@ -0,0 +1,1 @@\n+a\n")) == ("added", True)


def test_what_is_not_shared_is_not_compared_either(store: SnapshotStore, space: Workspace) -> None:
    space.write_file("a.py", "secret")
    private = save(store, space, shared=False)
    space.write_file("a.py", "public")
    shared = save(store, space)
    for arguments in ((shared,), (shared, private), (private, shared), ("snap-000000000000",)):
        with pytest.raises(NotFoundError, match="that you may load"):
            diff_snapshots(store, BOB, *arguments)
    assert diff_snapshots(store, ALICE, shared).changed == 1


def test_a_long_comparison_is_cut_and_says_how_long_it_is(store: SnapshotStore, space: Workspace) -> None:
    for number in range(6):
        space.write_file(f"{number}.txt", "line\n" * 3_000)
    found = diff_snapshots(store, ALICE, save(store, space))
    assert (found.changed, found.truncated) == (6, True)
    assert 0 < len(found.changes) < 6
    assert len(found.model_dump_json()) < 45_000
