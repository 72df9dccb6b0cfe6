"""Requests that are repeated because their answer was lost: they happen once."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import ConflictError
from outlearn.testing import ToolClient, connect
from outlearn.types import FileWritten
from outlearn_filesystem.requests import KEPT, RequestBook
from outlearn_filesystem.server import build
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.snapshots import SnapshotStore


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ToolClient]:
    async with connect(build(FilesystemSettings(home=tmp_path, agent="ada"))) as one:
        yield one


@pytest.fixture
def book(tmp_path: Path) -> Iterator[RequestBook]:
    settings = FilesystemSettings(home=tmp_path)
    store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(tmp_path / "artifacts"))
    yield RequestBook(store.engine, settings.workspaces / ".locks")
    store.engine.dispose()


def written(text: str) -> FileWritten:
    return FileWritten(path=text, bytes=len(text), sha256="")


def acting(done: list[str], name: str) -> Callable[[Any], FileWritten]:
    def act(_: Any) -> FileWritten:
        done.append(name)
        return written(name)

    return act


async def test_an_edit_that_is_repeated_is_made_once(client: ToolClient) -> None:
    await client.call("write_file", path="log.txt", text="a", request_id="r1")
    edit = {"path": "log.txt", "old": "a", "new": "ab", "request_id": "r2"}
    first = await client.call("edit_file", **edit)
    assert await client.call("edit_file", **edit) == first
    assert (await client.call("read_file", path="log.txt"))["text"] == "ab"
    assert (await client.call("write_file", path="log.txt", text="a", request_id="r1"))["bytes"] == 1
    assert (await client.call("read_file", path="log.txt"))["text"] == "ab", "the first write is not made again"


async def test_moves_deletions_and_snapshots_are_answered_again(client: ToolClient) -> None:
    await client.call("write_file", path="a.txt", text="a")
    steps: list[tuple[str, dict[str, Any]]] = [
        ("move", {"src": "a.txt", "dst": "b.txt"}),
        ("save_snapshot", {"message": "one"}),
        ("delete", {"path": "b.txt"}),
    ]
    for number, (tool, arguments) in enumerate(steps):
        request = {**arguments, "request_id": f"r{number}"}
        assert await client.call(tool, **request) == await client.call(tool, **request)
    snapshots = (await client.call("list_snapshots"))["snapshots"]
    assert len(snapshots) == 1
    undo = (await client.call("delete", path="b.txt", request_id="r2"))["undo"]
    for snapshot_id, folder in ((snapshots[0]["snapshot_id"], "again"), (undo, "b.txt")):
        load = {"snapshot_id": snapshot_id, "folder": folder, "request_id": f"load {folder}"}
        assert await client.call("load_snapshot", **load) == await client.call("load_snapshot", **load)


async def test_a_call_whose_process_died_before_it_answered_is_answered_again(
    client: ToolClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("a.txt", "folder/b.txt", "c.txt", "d.txt"):
        await client.call("write_file", path=path, text=path)
    saved = (await client.call("save_snapshot", message="m"))["snapshot_id"]
    undo = (await client.call("delete", path="d.txt"))["undo"]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("write_file", {"path": "e.txt", "text": "e"}),
        ("edit_file", {"path": "e.txt", "old": "e", "new": "ee"}),
        ("move", {"src": "a.txt", "dst": "moved/a.txt"}),
        ("move", {"src": "folder", "dst": "moved/folder"}),
        ("delete", {"path": "c.txt"}),
        ("save_snapshot", {"message": "n"}),
        ("load_snapshot", {"snapshot_id": saved, "folder": "loaded"}),
        ("load_snapshot", {"snapshot_id": undo, "folder": "d.txt"}),
    ]
    keep, dying = RequestBook._keep, [True]

    def die(*arguments: Any, is_done: bool) -> None:
        if is_done and dying[0]:
            raise RuntimeError("killed")
        keep(*arguments, is_done=is_done)

    monkeypatch.setattr(RequestBook, "_keep", die)
    for number, (tool, arguments) in enumerate(steps):
        dying[0] = True
        with pytest.raises(ToolError):
            await client.call(tool, **arguments, request_id=f"r{number}")
        dying[0] = False
        answer = await client.call(tool, **arguments, request_id=f"r{number}")
        assert await client.call(tool, **arguments, request_id=f"r{number}") == answer
        if tool == "delete":
            await client.call("load_snapshot", snapshot_id=answer["undo"], folder="again.txt")
    assert len((await client.call("list_snapshots"))["snapshots"]) == 2
    found = [one["path"] for one in (await client.call("find_files", glob="*"))["entries"]]
    loaded = ["loaded/a.txt", "loaded/c.txt", "loaded/d.txt", "loaded/folder/b.txt"]
    assert found == ["again.txt", "d.txt", "e.txt", *loaded, "moved/a.txt", "moved/folder/b.txt"]


async def test_without_a_request_id_every_call_counts(client: ToolClient) -> None:
    await client.call("write_file", path="log.txt", text="a")
    for _ in range(2):
        await client.call("edit_file", path="log.txt", old="a", new="ba")
    assert (await client.call("read_file", path="log.txt"))["text"] == "bba"


async def test_a_request_id_is_for_one_call_only(client: ToolClient) -> None:
    await client.call("write_file", path="a.txt", text="a", request_id="r1")
    with pytest.raises(ToolError, match="request_id 'r1' was used for another call"):
        await client.call("write_file", path="a.txt", text="b", request_id="r1")
    for no_id in ("", "a\0b", "r" * 101):
        with pytest.raises(ToolError, match="1 to 100 printable characters"):
            await client.call("write_file", path="a.txt", text="a", request_id=no_id)
    with pytest.raises(ToolError, match=r"no 'c\.txt' here"):
        await client.call("move", src="c.txt", dst="d.txt", request_id="r2")
    await client.call("write_file", path="c.txt", text="c")
    assert (await client.call("move", src="c.txt", dst="d.txt", request_id="r2"))["path"] == "d.txt", "an error is none"


@pytest.mark.parametrize("came_true", [True, False])
def test_a_process_that_died_in_between_is_asked_whether_it_happened(book: RequestBook, came_true: bool) -> None:
    def die(announce: Callable[[FileWritten], None]) -> FileWritten:
        announce(written("announced"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        book.once("ada", "r1", ["edit"], die, answer=FileWritten)
    done: list[str] = []
    answer = book.once(
        "ada", "r1", ["edit"], acting(done, "again"), answer=FileWritten, has_happened=lambda _: came_true
    )
    assert (answer.path, done) == (("announced", []) if came_true else ("again", ["again"]))


def test_agents_have_their_own_request_ids_and_old_ones_are_forgotten(book: RequestBook) -> None:
    done: list[str] = []
    for agent in ("ada", "boole", "ada"):
        book.once(agent, "r", ["x"], acting(done, agent), answer=FileWritten)
    assert done == ["ada", "boole"]
    for number in range(KEPT):
        book.once("ada", f"r{number}", ["x"], acting([], "more"), answer=FileWritten)
    book.once("ada", "r", ["y"], acting(done, "new"), answer=FileWritten)
    with pytest.raises(ConflictError):
        book.once("boole", "r", ["y"], acting(done, "other"), answer=FileWritten)
    assert done == ["ada", "boole", "new"]
