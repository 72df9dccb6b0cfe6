"""Search in files, with patterns that would never end."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlearn.errors import InvalidInputError
from outlearn_filesystem.globs import Glob
from outlearn_filesystem.grep import grep
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.views import find_files, grep_files
from outlearn_filesystem.workspace import Workspace


def workspace(home: Path) -> Workspace:
    space = Workspace(FilesystemSettings(home=home), "alice")
    space.write_file("a.py", "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n")
    space.write_file("notes/b.md", "The method\ndoes not fit.\r\nfit")
    (space.root / "c.bin").write_bytes(b"fit \xff")
    (space.root / "d.lnk").symlink_to("a.py")
    return space


def test_grep_shows_lines_and_counts_what_it_skipped(tmp_path: Path) -> None:
    found = grep_files(workspace(tmp_path), r"\bfit\b", seconds=20)
    assert [(m.path, m.line) for m in found.matches] == [("a.py", 2), ("notes/b.md", 2), ("notes/b.md", 3)]
    assert (found.truncated, found.skipped) == (False, 2)


def test_grep_narrows_by_path_glob_and_limit(tmp_path: Path) -> None:
    space = workspace(tmp_path)
    assert [m.path for m in grep_files(space, "(?i)METHOD", path="notes", seconds=20).matches] == ["notes/b.md"]
    assert [m.path for m in grep_files(space, "method", path="a.py", seconds=20).matches] == ["a.py"]
    assert [m.path for m in grep_files(space, "method", glob="*.md", seconds=20).matches] == ["notes/b.md"]
    first = grep_files(space, "fit", limit=1, seconds=20)
    assert ([m.line for m in first.matches], first.truncated) == ([2], True)


@pytest.mark.parametrize(
    "pattern", ["(", "[z-a]", "(?P<n>a)(?P<n>b)", "", "x" * 1_001, "(" * 500 + ")" * 500, "a{99999999999}"]
)
def test_impossible_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidInputError, match=r"pattern|regular expression"):
        grep(pattern, [("a", b"a")], limit=1, seconds=20)


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"((a{1,300}){1,300}){1,300}$", r"(?:a?){60}a{60}$"])
def test_the_time_limit_holds_against_regex_bombs(pattern: str) -> None:
    start = time.monotonic()
    with pytest.raises(InvalidInputError, match=r"longer than 0\.5 s"):
        grep(pattern, [("a", b"a" * 59 + b"b")], limit=1, seconds=0.5)
    assert time.monotonic() - start < 10


def test_long_lines_are_shown_around_the_match() -> None:
    (match,) = grep("needle", [("a", b"x" * 100_000 + b"needle" + b"y" * 100_000)], limit=1, seconds=20).matches
    assert "needle" in match.text
    assert len(match.text) == 400


NAMES = st.text(alphabet="ab.", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))


@given(names=st.lists(NAMES, min_size=1, max_size=5), data=st.data())
def test_a_glob_made_from_a_path_matches_it(names: list[str], data: st.DataObject) -> None:
    pattern: list[str] = []
    for name in names:
        choice = data.draw(st.sampled_from(["same", "star", "first", "deep"]))
        pattern += {"same": [name], "star": ["*"], "first": [name[0] + "*"], "deep": ["**", name]}[choice]
    assert Glob("/" + "/".join(pattern)).matches(names)
    assert Glob("/**").matches(names)
    assert not Glob("/" + "/".join([*pattern, "zz"])).matches(names)


@settings(deadline=2_000)
@given(st.text(alphabet="*?[]!a-/\\", min_size=1, max_size=200))
def test_no_glob_takes_long(glob: str) -> None:
    if glob.strip("/"):
        Glob(glob).matches(["a" * 255] * 60)


def test_finding_files_has_a_time_limit(tmp_path: Path) -> None:
    space = workspace(tmp_path)
    assert [one.path for one in find_files(space, "*.md", seconds=20).entries] == ["notes/b.md"]
    with pytest.raises(InvalidInputError, match=r"'\*\.md' took longer than 1e-09 s; use a simpler glob"):
        find_files(space, "*.md", seconds=1e-9)


def test_a_glob_of_many_folders_is_quick_over_many_deep_files() -> None:
    glob, folders = Glob("**/a/" * 90 + "b"), ["a"] * 60
    start = time.process_time()
    assert not any(glob.matches([*folders, str(number)]) for number in range(5_000))
    assert time.process_time() - start < 2, "it took 6 s when all places were kept in a set"
