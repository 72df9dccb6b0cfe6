"""Listing, placing, moving and removing below a folder that nothing may leave."""

import os
from pathlib import Path

import pytest

from outlearn.confined import (
    MAX_DEPTH,
    list_confined,
    look_up,
    place_confined,
    remove_confined,
    rename_confined,
    split_path,
    walk_confined,
)
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError, PermissionDeniedError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "folder" / "deep").mkdir(parents=True)
    (root / "file").write_text("text")
    (root / "folder" / "deep" / "file").write_text("deep")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    (root / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(root / "pipe")
    return root


def staged(root: Path, name: str = "staged", folder: bool = False) -> Path:
    path = root.parent / name
    if folder:
        path.mkdir()
    else:
        path.write_text("new")
    return path


def test_a_walk_lists_everything_and_follows_no_link(root: Path) -> None:
    found = {entry.path: entry.kind for entry in walk_confined(root)}
    assert found == {
        "file": "file",
        "folder": "folder",
        "folder/deep": "folder",
        "folder/deep/file": "file",
        "link": "symlink",
        "pipe": "other",
    }
    assert [entry.path for entry in list_confined(root, "folder")] == ["folder/deep"]
    for path, error in (("link", PermissionDeniedError), ("file", NotFoundError), ("gone", NotFoundError)):
        with pytest.raises(error):
            list_confined(root, path)


def test_names_that_are_no_text_are_shown_escaped(root: Path) -> None:
    (root / os.fsdecode(b"\xff.bin")).touch()
    assert "\\xff.bin" in [entry.path for entry in list_confined(root)]


def test_look_up_says_what_is_there_or_none(root: Path) -> None:
    assert [entry.kind for path in ("", "file", "link", "pipe") if (entry := look_up(root, path))] == [
        "folder",
        "file",
        "symlink",
        "other",
    ]
    assert look_up(root, "gone") is None
    assert look_up(root, "gone/file") is None
    with pytest.raises(PermissionDeniedError, match="symlink"):
        look_up(root, "link/file")


def test_files_are_placed_whole_and_folders_never_over_others(root: Path) -> None:
    place_confined(staged(root), root, "new/er/file")
    place_confined(staged(root), root, "file")
    assert (root / "new" / "er" / "file").read_text() == (root / "file").read_text() == "new"
    folder = staged(root, "staged folder", folder=True)
    for path in ("folder", "file", "link", "pipe"):
        with pytest.raises(ConflictError, match="exists"):
            place_confined(folder, root, path)
    with pytest.raises(PermissionDeniedError, match="symlink"):
        place_confined(folder, root, "link/x")
    with pytest.raises(ConflictError, match="exists"):
        place_confined(staged(root), root, "folder")
    place_confined(folder, root, "fresh")
    assert (root / "fresh").is_dir()


def test_renaming_stays_inside(root: Path) -> None:
    rename_confined(root, "folder/deep", "elsewhere/deep")
    assert (root / "elsewhere" / "deep" / "file").read_text() == "deep"
    for source, target, error in (
        ("gone", "x", NotFoundError),
        ("elsewhere", "elsewhere/deep/x", InvalidInputError),
        ("elsewhere", "file", ConflictError),
        ("", "x", InvalidInputError),
        ("file", "", InvalidInputError),
        ("link/file", "x", PermissionDeniedError),
        ("file", "link/x", PermissionDeniedError),
        ("../outside/file", "x", PermissionDeniedError),
    ):
        with pytest.raises(error):
            rename_confined(root, source, target)
    assert (root.parent / "outside" / "file").read_text() == "outside"


def test_removing_a_link_leaves_what_it_points_at(root: Path) -> None:
    for path in ("link", "pipe", "folder", "file"):
        remove_confined(root, path)
    assert list(root.iterdir()) == []
    assert (root.parent / "outside" / "file").read_text() == "outside"
    for path, error in (("file", NotFoundError), ("", InvalidInputError), ("..", PermissionDeniedError)):
        with pytest.raises(error):
            remove_confined(root, path)


def test_paths_have_a_greatest_depth() -> None:
    assert len(split_path("a/" * MAX_DEPTH)) == MAX_DEPTH
    with pytest.raises(InvalidInputError, match="65 names deep"):
        split_path("a/" * (MAX_DEPTH + 1))
