"""No path leaves the workspace, diffs can be applied, and writers do not lose each other's writes."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlearn.confined import check_regular
from outlearn.errors import OutlearnError, PermissionDeniedError
from outlearn_filesystem.diffs import edit_diff, split_lines
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.views import find_files, grep_files, list_directory, read_file
from outlearn_filesystem.workspace import Workspace

PARTS = st.sampled_from(
    ["a", "b", "..", ".", "", "out", "file", "link", "hard", "pipe", "device", "\0", "é", "n" * 300, "~", "\ud800"]
)
PATHS = st.lists(PARTS, max_size=5).map("/".join) | st.text(max_size=20)
SECRET = "the secret outside"
ACTIONS = ("read", "write", "edit", "move", "move back", "delete", "delete and undo", "list", "grep")


@contextmanager
def trapped_workspace() -> Iterator[tuple[Workspace, Path]]:
    """A workspace with links of all kinds that lead to a folder outside."""
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder, "outside")
        outside.mkdir()
        (outside / "file").write_text(SECRET)
        space = Workspace(FilesystemSettings(home=Path(folder, "home")), "alice")
        (space.root / "a").mkdir()
        (space.root / "a" / "file").write_text("text")
        (space.root / "out").symlink_to(outside)
        (space.root / "a" / "out").symlink_to("../../../../outside")
        (space.root / "link").symlink_to(outside / "file")
        (space.root / "hard").hardlink_to(outside / "file")
        os.mkfifo(space.root / "pipe")
        (space.root / "device").symlink_to("/dev/zero")
        yield space, outside


def act(space: Workspace, action: str, path: str, other: str) -> str:
    if action == "read":
        return read_file(space, path).text
    if action == "write":
        return space.write_file(path, "new").path
    if action == "edit":
        return space.edit_file(path, "e", "E").diff
    if action.startswith("move"):
        return space.move(*((path, other) if action == "move" else (other, path))).path
    if action == "delete and undo":
        return space.restore(space.delete(path).undo, other).folder
    if action == "delete":
        return space.delete(path).path
    if action == "list":
        return str(list_directory(space, path)) + str(find_files(space, "**/*", seconds=20))
    return str(grep_files(space, "secret", path=path, seconds=20).matches)


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(ACTIONS[:-1]), PATHS, PATHS), min_size=1, max_size=6))
def test_no_sequence_of_calls_reads_or_changes_what_is_outside(steps: list[tuple[str, str, str]]) -> None:
    with trapped_workspace() as (space, outside):
        for action, path, other in steps:
            with suppress(OutlearnError):
                assert SECRET not in act(space, action, path, other)
        assert [p.name for p in outside.iterdir()] == ["file"]
        assert (outside / "file").read_text() == SECRET
        assert {p.name for p in outside.parent.iterdir()} == {"home", "outside"}
        assert {p.name for p in space.root.parent.iterdir()} <= {"alice", ".locks", ".staging", ".trash"}


@settings(max_examples=5, deadline=None)
@given(path=PATHS)
def test_grep_never_shows_what_is_outside(path: str) -> None:
    with trapped_workspace() as (space, _), suppress(OutlearnError):
        assert SECRET not in act(space, "grep", path, "")


LINES = st.lists(st.sampled_from(["a\n", "b\n", "\r\n", "\u2028\n", "c"]), max_size=12).map("".join)


@given(LINES, LINES)
def test_a_diff_turns_the_old_text_into_the_new(old: str, new: str) -> None:
    diff = edit_diff("f", old, new)
    if old == new:
        assert diff == ""
        return
    header, *body = split_lines(diff)[2:]
    first, count = (int(number) for number in header.split()[1][1:].split(","))
    lines = split_lines(old)
    start = first - 1 if count else first
    removed, added = ([line[1:] for line in join_cut_lines(body) if line[0] in (" ", sign)] for sign in "-+")
    assert lines[start : start + count] == removed
    assert "".join(lines[:start] + added + lines[start + count :]) == new


def join_cut_lines(body: list[str]) -> list[str]:
    """Lines of a hunk, without the newlines that a `No newline` mark takes back."""
    marks = [*(line.startswith("\\") for line in body[1:]), False]
    return [line[:-1] if mark else line for line, mark in zip(body, marks, strict=True) if line[0] != "\\"]


APPENDER = """
import sys
from pathlib import Path
from outlearn.errors import ConflictError
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.workspace import Workspace

space = Workspace(FilesystemSettings(home=Path(sys.argv[1])), "alice")
for i in range(int(sys.argv[3])):
    space.edit_file("log.txt", "END", f"{sys.argv[2]}-{i}\\nEND")
"""

SWAPPER = """
import os, sys
from itertools import cycle
from pathlib import Path

root, outside = Path(sys.argv[1]), sys.argv[2]
for i in cycle(range(2)):
    os.rename(root / "d", root / "kept")
    os.symlink(outside, root / "d")
    if i == 0:
        print(flush=True)
    os.unlink(root / "d")
    os.rename(root / "kept", root / "d")
"""


LEAF_SWAPPER = """
import os, sys
from itertools import cycle
from pathlib import Path

root, outside = Path(sys.argv[1]), Path(sys.argv[2])
for i in cycle(range(3)):
    if i == 0:
        os.symlink(outside / "file", root / "next")
    elif i == 1:
        os.link(outside / "file", root / "next")
    else:
        (root / "next").write_text("text")
    os.rename(root / "next", root / "file")
"""


def test_two_processes_editing_one_file_lose_no_edit(tmp_path: Path) -> None:
    space = Workspace(FilesystemSettings(home=tmp_path), "alice")
    space.write_file("log.txt", "END")
    command = [sys.executable, "-c", APPENDER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name, "20"]) for name in ("first", "second")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    lines = space.read_text("log.txt").split("\n")
    assert sorted(lines[:-1]) == sorted(f"{name}-{i}" for name in ("first", "second") for i in range(20))
    assert list((tmp_path / "workspaces" / ".staging").iterdir()) == []


def test_a_folder_that_turns_into_a_symlink_meanwhile_is_no_way_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(SECRET)
    space = Workspace(FilesystemSettings(home=tmp_path), "alice")
    space.write_file("d/file", "text")
    refused = 0
    command = [sys.executable, "-c", SWAPPER, str(space.root), str(outside)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as swapper:
        try:
            assert swapper.stdout is not None
            swapper.stdout.readline()
            for i in range(300):
                try:
                    assert space.read_text("d/file") != SECRET
                    space.write_file("d/new", str(i))
                    space.move("d/new", "d/newer")
                    space.restore(space.delete("d/newer").undo, "d/newest")
                    space.delete("d/newest")
                    assert SECRET not in str(list_directory(space, "d"))
                except OutlearnError:
                    refused += 1
        finally:
            swapper.kill()
    assert refused > 0
    assert [p.name for p in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == SECRET


def test_a_file_that_turns_into_a_link_meanwhile_is_neither_read_nor_written(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text(SECRET)
    space = Workspace(FilesystemSettings(home=tmp_path), "alice")
    refused = 0
    command = [sys.executable, "-c", LEAF_SWAPPER, str(space.root), str(outside)]
    swapper = subprocess.Popen(command)
    try:
        while refused < 60 and swapper.poll() is None:
            for act in (lambda: space.read_text("file"), lambda: space.write_file("file", "new")):
                try:
                    assert act() != SECRET
                except OutlearnError:
                    refused += 1
        assert swapper.poll() is None
    finally:
        swapper.kill()
        swapper.wait()
    assert [p.name for p in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == SECRET


def test_devices_are_no_files() -> None:
    for device in ("/dev/null", "/dev/zero"):
        with pytest.raises(PermissionDeniedError, match="not a regular file"):
            check_regular(Path(device).stat(), "device")
