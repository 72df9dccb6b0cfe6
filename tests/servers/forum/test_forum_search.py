"""Search and storage below the tools, on SQLite and on PostgreSQL."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.printable import HIDDEN
from outlearn.results import ResultBook
from outlearn.transactions import READERS, Transactions
from outlearn_forum import reader as reading
from outlearn_forum import search as searching
from outlearn_forum.digest import DigestReader
from outlearn_forum.index import MOST_PARTS
from outlearn_forum.lineage import LineageReader
from outlearn_forum.reader import Filters, ForumReader, Order
from outlearn_forum.search import MAX_QUERY, MAX_WORDS, WORDS_AFTER
from outlearn_forum.store import ForumStore
from outlearn_forum.tables import posts

Forum = tuple[ForumStore, ForumReader]


@pytest.fixture
def forum(database_url: str, tmp_path: Path) -> Iterator[Forum]:
    results = ResultBook(tmp_path)
    store = ForumStore(database_url, results)
    yield store, ForumReader(store.transactions, results)
    store.engine.dispose()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Forum]:
    """PostgreSQL ranks all words."""
    results = ResultBook(tmp_path)
    store = ForumStore(f"sqlite:///{tmp_path}/forum.sqlite", results)
    yield store, ForumReader(store.transactions, results)
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


@pytest.mark.parametrize("soon", [1, 4, 64])
def test_search_pages_meet_every_match_once(forum: Forum, soon: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "SOON", soon)
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


@pytest.fixture
def all_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever word a post has counts as common, as in a very large forum."""
    monkeypatch.setattr(searching, "COMMON", 0)


@pytest.mark.parametrize("near", [1, 2, 1_000])
@pytest.mark.usefixtures("all_common")
def test_for_common_words_the_newest_come_first_and_before_them_those_that_have_them_in_the_title(
    sqlite: Forum, near: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "RECENT", 3)
    monkeypatch.setattr(searching, "NEAR", near)
    for title, said in (("loss, long ago", "-"), ("a", "the loss"), ("loss", "-"), ("b", "a loss"), ("c", "no losses")):
        post(store, title, said)
    assert titles(reader, "loss") == ["loss", "c", "b", "a", "loss, long ago"]
    assert titles(reader, '"the loss"') == ["a"]
    assert titles(reader, '"loss the"') == ["loss", "loss, long ago", "c", "b", "a"]  # any of its words
    assert titles(reader, '"loss"') == ["loss", "loss, long ago", "c", "b", "a"]


@pytest.mark.usefixtures("all_common")
def test_pages_of_common_words_meet_every_thread_once(sqlite: Forum, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "RECENT", 5)
    threads = [post(store, "pgr" if number % 3 else "none", "pgr of it") for number in range(9)]
    for thread in threads[::2]:
        store.reply("bob", thread_id=thread, text="that pgr again")
    seen, cursor = [], None
    while True:
        page = reader.search("pgr", limit=2, cursor=cursor)
        seen += [finding.finding_id for finding in page.findings]
        if (cursor := page.next_cursor) is None:
            break
    assert sorted(seen) == sorted(threads)


@pytest.mark.parametrize("common", [0, 4_000], ids=["common", "rare"])
@pytest.mark.parametrize("query", ["loss", '"the loss"', "loss seeds", "nothing or loss or seeds"])
def test_snippets_are_the_same_whether_posts_are_looked_up_or_walked(
    sqlite: Forum, common: int, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "COMMON", common)
    for number in range(6):
        post(store, f"number {number}", f"{'words ' * 40} the loss of {number} seeds {'words ' * 40}")
    found = []
    for recent in (0, 1_000):
        monkeypatch.setattr(searching, "RECENT", recent)
        found.append([(one.title, one.snippet) for one in reader.search(query).findings])
    assert found[0] == found[1]
    assert len(found[0]) == 6
    assert all("loss**" in snippet for _, snippet in found[0])


@pytest.mark.parametrize("soon", [1, 3])
def test_the_order_is_the_same_however_few_of_the_best_are_sorted_first(
    sqlite: Forum, soon: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = sqlite
    for number in range(9):
        thread = post(store, "loss" if number % 2 else "none", f"- {'loss ' * (number % 4)} {'words ' * (number % 5)}")
        store.reply("bob", thread_id=thread, text=f"{number} of the loss")
    expected = reader.search("loss")
    assert len(expected.findings) == 9
    monkeypatch.setattr(searching, "SOON", soon)
    assert reader.search("loss") == expected


@pytest.mark.usefixtures("all_common")
def test_common_words_are_looked_for_where_no_post_has_the_others(sqlite: Forum) -> None:
    store, reader = sqlite
    post(store, "weak labels")
    assert titles(reader, "unheard of labels") == ["weak labels"]


def test_a_word_that_becomes_common_is_found_as_before(sqlite: Forum, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "COMMON", 3)
    expected = set()
    for number in range(8):
        expected.add(post(store, f"loss {number}"))
        assert {one.finding_id for one in reader.search("loss").findings} == expected
        assert titles(reader, f"loss {number}") == [f"loss {number}"]


@pytest.mark.parametrize("common", [0, 4_000], ids=["common", "rare"])
def test_searches_and_lists_show_what_anybody_changed_at_once(
    sqlite: Forum, common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "COMMON", common)
    thread = post(store, "first words", "PGR 0.93 of it")

    def shown() -> list[tuple[str, str, int, int]]:
        found = reader.search("first").findings
        assert [one.model_copy(update={"snippet": ""}) for one in found] == list(reader.list_threads().findings)
        return [(one.title, one.badge, one.score, one.replies) for one in found]

    assert shown() == [("first words", "unverified", 0, 0)]
    store.vote("bob", thread, 1)
    store.reply("bob", thread_id=thread, text="Seen.")
    assert shown() == [("first words", "unverified", 1, 1)]
    store.edit("alice", thread, title="first of all", text="No number.")
    assert shown() == [("first of all", "", 1, 1)]
    write = "import sqlite3, sys; base = sqlite3.connect(sys.argv[1]); base.execute(sys.argv[2]); base.commit()"
    change = "UPDATE posts SET title = 'first, elsewhere', score = 5"
    subprocess.run([sys.executable, "-c", write, str(store.engine.url.database), change], check=True)
    assert shown() == [("first, elsewhere", "", 5, 1)]
    change = "DELETE FROM posts"
    subprocess.run([sys.executable, "-c", write, str(store.engine.url.database), change], check=True)
    assert shown() == []


def test_edited_and_deleted_posts_are_found_as_they_are_now(forum: Forum) -> None:
    store, reader = forum
    post(store, "alpha")
    post(store, "omega")
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE posts SET title = 'gamma' WHERE title = 'alpha'"))
        connection.execute(text("DELETE FROM posts WHERE title = 'omega'"))
    assert [titles(reader, word) for word in ("alpha", "gamma", "omega")] == [[], ["gamma"], []]


@pytest.mark.parametrize(
    "query", ["", "  ", "!!! ???", "a\0b", "x" * (MAX_QUERY + 1), "a " * (MAX_WORDS + 1), "\ud800"]
)
def test_queries_without_words_are_refused(forum: Forum, query: str) -> None:
    with pytest.raises(InvalidInputError):
        forum[1].search(query)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
@example(query='"')
@example(query='a" OR title:b NOT (c) NEAR(d e, 2) ^f g* -h {i} "j')
@example(query="AND OR NOT NEAR")
@example(query="x'; DROP TABLE posts; --")
@example(query=" ".join("ab"[i % 2] for i in range(MAX_WORDS)))
@example(query=" ".join(f"w{i}" for i in range(MAX_WORDS)))
def test_any_query_is_answered_or_refused_with_a_reason(forum: Forum, query: str) -> None:
    store, reader = forum
    if not reader.list_threads().findings:
        post(store, "a b c", "d e f g h i j")
    with suppress(InvalidInputError):
        assert reader.search(query).next_cursor is None


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1).map(lambda text: HIDDEN.sub("\n", text)))
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


@pytest.mark.parametrize("common", [0, 4_000], ids=["common", "rare"])
def test_snippets_show_where_posts_match_and_never_what_they_are_filtered_by(
    sqlite: Forum, common: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "COMMON", common)
    for place, title, said, tag in ((0, "loss", "-", "a"), (1, "-", "of the loss", "b"), (2, "-", "-", "loss")):
        store.post_finding(f"agent-{place}", title=title, text=said, kind="error", tags=[tag], task="math")
    found = reader.search("loss", filters=Filters(kind="error", task="math")).findings
    assert {one.author: one.snippet for one in found} == {
        "agent-0": "**loss**",
        "agent-1": "of the **loss**",
        "agent-2": "**loss**",
    }
    (found_alone,) = reader.search("loss", filters=Filters(author="agent-1")).findings
    assert found_alone.snippet == "of the **loss**"


def test_a_search_shows_the_beginning_of_a_long_text_and_where_it_found_the_words(forum: Forum) -> None:
    store, reader = forum
    post(store, "long", f"It begins. {'words ' * 400} the zebra {'words ' * 400}")
    (found,) = reader.search("zebra").findings
    assert found.text.startswith("It begins.")
    assert found.text_cut
    assert len(found.text) < 310
    assert "**zebra**" in found.snippet


def test_a_text_that_is_all_the_word_that_is_looked_for_keeps_nobody_waiting(forum: Forum) -> None:
    store, reader = forum
    for number in range(5):
        post(store, f"{number}", "x " * 9_900 + str(number))
    start = time.monotonic()
    for query in ("x", '"' + "x " * MAX_WORDS + '"'):
        found = reader.search(query).findings
        assert [one.snippet.count("x") for one in found] == [WORDS_AFTER] * 5
    assert time.monotonic() - start < 5, "FTS5's own snippets took a second a post, PostgreSQL's minutes"


@pytest.mark.parametrize(
    ("query", "said", "snippet"),
    [
        ("loss", "(loss)", "(**loss**)"),
        ("loss", "one\nloss\n\ntwo", "one **loss** two"),
        ('"net loss"', "see: net loss, again", "see: **net loss**, again"),
        ("loss", f"{'x ' * 30}loss {'y ' * 30}end", f"…{'x ' * 8}**loss** {'y ' * 14}y…"),
        ("loss label", f"loss {'x ' * 150}the loss of labels", f"…{'x ' * 7}the **loss** of **labels**"),
        ("loss", f"{'x' * 900} loss {'y' * 900}", f"…{'x' * 199} **loss** {'y' * 193}…"),
    ],
)
def test_snippets_are_words_around_where_most_of_what_is_looked_for_stands(
    forum: Forum, query: str, said: str, snippet: str
) -> None:
    store, reader = forum
    post(store, "-", said)
    (found,) = reader.search(query).findings
    assert found.snippet.replace("** **", " ") == snippet, "PostgreSQL marks each word of a phrase by itself"


def test_snippets_mark_the_words_that_say_most(sqlite: Forum, monkeypatch: pytest.MonkeyPatch) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "COMMON", 2)
    for said in ("the loss", "the labels", "the zebra"):
        post(store, "-", said)
    (found,) = reader.search("the zebra").findings
    assert found.snippet == "the **zebra**"


@pytest.mark.usefixtures("all_common")
def test_a_phrase_of_common_words_that_no_recent_post_has_counts_as_not_found(
    sqlite: Forum, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reader = sqlite
    monkeypatch.setattr(searching, "RECENT_FOR_PHRASES", 2)
    post(store, "a", "of the loss")
    assert titles(reader, '"the loss"') == ["a"]
    post(store, "b", "the loss")
    assert titles(reader, '"the loss"') == ["b", "a"]
    post(store, "c", "loss")
    post(store, "d", "the")
    assert titles(reader, '"the loss"') == ["d", "c", "b", "a"]  # any of its words


def test_digests_and_lineages_are_read_from_any_database(forum: Forum, tmp_path: Path) -> None:
    store, _ = forum
    digests, lineages = (kind(store.transactions, ResultBook(tmp_path)) for kind in (DigestReader, LineageReader))
    start = digests.digest("alice")
    assert (start.findings, start.news) == ((), ())
    first = post(store, "first")
    store.post_finding("bob", title="second", text="-", kind="question", built_on=[first, "run-aaaaaa"])
    for found in (digests.digest("alice"), digests.digest("alice", cursor=start.next_cursor)):
        assert [one.kind for one in found.news] == ["built on"]
        assert [one.title for one in found.questions] == ["second"]
    assert [one.title for one in lineages.of(first).nodes] == ["first", "second"]
    assert [one.id for one in lineages.of_all().nodes if one.kind == "run"] == ["run-aaaaaa"]


def test_what_one_read_sees_is_of_one_moment(forum: Forum) -> None:
    store, _ = forum
    count = select(func.count().label("many")).select_from(posts)
    transactions = Transactions(store.engine)
    post(store, "first")
    with transactions.reading() as read:
        assert [row.many for row in read.rows(count)] == [1]
        post(store, "second")
        assert [row.many for row in read.rows(count)] == [1]
    with transactions.reading() as read:
        assert [row.many for row in read.rows(count)] == [2]


def test_reads_go_on_after_the_engine_was_disposed_of(forum: Forum) -> None:
    store, reader = forum
    post(store, "still there")
    assert titles(reader, "still") == ["still there"]
    store.engine.dispose()
    assert titles(reader, "still") == ["still there"]


def test_a_read_that_fails_says_so_and_leaves_its_connection_to_the_next(sqlite: Forum) -> None:
    store, reader = sqlite
    post(store, "here")
    for _ in range(2 * READERS):
        with pytest.raises(OperationalError), Transactions(store.engine).reading() as read:
            list(read.rows(text("SELECT * FROM nothing")))
        with pytest.raises(NotFoundError):
            reader.read_thread("finding-000000000000")
    assert titles(reader, "here") == ["here"]


def test_searches_and_lists_at_once_are_answered_while_others_write(sqlite: Forum) -> None:
    store, reader = sqlite
    thread = post(store, "Contended loss")
    wrong: list[object] = []

    def look() -> None:
        for _ in range(20):
            (found,) = reader.search("loss", limit=1).findings
            (listed,) = reader.list_threads(limit=1).findings
            read = reader.read_thread(thread)
            if not found.finding_id == listed.finding_id == thread or len(read.replies) != read.finding.replies:
                wrong.append(read)

    lookers = [threading.Thread(target=look) for _ in range(3 * READERS)]
    for one in lookers:
        one.start()
    for number in range(20):
        store.reply("bob", thread_id=thread, text=f"more loss {number}")
    for one in lookers:
        one.join()
    assert wrong == []
    assert reader.read_thread(thread).finding.replies == 20


def test_a_server_that_starts_puts_the_parts_of_the_index_together(sqlite: Forum) -> None:
    store, reader = sqlite
    for number in range(3 * MOST_PARTS):
        post(store, f"loss {number}")
    before = reader.search("loss").findings
    parts = text("SELECT count(DISTINCT segid) FROM post_words_idx")
    with store.engine.connect() as connection:
        assert connection.scalar(parts) > MOST_PARTS
    again = ForumStore(str(store.engine.url), ResultBook(Path()))
    with again.engine.connect() as connection:
        assert connection.scalar(parts) == 1
    again.engine.dispose()
    assert reader.search("loss").findings == before
    post(store, "loss at last")
    assert "loss at last" in titles(reader, "loss")
