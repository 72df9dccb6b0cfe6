"""Lists and searches that are asked for again: the answer is the earlier one, and never an outdated one."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mcp.types import CallToolResult
from researchers import publish
from test_forum_processes import start_writer

from outlearn.results import ResultBook
from outlearn_forum import repeating as repeats
from outlearn_forum.reader import Filters, ForumReader
from outlearn_forum.repeating import Repeating
from outlearn_forum.store import ForumStore


class Forum:
    """A forum, asked as the server asks it."""

    def __init__(self, url: str, home: Path) -> None:
        results = ResultBook(home)
        self.store = ForumStore(url, results)
        self.reader = ForumReader(self.store.transactions, results)
        self.repeating = Repeating(self.store.engine, self.reader.still_shows)

    def list(self, **arguments: Any) -> CallToolResult:
        return self.repeating(self.reader.list_threads, **arguments)

    def search(self, query: str) -> CallToolResult:
        return self.repeating(self.reader.search, query=query)

    def post(self, title: str, **more: Any) -> str:
        return self.store.post_finding("ada", title=title, text="-", kind="insight", **more).post_id


@pytest.fixture
def forum(database_url: str, tmp_path: Path) -> Iterator[Forum]:
    forum = Forum(database_url, tmp_path)
    yield forum
    forum.store.engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Forum]:
    """PostgreSQL repeats nothing."""
    forum = Forum(f"sqlite:///{tmp_path}/forum.sqlite", tmp_path)
    yield forum
    forum.store.engine.dispose()


def findings(answer: CallToolResult) -> list[dict[str, Any]]:
    assert answer.structured_content is not None
    found: list[dict[str, Any]] = answer.structured_content["findings"]
    return found


def test_every_change_is_in_the_next_answer(forum: Forum) -> None:
    thread = forum.post("loss")

    def shown() -> list[tuple[str, int, int]]:
        answers = [(forum.list(), forum.search("loss")) for _ in range(2)]
        ((found,), (again,)) = ({str(findings(one)) for one in pair} for pair in zip(*answers, strict=True))
        assert (found == "[]") == (again == "[]")
        return [(one["title"], one["score"], one["replies"]) for one in findings(answers[0][1])]

    assert shown() == [("loss", 0, 0)]
    forum.store.vote("bob", thread, 1)
    assert shown() == [("loss", 1, 0)]
    forum.store.reply("bob", thread_id=thread, text="Seen.")
    assert shown() == [("loss", 1, 1)]
    forum.store.edit("ada", thread, text="-", title="a loss")
    assert shown() == [("a loss", 1, 1)]
    forum.post("loss again")
    assert sorted(shown()) == [("a loss", 1, 1), ("loss again", 0, 0)]


def test_nothing_is_read_twice_for_the_same_question(sqlite: Forum) -> None:
    sqlite.post("loss")
    few = Filters(kind="insight")
    assert sqlite.list() is sqlite.list()
    assert sqlite.search("loss") is sqlite.search("loss")
    assert sqlite.list(filters=few, limit=1) is sqlite.list(filters=few, limit=1)
    assert sqlite.list(limit=1) is not sqlite.list(limit=2)
    assert findings(sqlite.list(filters=Filters(kind="error"))) == []
    before = sqlite.list()
    sqlite.post("more")
    assert sqlite.list() is not before


def test_what_anybody_wrote_past_the_store_is_in_the_next_answer(sqlite: Forum) -> None:
    sqlite.post("loss")
    for title in ("first", "second"):
        assert sqlite.list() is sqlite.list()
        write = "import sqlite3, sys; base = sqlite3.connect(sys.argv[1]); base.execute(sys.argv[2]); base.commit()"
        change = f"UPDATE posts SET title = '{title}'"
        subprocess.run([sys.executable, "-c", write, str(sqlite.store.engine.url.database), change], check=True)
        assert [one["title"] for one in findings(sqlite.list())] == [title]


def test_a_number_that_was_published_since_is_in_the_next_answer(sqlite: Forum, tmp_path: Path) -> None:
    sqlite.post("loss", run_id="run-aaaaaa")
    assert "verified" not in findings(sqlite.list())[0]
    for pgr in (0.4, 0.6):
        publish(tmp_path, "run-aaaaaa", "ada", pgr)
        assert findings(sqlite.list())[0]["verified"]["pgr"] == pgr
        assert sqlite.list() is sqlite.list()


def test_an_engine_that_was_disposed_of_leaves_no_outdated_answer(sqlite: Forum) -> None:
    for title in ("1", "2", "3"):  # a new connection counts changes from the same number as the one before
        sqlite.post(title)
        assert findings(sqlite.list())[0]["title"] == title
        sqlite.store.engine.dispose()


def test_no_more_answers_are_kept_than_have_room(sqlite: Forum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 1)
    sqlite.post("loss")
    assert sqlite.list() is sqlite.list()
    assert sqlite.search("loss") is not sqlite.search("loss")
    assert sqlite.list() is sqlite.list()


def test_what_several_processes_wrote_is_in_every_answer_after_they_said_so(sqlite: Forum, tmp_path: Path) -> None:
    each = 14

    def follow(agent: str) -> None:
        with start_writer(tmp_path, agent, each) as writer:
            assert writer.stdout is not None
            for number, line in enumerate(writer.stdout):
                listed = {one["finding_id"]: one for one in findings(sqlite.list(limit=50))}
                assert line.strip() in listed
                (race,) = (one for one in listed.values() if one["title"] == "Race")
                assert race["replies"] > number  # after each of its posts it replies there
                (found,) = findings(sqlite.search(f'"{agent}-{number}" text'))
                assert found["finding_id"] == line.strip()
        assert writer.returncode == 0

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(follow, ("ada", "bob", "carol")))
    (race,) = (one for one in findings(sqlite.list(limit=50)) if one["title"] == "Race")
    assert (race["replies"], race["score"]) == (3 * each, 3)
