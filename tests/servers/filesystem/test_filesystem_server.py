"""The workspaces as agents see them."""

import hashlib
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from outlearn.testing import ToolClient, connect
from outlearn_filesystem.server import build
from outlearn_filesystem.settings import FilesystemSettings


@asynccontextmanager
async def team(home: Path, *agents: str, **limits: Any) -> AsyncIterator[list[ToolClient]]:
    async with AsyncExitStack() as stack:
        servers = [build(FilesystemSettings(home=home, agent=agent, **limits)) for agent in agents]
        yield [await stack.enter_async_context(connect(server)) for server in servers]


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def test_an_agent_writes_reads_edits_moves_and_deletes(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        written = await alice.call("write_file", path="methods/soft.py", text="a = 1\nb = 2\n")
        assert written == {"path": "methods/soft.py", "bytes": 12, "sha256": sha256("a = 1\nb = 2\n"), "diff": ""}
        edited = await alice.call("edit_file", path="methods/soft.py", old="b = 2", new="b = 3")
        assert edited["diff"].endswith("@@ -1,2 +1,2 @@\n a = 1\n-b = 2\n+b = 3\n")
        read = await alice.call("read_file", path="methods/soft.py")
        assert (read["text"], read["lines"], read["next_line"]) == ("a = 1\nb = 3\n", 2, None)
        assert read["sha256"] == edited["sha256"] == sha256("a = 1\nb = 3\n")
        moved = await alice.call("move", src="methods/soft.py", dst="old/soft.py")
        assert moved["sha256"] == read["sha256"]
        assert [e["path"] for e in (await alice.call("list_directory"))["entries"]] == ["methods", "old"]
        assert (await alice.call("delete", path="old"))["files"] == 1
        assert [e["path"] for e in (await alice.call("list_directory"))["entries"]] == ["methods"]


async def test_agents_do_not_see_each_others_workspaces(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        await alice.call("write_file", path="secret.txt", text="mine")
        for path in ("secret.txt", "alice/secret.txt", "/secret.txt"):
            with pytest.raises(ToolError, match=r"no '(secret|alice)"):
                await bob.call("read_file", path=path)
        with pytest.raises(ToolError, match=re.escape("has a '..'")):
            await bob.call("read_file", path="../alice/secret.txt")
        assert (await bob.call("find_files", glob="**/*"))["entries"] == []
        assert (await bob.call("grep", pattern="mine"))["matches"] == []


async def test_long_files_are_read_in_pages(tmp_path: Path) -> None:
    text = "".join(f"line {i} äöü ✅\n" for i in range(5_000))
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path="long.txt", text=text)
        read, pages, line = "", 0, 1
        while line:
            page = await alice.call("read_file", path="long.txt", first_line=line, max_lines=10_000)
            assert len(json.dumps(page, ensure_ascii=False).encode()) < 42_000
            assert (page["lines"], page["sha256"]) == (5_000, sha256(text))
            read, pages, line = read + page["text"], pages + 1, page["next_line"]
        assert (read, pages) == (text, 3)
        two = await alice.call("read_file", path="long.txt", first_line=4_999, max_lines=1)
        assert (two["text"], two["next_line"]) == ("line 4998 äöü ✅\n", 5_000)
        last = await alice.call("read_file", path="long.txt", first_line=-1)
        assert (last["text"], last["first_line"], last["next_line"]) == ("line 4999 äöü ✅\n", 5_000, None)
        assert (await alice.call("read_file", path="long.txt", first_line=-9_999, max_lines=1))["first_line"] == 1
        with pytest.raises(ToolError, match="there is no line 0"):
            await alice.call("read_file", path="long.txt", first_line=0)
        with pytest.raises(ToolError, match="has 5,000 lines; there is no line 5,001"):
            await alice.call("read_file", path="long.txt", first_line=5_001)


async def test_a_file_of_millions_of_lines_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path="lines.txt", text="a\n" * 3_000_000 + "b\n" + "a\n" * 2_000_000)
        start = time.process_time()
        for first, text in ((1, "a\n"), (3_000_001, "b\n"), (-2_000_001, "b\n"), (5_000_001, "a\n")):
            read = await alice.call("read_file", path="lines.txt", first_line=first, max_lines=1)
            assert (read["text"], read["lines"]) == (text, 5_000_001)
        edited = await alice.call("edit_file", path="lines.txt", old="b", new="c")
        assert edited["diff"].endswith("@@ -2999998,7 +2999998,7 @@\n a\n a\n a\n-b\n+c\n a\n a\n a\n")
        assert time.process_time() - start < 2, "it took three, in which all other threads stood still"


async def test_a_line_that_fits_no_page_is_cut_and_says_so(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path="min.js", text="\0" * 100_000 + "\nnext")
        page = await alice.call("read_file", path="min.js")
        assert page["line_cut"]
        assert len(json.dumps(page)) < 42_000
        after = await alice.call("read_file", path="min.js", first_line=page["next_line"])
        assert (after["text"], after["line_cut"], after["next_line"]) == ("next", False, None)
        await alice.call("write_file", path="empty.txt", text="")
        empty = await alice.call("read_file", path="empty.txt")
        assert (empty["text"], empty["lines"], empty["next_line"]) == ("", 0, None)


async def test_edits_need_exactly_one_match(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path="a.txt", text="aaa\nb\r\nc\naaa")
        for old, why in (
            ("zzz", "not in 'a.txt'"),
            ("aa", r"lines 1, 1, 4, 4\)"),
            ("b\nc", r"end with \\r\\n"),
            ("", "`old`"),
        ):
            with pytest.raises(ToolError, match=why):
                await alice.call("edit_file", path="a.txt", old=old, new="new")
        with pytest.raises(ToolError, match="must differ"):
            await alice.call("edit_file", path="a.txt", old="b", new="b")
        assert (await alice.call("read_file", path="a.txt"))["text"] == "aaa\nb\r\nc\naaa"
        diff = (await alice.call("edit_file", path="a.txt", old="c\naaa", new="c\naab"))["diff"]
        assert diff.endswith("-aaa\n\\ No newline at end of file\n+aab\n\\ No newline at end of file\n")


async def test_a_changed_file_is_not_overwritten_by_who_did_not_see_the_change(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        first = (await alice.call("write_file", path="a.txt", text="one", expected_sha256=""))["sha256"]
        await alice.call("write_file", path="a.txt", text="two", expected_sha256=first)
        for arguments in ({"text": "three", "expected_sha256": first}, {"text": "three", "expected_sha256": ""}):
            with pytest.raises(ToolError, match=f"it has sha256 {sha256('two')}"):
                await alice.call("write_file", path="a.txt", **arguments)
        with pytest.raises(ToolError, match="it does not exist"):
            await alice.call("write_file", path="b.txt", text="x", expected_sha256=first)
        with pytest.raises(ToolError, match="it has sha256"):
            await alice.call("edit_file", path="a.txt", old="two", new="three", expected_sha256=first)
        for tool, arguments in (("move", {"src": "a.txt", "dst": "c.txt"}), ("delete", {"path": "a.txt"})):
            with pytest.raises(ToolError, match=f"'a.txt' changed: it has sha256 {sha256('two')}"):
                await alice.call(tool, **arguments, expected_sha256=first)
        await alice.call("edit_file", path="a.txt", old="two", new="three", expected_sha256=sha256("two").upper())
        await alice.call("move", src="a.txt", dst="c.txt", expected_sha256=sha256("three"))
        await alice.call("delete", path="c.txt", expected_sha256=sha256("three"))
        with pytest.raises(ToolError, match=r"'c\.txt' changed: it does not exist"):
            await alice.call("delete", path="c.txt", expected_sha256=sha256("three"))


async def test_moves_never_overwrite(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path="a.txt", text="a")
        await alice.call("write_file", path="folder/b.txt", text="bb")
        for src, dst, why in (
            ("a.txt", "folder", "'folder' exists"),
            ("a.txt", "folder/b.txt", "exists"),
            ("a.txt", "a.txt", "exists"),
            ("gone", "b", "no 'gone'"),
            ("folder", "folder/in/itself", "into itself"),
            ("a.txt", "", "exists"),
            ("", "b", "root|itself"),
            ("a.txt", "a.txt/b", "is a file, not a folder"),
            ("folder", "x/" * 63 + "y", "names deep"),
        ):
            with pytest.raises(ToolError, match=why):
                await alice.call("move", src=src, dst=dst)
        moved = await alice.call("move", src="folder", dst="deep/er/folder")
        assert (moved["bytes"], moved["sha256"]) == (2, "")
        assert [e["path"] for e in (await alice.call("find_files", glob="*"))["entries"]] == [
            "a.txt",
            "deep/er/folder/b.txt",
        ]


async def test_files_are_found_by_glob(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        for path in ("a.py", "methods/b.py", "methods/deep/c.py", "methods/notes.md"):
            await alice.call("write_file", path=path, text="x")
        for glob, expected in {
            "*.py": ["a.py", "methods/b.py", "methods/deep/c.py"],
            "/*.py": ["a.py"],
            "methods/*": ["methods/b.py", "methods/notes.md"],
            "methods/**": ["methods/b.py", "methods/deep/c.py", "methods/notes.md"],
            "**/deep/*.py": ["methods/deep/c.py"],
            "methods/**/*.py": ["methods/b.py", "methods/deep/c.py"],
            "[ab].py": ["a.py", "methods/b.py"],
            "../*": [],
        }.items():
            assert [e["path"] for e in (await alice.call("find_files", glob=glob))["entries"]] == expected, glob
        with pytest.raises(ToolError, match="glob ''"):
            await alice.call("find_files", glob="")


async def test_lists_are_cut_before_they_are_too_long(tmp_path: Path) -> None:
    folder = tmp_path / "workspaces" / "alice"
    folder.mkdir(parents=True)
    for i in range(600):
        (folder / f"{i:0200d}").touch()
    async with team(tmp_path, "alice") as (alice,):
        for tool, arguments in (("list_directory", {}), ("find_files", {"glob": "*"})):
            listed = await alice.call(tool, **arguments)
            assert listed["truncated"]
            assert len(json.dumps(listed)) < 45_000


async def test_binary_files_get_a_clear_answer(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path="weights.bin", text="x")
        (tmp_path / "workspaces" / "alice" / "weights.bin").write_bytes(b"\xff\xfe\0")
        for tool, arguments in (("read_file", {}), ("edit_file", {"old": "a", "new": "b"})):
            with pytest.raises(ToolError, match=r"not UTF-8 text \(3 bytes"):
                await alice.call(tool, path="weights.bin", **arguments)
        await alice.call("move", src="weights.bin", dst="w.bin")
        saved = await alice.call("save_snapshot", message="binary")
        await alice.call("load_snapshot", snapshot_id=saved["snapshot_id"], folder="copy")
        assert (tmp_path / "workspaces" / "alice" / "copy" / "w.bin").read_bytes() == b"\xff\xfe\0"


async def test_texts_of_10_mb_are_kept_whole_and_longer_ones_refused(tmp_path: Path) -> None:
    limit = FilesystemSettings(home=tmp_path).max_file_bytes
    text = "é\0\r\n\u2028✅" * (limit // 11)
    async with team(tmp_path, "alice") as (alice,):
        written = await alice.call("write_file", path="long.txt", text=text)
        assert (written["bytes"], written["sha256"]) == (len(text.encode()), sha256(text))
        edit = {"path": "long.txt", "old": "✅é", "new": "x"}
        with pytest.raises(ToolError, match="more than once"):
            await alice.call("edit_file", **edit)
        with pytest.raises(ToolError, match="the limit is 10,485,760"):
            await alice.call("write_file", path="long.txt", text="x" * (limit + 1))
        assert (await alice.call("read_file", path="long.txt", first_line=-1))["lines"] == limit // 11 + 1


@pytest.mark.parametrize("name", ["two\nlines", "tab\there", "日本語 é.txt", "-rf", "~", "$(x)", "a\\b", "é" * 127])
async def test_odd_names_are_names(tmp_path: Path, name: str) -> None:
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("write_file", path=name, text="x")
        assert [e["path"] for e in (await alice.call("list_directory"))["entries"]] == [name]
        undo = (await alice.call("delete", path=name))["undo"]
        await alice.call("load_snapshot", snapshot_id=undo, folder=name)
        assert (await alice.call("read_file", path=name))["text"] == "x"


async def test_quotas_on_bytes_and_files_hold(tmp_path: Path) -> None:
    limits = {"max_file_bytes": 100, "max_workspace_bytes": 250, "max_files": 5}
    async with team(tmp_path, "alice", **limits) as (alice,):
        with pytest.raises(ToolError, match="101 bytes; the limit is 100"):
            await alice.call("write_file", path="a", text="x" * 101)
        for path in ("a", "b"):
            await alice.call("write_file", path=path, text="x" * 100)
        with pytest.raises(ToolError, match="200 of 250 bytes, and this needs 51 more"):
            await alice.call("write_file", path="c", text="x" * 51)
        with pytest.raises(ToolError, match="2 of 5 files and folders, and this needs 4 more"):
            await alice.call("write_file", path="d/e/f/g", text="")
        await alice.call("write_file", path="c", text="x" * 50)
        await alice.call("write_file", path="a", text="smaller")
        saved = (await alice.call("save_snapshot", message="three files"))["snapshot_id"]
        with pytest.raises(ToolError, match=r"of 250 bytes"):
            await alice.call("load_snapshot", snapshot_id=saved, folder="again")
        assert [e["path"] for e in (await alice.call("list_directory"))["entries"]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a/../../b", re.escape("has a '..'")),
        ("nul\0byte", "NUL byte"),
        ("n" * 300, "a name of 300 bytes is too long"),
        ("a/" * 65 + "b", "66 names deep"),
        ("", "root folder|is a folder"),
        (".", "root folder|is a folder"),
        ("link.txt", "symlink|not a regular file"),
        ("outside/x.txt", "symlink"),
        ("hard.txt", "hard links"),
        ("pipe", "not a regular file"),
        ("folder", "is a folder"),
        ("file.txt/x", "is a file, not a folder"),
    ],
)
async def test_paths_that_lead_nowhere_good_are_refused_with_a_reason(tmp_path: Path, path: str, why: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.txt").write_text("secret")
    root = tmp_path / "workspaces" / "alice"
    root.mkdir(parents=True)
    (root / "link.txt").symlink_to(outside / "x.txt")
    (root / "outside").symlink_to(outside)
    (root / "hard.txt").hardlink_to(outside / "x.txt")
    os.mkfifo(root / "pipe")
    (root / "folder").mkdir()
    (root / "file.txt").write_text("text")
    async with team(tmp_path, "alice") as (alice,):
        for tool, arguments in (
            ("read_file", {"path": path}),
            ("write_file", {"path": path, "text": "x"}),
            ("edit_file", {"path": path, "old": "secret", "new": "x"}),
        ):
            with pytest.raises(ToolError, match=why):
                await alice.call(tool, **arguments)
        assert (await alice.call("grep", pattern="secret"))["matches"] == []
        kinds = {e["path"]: e["kind"] for e in (await alice.call("list_directory"))["entries"]}
        assert (kinds["link.txt"], kinds["outside"], kinds["pipe"]) == ("symlink", "symlink", "other")
        await alice.call("delete", path="outside")
    assert (outside / "x.txt").read_text() == "secret"
    assert (root / "hard.txt").stat().st_ino == (outside / "x.txt").stat().st_ino


async def test_every_tool_is_annotated(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        tools = {tool.name: tool for tool in (await alice.client.list_tools()).tools}
        assert len(tools) == 12
        assert all(tool.annotations and tool.output_schema for tool in tools.values())
        read_only = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
        assert read_only == {"read_file", "list_directory", "find_files", "grep", "list_snapshots", "diff_snapshots"}
        hints = {name: tool.annotations for name, tool in tools.items() if tool.annotations}
        assert (hints["edit_file"].idempotent_hint, hints["write_file"].idempotent_hint) == (False, True)
