"""The forum in processes of its own: over stdio, over HTTP, and several at once on one database."""

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from mcp.server.mcpserver.exceptions import ToolError
from sqlalchemy import text
from storm import faults, storm

from outlearn import ServerSettings
from outlearn.errors import BudgetError, ConfigError
from outlearn.identity import TokenFile
from outlearn.results import ResultBook
from outlearn.testing import connect, connect_http, connect_stdio, http_server
from outlearn_forum.reader import ForumReader
from outlearn_forum.server import build
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
    reader = ForumReader(store.transactions, results)
    page = reader.list_threads(limit=50)
    findings = list(page.findings)
    while page.older_cursor:
        page = reader.list_threads(limit=50, cursor=page.older_cursor)
        findings += page.findings
    store.engine.dispose()
    (shared,) = [finding for finding in findings if finding.title == "Race"]
    return [finding.finding_id for finding in findings if finding != shared], shared.replies, shared.score


def test_writers_at_once_one_of_them_killed_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    bob = start_writer(tmp_path, "bob", 40)
    killed = start_writer(tmp_path, "alice", 1000)
    assert killed.stdout is not None
    promised = [killed.stdout.readline().strip() for _ in range(20)]
    killed.kill()
    promised += killed.communicate(timeout=60)[0].split()
    count = len(promised) + len(promised) % 2 + 4
    alice = start_writer(tmp_path, "alice", count)
    by_bob, by_alice = (writer.communicate(timeout=60)[0].split() for writer in (bob, alice))
    ids, replies, score = read_all(tmp_path)
    assert by_alice[: len(promised)] == promised
    assert sorted(ids) == sorted(by_bob + by_alice)
    assert (len(ids), replies, score) == (40 + count, 40 + count, 2)


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


def test_a_file_that_is_no_database_is_reported_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "forum.sqlite"
    file.write_text("these are my notes")
    with pytest.raises(ConfigError, match="cannot open the database"):
        build(ServerSettings(home=tmp_path))
    assert file.read_text() == "these are my notes"


def test_an_author_who_floods_the_forum_is_stopped_and_others_are_not(tmp_path: Path) -> None:
    store = ForumStore(f"sqlite:///{tmp_path}/forum.sqlite", ResultBook(tmp_path), hourly_posts=3)
    finding = {"text": "the same", "kind": "insight", "anyway": True}
    first = store.post_finding("ada", title="1", **finding, request_id="1")
    store.post_finding("ada", title="2", **finding)
    store.reply("ada", thread_id=first.post_id, text="and more")
    with pytest.raises(BudgetError, match="3 times within an hour"):
        store.reply("ada", thread_id=first.post_id, text="and more")
    with pytest.raises(BudgetError):
        store.post_finding("ada", title="4", **finding)
    assert store.post_finding("ada", title="1", **finding, request_id="1") == first
    store.post_finding("bob", title="5", **finding)
    store.engine.dispose()


def test_a_storm_of_clients_through_a_crash_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    accepted = asyncio.run(storm(tmp_path, clients=8, writes=160))
    assert accepted.writes == 160
    assert faults(tmp_path, accepted) == []


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_client_that_subscribed_hears_of_changes_in_other_processes(tmp_path: Path, transport: str) -> None:
    store = ForumStore(f"sqlite:///{tmp_path}/forum.sqlite", ResultBook(tmp_path))
    thread = store.post_finding("bob", title="Hello", text="World", kind="insight").post_id
    uris = ["forum://findings", f"forum://threads/{thread}", "forum://news/bob"]
    options = ("--home", str(tmp_path), "--agent", "bob")
    async with AsyncExitStack() as stack:
        if transport == "stdio":
            client = await stack.enter_async_context(connect_stdio("outlearn_forum", *options))
        else:
            url = stack.enter_context(http_server("outlearn_forum", *options))
            client = await stack.enter_async_context(connect_http(url))
        async with client.client.listen(resource_subscriptions=uris) as changes:
            store.reply("carol", thread_id=thread, text="I agree.")
            heard = {(await anext(changes)).uri for _ in uris}
            assert heard == set(uris)
        (content,) = (await client.client.read_resource("forum://news/bob")).contents
        assert "[carol replied" in content.text
        assert "> I agree." in content.text
    store.engine.dispose()


async def test_a_forum_of_the_first_version_opens_with_all_its_posts(tmp_path: Path) -> None:
    store = ForumStore(f"sqlite:///{tmp_path}/forum.sqlite", ResultBook(tmp_path))
    thread = store.post_finding("bob", title="Hello", text="old world", kind="insight", tags=["x"]).post_id
    store.reply("ada", thread_id=thread, text="a reply")
    with store.engine.begin() as connection:
        for name in ("posts_added", "posts_removed", "posts_edited"):
            connection.execute(text(f"DROP TRIGGER {name}"))
        for name in ("post_words", "versions", "links", "sketches", "events"):
            connection.execute(text(f"DROP TABLE {name}"))
        for name in ("facets", "task", "edited_at"):
            connection.execute(text(f"ALTER TABLE posts DROP COLUMN {name}"))
        old = "CREATE VIRTUAL TABLE post_words USING fts5(title, text, tags, content='posts', content_rowid='seq')"
        connection.execute(text(old))
    store.engine.dispose()
    async with connect(build(ServerSettings(home=tmp_path, agent="carol"))) as carol:
        for query in ("world", "reply"):
            (found,) = (await carol.call("search", query=query, tag="x", author="bob", kind="insight"))["findings"]
            assert found["finding_id"] == thread
        assert (await carol.call("search", query="world", tag="y"))["findings"] == []
