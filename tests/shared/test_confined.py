"""Confined paths: whatever stands or moves in the folder, nothing outside it is read, changed or deleted."""

import contextlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlearn.confined import (
    MAX_DEPTH,
    list_confined,
    look_up,
    open_folder,
    place_confined,
    read_confined,
    remove_confined,
    rename_confined,
    split_path,
    walk_confined,
)
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError, OutlearnError, PermissionDeniedError

SECRET = b"secret: the label of t3 is 1"
MAX = 1000


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the root, with something worth stealing."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_bytes(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """A root folder with a file, a folder, and every kind of way out."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "note.txt").write_bytes(b"mine")
    (folder / "sub" / "deep.txt").write_bytes(b"deep")
    (folder / "to_file").symlink_to(outside / "secret.txt")
    (folder / "to_folder").symlink_to(outside)
    (folder / "sub" / "up").symlink_to("../../outside")
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    return folder


def open_descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


# reading


def test_a_file_is_read_however_its_path_is_written(root: Path) -> None:
    for path in ("note.txt", "/note.txt", "./note.txt", "//.//note.txt"):
        assert read_confined(root, path, max_bytes=MAX) == b"mine"
    assert read_confined(root, "sub/deep.txt", max_bytes=MAX) == b"deep"


@pytest.mark.parametrize("path", ["to_file", "to_folder/secret.txt", "sub/up/secret.txt", "loop", "dangling", "loop/x"])
def test_symlinks_are_not_followed(root: Path, path: str) -> None:
    with pytest.raises(PermissionDeniedError, match="is a symlink"):
        read_confined(root, path, max_bytes=MAX)


@pytest.mark.parametrize("path", ["..", "../outside/secret.txt", "sub/../note.txt", "sub/../../outside/secret.txt"])
def test_dots_do_not_lead_up(root: Path, path: str) -> None:
    with pytest.raises(PermissionDeniedError, match=r"has a '\.\.'"):
        read_confined(root, path, max_bytes=MAX)


def test_a_hard_link_to_a_file_outside_is_not_read(root: Path, outside: Path) -> None:
    (root / "hard").hardlink_to(outside / "secret.txt")
    with pytest.raises(PermissionDeniedError, match="has other hard links"):
        read_confined(root, "hard", max_bytes=MAX)


def test_a_pipe_without_a_writer_does_not_block(root: Path) -> None:
    start = time.monotonic()
    with pytest.raises(PermissionDeniedError, match="'pipe' is not a regular file"):
        read_confined(root, "pipe", max_bytes=MAX)
    assert time.monotonic() - start < 5


def test_a_device_is_not_read(root: Path) -> None:
    try:
        os.mknod(root / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can make a device")
    with pytest.raises(OutlearnError):
        read_confined(root, "zero", max_bytes=MAX)


def test_a_folder_is_not_read_and_leaves_no_descriptor_open(root: Path) -> None:
    before = open_descriptors()
    for path in ("sub", "", "/"):
        with pytest.raises(InvalidInputError, match="folder"):
            read_confined(root, path, max_bytes=MAX)
    for path in ("pipe", "to_file", "sub/nowhere", "note.txt/x"):
        with pytest.raises(OutlearnError):
            read_confined(root, path, max_bytes=MAX)
    assert open_descriptors() == before


def test_what_is_larger_than_the_limit_is_refused(root: Path) -> None:
    assert read_confined(root, "note.txt", max_bytes=4) == b"mine"
    with pytest.raises(InvalidInputError, match="larger than 3 bytes"):
        read_confined(root, "note.txt", max_bytes=3)


@pytest.mark.parametrize("path", ["nowhere", "sub/nowhere", "nowhere/x", "note.txt/x"])
def test_what_is_missing_is_said_to_be_missing(root: Path, path: str) -> None:
    with pytest.raises(NotFoundError, match=r"no 'nowhere|no 'sub/nowhere|'note.txt' is a file"):
        read_confined(root, path, max_bytes=MAX)
    assert look_up(root, path) is None


@pytest.mark.parametrize(
    "path",
    ["a\0b", "x" * 300, "ä" * 150, "/".join("d" * (MAX_DEPTH + 1)), "\ud800", "a\0/../x", "/".join(["d" * 250] * 5)],
)
def test_impossible_names_are_refused_with_a_reason(root: Path, path: str) -> None:
    for call in (split_path, lambda path: read_confined(root, path, max_bytes=MAX)):
        with pytest.raises((InvalidInputError, PermissionDeniedError)):
            call(path)


ODD_NAMES = st.sampled_from(
    ["..", ".", "", "sub", "note.txt", "to_file", "to_folder", "secret.txt", "up", "loop", "pipe", "outside", "~", "\0"]
)
PATHS = st.lists(ODD_NAMES | st.text(max_size=300), max_size=8).map("/".join) | st.text()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS)
def test_no_path_leads_outside(root: Path, path: str) -> None:
    for call in (
        lambda: read_confined(root, path, max_bytes=MAX),
        lambda: look_up(root, path),
        lambda: list_confined(root, path),
        lambda: list(walk_confined(root, path)),
    ):
        try:
            result = call()
        except OutlearnError:
            continue
        if isinstance(result, bytes):
            assert result in (b"mine", b"deep")
        elif isinstance(result, list):
            assert "secret.txt" not in {entry.parts[-1] for entry in result}


# listing


def test_listing_and_walking_show_symlinks_without_following_them(root: Path) -> None:
    kinds = {entry.path: entry.kind for entry in walk_confined(root)}
    assert kinds == {
        "dangling": "symlink",
        "loop": "symlink",
        "note.txt": "file",
        "pipe": "other",
        "sub": "folder",
        "sub/deep.txt": "file",
        "sub/up": "symlink",
        "to_file": "symlink",
        "to_folder": "symlink",
    }
    assert [entry.path for entry in list_confined(root, "sub")] == ["sub/deep.txt", "sub/up"]
    assert look_up(root, "") is not None
    with pytest.raises(PermissionDeniedError):
        list_confined(root, "to_folder")


def test_a_name_that_is_not_utf8_is_shown_escaped(root: Path) -> None:
    (root / "sub" / os.fsdecode(b"\xff.txt")).write_bytes(b"")
    assert "sub/\\xff.txt" in [entry.path for entry in walk_confined(root, "sub")]


def test_walking_ends_at_the_depth_limit(tmp_path: Path) -> None:
    root = tmp_path / "root"
    folder = root
    for _ in range(MAX_DEPTH + 20):
        folder = folder / "d"
    folder.mkdir(parents=True)
    depths = [len(entry.parts) for entry in walk_confined(root)]
    assert depths == list(range(1, MAX_DEPTH + 1))
    remove_confined(root, "d")
    assert list_confined(root) == []


# changing


def test_deleting_never_follows_a_link(root: Path, outside: Path) -> None:
    for path in ("to_file", "to_folder", "sub", "loop", "dangling", "pipe"):
        remove_confined(root, path)
    assert [entry.path for entry in list_confined(root)] == ["note.txt"]
    assert (outside / "secret.txt").read_bytes() == SECRET


@pytest.mark.parametrize("path", ["", "/", "."])
def test_the_root_itself_is_neither_deleted_nor_moved_nor_replaced(root: Path, tmp_path: Path, path: str) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    calls: list[Callable[[], None]] = [
        lambda: remove_confined(root, path),
        lambda: rename_confined(root, path, "x"),
        lambda: rename_confined(root, "sub", path),
        lambda: place_confined(staged, root, path),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError, match="root folder"):
            call()
    assert (root / "note.txt").exists()


@pytest.mark.parametrize("path", ["to_folder/secret.txt", "sub/up/new.txt", "to_folder/new/x", "../outside/new"])
def test_nothing_is_placed_or_moved_outside(root: Path, outside: Path, tmp_path: Path, path: str) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    with pytest.raises(PermissionDeniedError):
        place_confined(staged, root, path)
    with pytest.raises(PermissionDeniedError):
        rename_confined(root, "note.txt", path)
    with pytest.raises(PermissionDeniedError):
        rename_confined(root, path, "stolen")
    with pytest.raises(PermissionDeniedError):
        remove_confined(root, path)
    assert [one.name for one in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_placing_replaces_a_link_and_not_what_it_names(root: Path, outside: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    place_confined(staged, root, "to_file")
    assert read_confined(root, "to_file", max_bytes=MAX) == b"new"
    assert (outside / "secret.txt").read_bytes() == SECRET


def test_moves_that_would_lose_something_are_conflicts(root: Path, tmp_path: Path) -> None:
    (root / "other").mkdir()
    (root / "other" / "x").write_bytes(b"")
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    with pytest.raises(ConflictError, match="'other' exists"):
        rename_confined(root, "sub", "other")
    with pytest.raises(ConflictError, match="'sub' exists"):
        place_confined(staged, root, "sub")
    with pytest.raises(ConflictError):
        rename_confined(root, "sub", "note.txt")
    with pytest.raises(InvalidInputError, match="into itself"):
        rename_confined(root, "sub", "sub/new/inner")
    with pytest.raises(NotFoundError):
        rename_confined(root, "nowhere", "new/x")
    assert not (root / "new").exists()
    assert not (root / "sub" / "new").exists()
    assert staged.exists()
    assert (root / "sub" / "deep.txt").exists()


def test_a_name_that_is_a_file_cannot_become_a_folder(root: Path, tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    with pytest.raises(OutlearnError):
        place_confined(staged, root, "note.txt/x")
    assert read_confined(root, "note.txt", max_bytes=MAX) == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_explained(root: Path) -> None:
    (root / "sub").chmod(0o555)
    with pytest.raises(InvalidInputError, match="Permission denied"), open_folder(root, ("sub", "new"), create=True):
        pass


# races

SWAPPER = """
import os, sys
root, outside = sys.argv[1:]
os.chdir(root)
print("ready", flush=True)
while True:
    os.rename("sub", "kept")
    os.symlink(outside, "sub")
    os.unlink("sub")
    os.rename("kept", "sub")
"""


def test_a_folder_swapped_for_a_symlink_while_it_is_used_leaks_nothing(root: Path, outside: Path) -> None:
    (outside / "deep.txt").write_bytes(SECRET)
    seen: set[bytes | str] = set()
    with subprocess.Popen([sys.executable, "-c", SWAPPER, str(root), str(outside)], stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            start = time.monotonic()
            while time.monotonic() < start + 0.7 or (b"deep" not in seen and time.monotonic() < start + 20):
                try:
                    seen.add(read_confined(root, "sub/deep.txt", max_bytes=MAX))
                    seen |= {entry.path for entry in list_confined(root, "sub")}
                except (NotFoundError, PermissionDeniedError) as error:
                    seen.add(type(error).__name__)
                with contextlib.suppress(NotFoundError, PermissionDeniedError):
                    remove_confined(root, "sub/secret.txt")
        finally:
            swapper.kill()
    assert b"deep" in seen
    assert seen & {"NotFoundError", "PermissionDeniedError"}, "the race was never run"
    assert SECRET not in seen
    assert "sub/secret.txt" not in seen
    assert (outside / "secret.txt").read_bytes() == SECRET
