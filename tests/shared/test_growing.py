"""Files of lines that are only added to: by several processes, through crashes and full disks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outlearn.growing import NewLines, add_line

WRITER = """
import sys
from pathlib import Path
from outlearn.growing import add_line
for number in range(500):
    add_line(Path(sys.argv[1]), f"{sys.argv[2]} {number} {'x' * 300}".encode())
"""


def test_lines_of_several_processes_all_arrive_whole_and_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    path.parent.mkdir()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(one)]) for one in range(4)]
    seen, reader = list[bytes](), NewLines(path)
    while any(writer.poll() is None for writer in writers):
        seen += reader.read()[1]
    seen += reader.read()[1]
    assert {writer.returncode for writer in writers} == {0}
    assert sorted(seen) == sorted(f"{one} {number} {'x' * 300}".encode() for one in range(4) for number in range(500))


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lines"
    add_line(path, b"first")
    with path.open("ab") as file:
        file.write(b"cut sh")
    reader = NewLines(path)
    assert reader.read() == (True, [b"first"])
    add_line(path, b"second")
    assert reader.read() == (False, [b"cut sh", b"second"])
    assert reader.read() == (False, [])


def test_another_file_or_a_shorter_one_is_read_from_its_start(tmp_path: Path) -> None:
    path, other = tmp_path / "lines", tmp_path / "other"
    reader = NewLines(path)
    assert reader.read() == (True, [])
    add_line(path, b"first")
    add_line(path, b"second")
    assert reader.read() == (True, [b"first", b"second"])
    os.truncate(path, len(b"first\n"))
    assert reader.read() == (True, [b"first"])
    add_line(other, b"third")
    other.replace(path)
    assert reader.read() == (True, [b"third"])
    path.unlink()
    assert reader.read() == (True, [])


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on files")
def test_a_line_for_which_there_is_no_room_is_an_error_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    add_line(path, b"first")
    script = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n" + WRITER
    assert subprocess.run([sys.executable, "-c", script, str(path), "0"], capture_output=True).returncode != 0
    add_line(path, b"second")
    assert NewLines(path).read()[1][-1] == b"second"
