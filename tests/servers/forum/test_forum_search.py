"""Search and storage below the tools, on SQLite and on PostgreSQL."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from outlearn.errors import InvalidInputError
from outlearn.results import ResultBook
from outlearn_forum import reader as reading
from outlearn_forum.reader import Filters, ForumReader, Order
from outlearn_forum.search import MAX_QUERY
from outlearn_forum.store import ForumStore

Forum = tuple[ForumStore, ForumReader]


@pytest.fixture
def forum(database_url: str, tmp_path: Path) -> Iterator[Forum]:
    results = ResultBook(tmp_path)
    store = ForumStore(database_url, results)
    yield store, ForumReader(store.engine, results)
    store.engine.dispose()


def post(store: ForumStore, title: str, text: str = "Nothing more.", author: str = "alice") -> str:
    return store.post_finding(author, title=title, text=text, kind="insight").post_id


def titles(reader: ForumReader, query: str) -> list[str]:
    return [finding.title for finding in reader.search(query).findings]


def test_search_ranks_titles_first_and_marks_the_words(forum: Forum) -> None:
    store, reader = forum
    post(store, "Epochs", "More training is better; confidence hardly matters here, or so it seems after a while.")
    post(store, "Confidence loss", "It helps.")
    found = reader.search("confidence").findings
    assert [finding.title for finding in found] == ["Confidence loss", "Epochs"]
    assert "**Confidence**" in found[0].snippet
    assert "**confidence**" in found[1].snippet


def test_search_needs_all_words_and_falls_back_to_any(forum: Forum) -> None:
    store, reader = forum
    post(store, "logconf on math")
    post(store, "vanilla on math")
    assert titles(reader, "logconf math") == ["logconf on math"]
    assert titles(reader, "should I try logconf or something else?") == ["logconf on math"]
    assert titles(reader, "zebra") == []


def test_search_finds_phrases_stems_accents_and_replies(forum: Forum) -> None:
    store, reader = forum
    first = post(store, "Trained students", "Weak labels, then strong labels.")
    post(store, "Other", "Labels that are weak.")
    store.reply("bob", thread_id=first, text="An ensemble of seven beats it.")
    assert titles(reader, '"weak labels"') == ["Trained students"]
    assert titles(reader, "training") == ["Trained students"]
    (found,) = reader.search("ensembles").findings
    assert (found.title, found.text) == ("Trained students", "Weak labels, then strong labels.")
    assert "**ensemble**" in found.snippet


def test_a_thread_is_found_once_however_many_posts_match(forum: Forum) -> None:
    store, reader = forum
    thread = post(store, "Distillation")
    for i in range(3):
        store.reply("bob", thread_id=thread, text=f"distillation again {i}")
    assert titles(reader, "distillation") == ["Distillation"]


def test_search_pages_meet_every_match_once(forum: Forum) -> None:
    store, reader = forum
    expected = {post(store, f"pgr {i}") for i in range(7)}
    seen: list[str] = []
    cursor = None
    while True:
        page = reader.search("pgr", limit=3, cursor=cursor)
        seen += [finding.finding_id for finding in page.findings]
        if (cursor := page.next_cursor) is None:
            break
    assert len(seen) == 7
    assert set(seen) == expected


@pytest.mark.parametrize("few", [0, 500], ids=["walked", "looked up"])
@pytest.mark.parametrize("order", ["new", "top"])
def test_a_list_by_tag_is_the_same_whether_few_have_it_or_many(
    forum: Forum, order: Order, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = forum
    monkeypatch.setattr(reading, "FEW", few)
    tagged = [
        store.post_finding("alice", title=str(number), text="-", kind="insight", tags=["even"] * (number % 2 == 0))
        for number in range(7)
    ]
    store.reply("bob", thread_id=tagged[0].post_id, text="A reply is activity, and no finding.")
    store.vote("bob", tagged[2].post_id, 1)
    even = Filters(tag="even")
    first = reader.list_threads(order=order, filters=even, limit=2)
    rest = reader.list_threads(order=order, filters=even, cursor=first.older_cursor or first.next_cursor)
    shown = [finding.title for finding in (*first.findings, *rest.findings)]
    assert shown == (["0", "6", "4", "2"] if order == "new" else ["2", "6", "4", "0"])
    assert reader.list_threads(order=order, filters=Filters(tag="odd")).findings == ()


def test_edited_and_deleted_posts_are_found_as_they_are_now(forum: Forum) -> None:
    store, reader = forum
    post(store, "alpha")
    post(store, "omega")
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE posts SET title = 'gamma' WHERE title = 'alpha'"))
        connection.execute(text("DELETE FROM posts WHERE title = 'omega'"))
    assert [titles(reader, word) for word in ("alpha", "gamma", "omega")] == [[], ["gamma"], []]


@pytest.mark.parametrize("query", ["", "  ", "!!! ???", "a\0b", "x" * (MAX_QUERY + 1), "\ud800"])
def test_queries_without_words_are_refused(forum: Forum, query: str) -> None:
    with pytest.raises(InvalidInputError):
        forum[1].search(query)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
@example(query='"')
@example(query='a" OR title:b NOT (c) NEAR(d e, 2) ^f g* -h {i} "j')
@example(query="AND OR NOT NEAR")
@example(query="x'; DROP TABLE posts; --")
@example(query=" ".join("ab"[i % 2] for i in range(MAX_QUERY // 2)))
@example(query=" ".join(f"w{i}" for i in range(90)))
def test_any_query_is_answered_or_refused_with_a_reason(forum: Forum, query: str) -> None:
    store, reader = forum
    if not reader.list_threads().findings:
        post(store, "a b c", "d e f g h i j")
    with suppress(InvalidInputError):
        assert reader.search(query).next_cursor is None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Cf"]) | st.sampled_from("\t\r\n"), min_size=1))
def test_any_text_comes_back_as_it_was_posted(forum: Forum, text: str) -> None:
    store, reader = forum
    if text.strip():
        posted = store.post_finding("alice", title="t", text=text, kind="error")
        assert reader.read_thread(posted.post_id).finding.text == text.strip()


def test_concurrent_votes_and_replies_are_all_counted(forum: Forum) -> None:
    store, reader = forum
    thread = post(store, "Contended")

    def act(agent: str) -> None:
        for value in (1, -1, 1):
            store.vote(agent, thread, value)
            store.reply(agent, thread_id=thread, text=f"{agent} {value}")

    threads = [threading.Thread(target=act, args=(f"agent{i}",)) for i in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    finding = reader.read_thread(thread).finding
    assert (finding.score, finding.replies) == (8, 24)
    assert len({reply.reply_id for reply in reader.read_thread(thread).replies}) == 24
