"""What was deleted can be put back, and the trash stays small."""

from pathlib import Path

import pytest

from outlearn.errors import BudgetError, ConflictError, InvalidInputError, NotFoundError, PermissionDeniedError
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.workspace import Workspace


def workspace(home: Path, agent: str = "alice", **limits: int) -> Workspace:
    return Workspace(FilesystemSettings.model_validate({"home": home, **limits}), agent)


def trash(space: Workspace) -> list[str]:
    return sorted(p.name for p in (space.root.parent / ".trash" / space.root.name).iterdir())


def test_a_deleted_folder_is_put_back_as_it_was_links_and_binary_files_included(tmp_path: Path) -> None:
    space = workspace(tmp_path)
    space.write_file("d/deep/a.txt", "a")
    (space.root / "d" / "weights.bin").write_bytes(b"\xff\0")
    (space.root / "d" / "link").symlink_to(tmp_path)
    deleted = space.delete("d")
    assert (deleted.files, list(space.root.iterdir())) == (3, [])
    restored = space.restore(deleted.undo, "old/d")
    assert (restored.files, space.read_text("old/d/deep/a.txt")) == (3, "a")
    assert (space.root / "old" / "d" / "weights.bin").read_bytes() == b"\xff\0"
    assert (space.root / "old" / "d" / "link").readlink() == tmp_path
    assert trash(space) == []


def test_putting_back_overwrites_nothing_and_happens_once(tmp_path: Path) -> None:
    space = workspace(tmp_path)
    space.write_file("a.txt", "old")
    undo = space.delete("a.txt").undo
    space.write_file("a.txt", "new")
    for path, error in (
        ("a.txt", ConflictError),
        ("", ConflictError),
        ("../b", PermissionDeniedError),
        ("a.txt/b", NotFoundError),
        ("b\0", InvalidInputError),
    ):
        with pytest.raises(error):
            space.restore(undo, path)
    space.restore(undo, "b.txt")
    assert (space.read_text("a.txt"), space.read_text("b.txt")) == ("new", "old")
    with pytest.raises(NotFoundError, match="in your trash"):
        space.restore(undo, "c.txt")


@pytest.mark.parametrize("unknown", ["", "trash-", "trash-0000000000000000", "../bob", "trash-000000000000000\n", "\0"])
def test_only_ids_of_ones_own_deletions_are_put_back(tmp_path: Path, unknown: str) -> None:
    alice, bob = workspace(tmp_path), workspace(tmp_path, "bob")
    bob.write_file("a.txt", "bob's")
    for trash_id in (unknown, bob.delete("a.txt").undo):
        with pytest.raises(NotFoundError, match="in your trash"):
            alice.restore(trash_id, "x")


def test_the_trash_holds_no_more_than_a_workspace_and_always_the_last_deletion(tmp_path: Path) -> None:
    space = workspace(tmp_path, max_workspace_bytes=10, max_files=3)
    undo = []
    for size in (4, 4, 4):
        space.write_file("a.txt", "x" * size)
        undo.append(space.delete("a.txt").undo)
    assert trash(space) == undo[1:], "at most 10 bytes"
    for _ in range(4):
        space.write_file("empty", "")
        undo.append(space.delete("empty").undo)
    assert trash(space) == undo[-3:], "at most three entries"
    (space.root / "huge").write_text("x" * 100)
    last = space.delete("huge").undo
    assert trash(space) == [last]


def test_what_is_put_back_counts_for_the_quota(tmp_path: Path) -> None:
    space = workspace(tmp_path, max_workspace_bytes=10, max_files=3)
    space.write_file("d/a.txt", "x" * 6)
    undo = space.delete("d").undo
    space.write_file("b.txt", "x" * 5)
    with pytest.raises(BudgetError, match="5 of 10 bytes, and this needs 6 more"):
        space.restore(undo, "d")
    space.write_file("b.txt", "x")
    with pytest.raises(BudgetError, match="1 of 3 files and folders, and this needs 3 more"):
        space.restore(undo, "e/d")
    assert space.restore(undo, "d").files == 1


def test_what_would_be_too_deep_stays_in_the_trash(tmp_path: Path) -> None:
    space = workspace(tmp_path)
    space.write_file("d/e/a.txt", "a")
    undo = space.delete("d").undo
    with pytest.raises(InvalidInputError, match="names deep"):
        space.restore(undo, "x/" * 62 + "d")
    assert trash(space) == [undo]
