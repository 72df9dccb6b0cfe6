"""The forum in processes of its own: over stdio, over HTTP, and several at once on one database."""

import subprocess
import sys
from pathlib import Path

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from outlearn.errors import ConfigError
from outlearn.identity import TokenFile
from outlearn.results import ResultBook
from outlearn.testing import connect_http, connect_stdio, http_server
from outlearn_forum.reader import ForumReader
from outlearn_forum.store import ForumStore

WRITER = """
import sys
from pathlib import Path
from outlearn.results import ResultBook
from outlearn_forum.store import ForumStore

home, agent, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = ForumStore(f"sqlite:///{home}/forum.sqlite", ResultBook(home))
shared = store.post_finding("operator", title="Race", text="go", kind="insight", request_id="race").post_id
for i in range(count):
    request = f"{agent}-{i}"
    posted = store.post_finding(agent, title=request, text="text", kind="insight", request_id=request)
    store.reply(agent, thread_id=shared, text=request, request_id=f"reply-{request}")
    store.vote(agent, shared, (-1, 1)[i % 2])
    print(posted.post_id, flush=True)
"""


def start_writer(home: Path, agent: str, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(home), agent, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_all(home: Path) -> tuple[list[str], int, int]:
    """Ids of all findings but the shared one, and the shared one's replies and score."""
    results = ResultBook(home)
    store = ForumStore(f"sqlite:///{home}/forum.sqlite", results)
    reader = ForumReader(store.engine, results)
    page = reader.list_threads(limit=50)
    findings = list(page.findings)
    while page.older_cursor:
        page = reader.list_threads(limit=50, cursor=page.older_cursor)
        findings += page.findings
    store.engine.dispose()
    (shared,) = [finding for finding in findings if finding.title == "Race"]
    return [finding.finding_id for finding in findings if finding != shared], shared.replies, shared.score


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, f"agent{i}", 25) for i in range(2)]
    printed = [line for writer in writers for line in writer.communicate(timeout=60)[0].split()]
    ids, replies, score = read_all(tmp_path)
    assert sorted(ids) == sorted(printed)
    assert (len(set(ids)), replies, score) == (50, 50, -2)


def test_a_killed_writer_loses_nothing_it_was_promised_and_repeats_nothing(tmp_path: Path) -> None:
    first = start_writer(tmp_path, "alice", 1000)
    assert first.stdout is not None
    promised = [first.stdout.readline().strip() for _ in range(20)]
    first.kill()
    promised += first.communicate(timeout=60)[0].split()
    count = len(promised) + 5
    again = start_writer(tmp_path, "alice", count)
    printed = again.communicate(timeout=60)[0].split()
    ids, replies, score = read_all(tmp_path)
    assert printed[: len(promised)] == promised
    assert sorted(ids) == sorted(printed)
    assert (len(ids), replies, abs(score)) == (count, count, 1)


async def test_stdio_round_trip(tmp_path: Path) -> None:
    async with connect_stdio("outlearn_forum", "--home", str(tmp_path), "--agent", "alice") as alice:
        await alice.call("post_finding", title="Hello", text="over stdio", kind="insight")
        (finding,) = (await alice.call("search", query="stdio"))["findings"]
        assert finding["author"] == "alice"


async def test_http_round_trip_with_two_agents_tokens(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    alice_token, bob_token = tokens.issue("alice"), tokens.issue("bob")
    options = ("--home", str(tmp_path), "--tokens", str(tmp_path / "tokens.json"))
    with http_server("outlearn_forum", *options) as url:
        async with connect_http(url, alice_token) as alice, connect_http(url, bob_token) as bob:
            post = (await alice.call("post_finding", title="Hello", text="over HTTP", kind="insight"))["post_id"]
            assert (await bob.call("vote", post_id=post, value=1))["score"] == 1
            with pytest.raises(ToolError, match="your own"):
                await alice.call("vote", post_id=post, value=1)
            thread = await bob.call("reply", thread_id=post, text="seen")
            (reply,) = (await alice.call("read_thread", thread_id=thread["thread_id"]))["replies"]
            assert reply["author"] == "bob"


def test_a_server_that_cannot_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "forum.sqlite").write_text("this is no database, however long it goes on " * 40)
    with pytest.raises(ConfigError, match="exit status 2"), http_server("outlearn_forum", "--home", str(tmp_path)):
        pass
