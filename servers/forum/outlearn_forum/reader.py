"""What the forum shows: threads, lists and search results, in pages that fit an agent's context."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Row, Select, bindparam, func, select, tuple_

from outlearn.paging import PAGE_BYTES, fit_page, make_cursor, read_cursor
from outlearn.results import ResultBook
from outlearn.transactions import Transaction, Transactions
from outlearn.types import Finding, FindingKind, FindingList, Thread
from outlearn_forum.lineage import relatives
from outlearn_forum.search import CommonWords, Words, check_query, few_having, hits, snippets
from outlearn_forum.showing import EXCERPT_BYTES, Show, reply, version
from outlearn_forum.store import BY_IDS, read_post
from outlearn_forum.tables import posts, versions
from outlearn_forum.text import facets

REPLIES = 50
HIT_BYTES = 300
"""Of the texts that a search finds: with a snippet of where it found the words."""
FEW = 500
"""Where no more posts have what a list is filtered by, they are looked up; more are soon found among the newest."""
Order = Literal["new", "top"]


@dataclass(frozen=True)
class Filters:
    """Which findings to show: those that have all that is given."""

    kind: FindingKind | None = None
    author: str | None = None
    tag: str | None = None
    task: str | None = None
    run_id: str | None = None

    def words(self) -> list[str]:
        """The facets that a thread must have."""
        return facets(kind=self.kind, author=self.author, tag=self.tag, task=self.task, run=self.run_id)

    def apply(self, query: Select[Any]) -> Select[Any]:
        """The query for findings alone, and such findings."""
        query = query.where(posts.c.kind == self.kind if self.kind else posts.c.kind.is_not(None))
        query = query.where(posts.c.author == self.author) if self.author else query
        query = query.where(posts.c.run_id == self.run_id) if self.run_id else query
        return query.where(*(posts.c.facets.contains(one) for one in facets(tag=self.tag, task=self.task)))


EVERYTHING = Filters()
_NEWEST = select(func.max(posts.c.last_seq))
_VERSIONS = (
    select(versions).where(versions.c.post_id == bindparam("post")).order_by(versions.c.number.desc()).limit(REPLIES)
)
_REPLIES = (
    select(posts)
    .where(posts.c.thread_id == bindparam("thread"), posts.c.kind.is_(None), posts.c.seq > bindparam("seq"))
    .order_by(posts.c.seq)
    .limit(REPLIES + 1)
)


class ForumReader:
    """Reads the forum's database. Verified numbers are joined from `results` whenever a finding is shown."""

    def __init__(self, transactions: Transactions, results: ResultBook) -> None:
        self._transactions = transactions
        self._show = Show(results)
        self._common = CommonWords()

    def list_threads(
        self, *, cursor: str | None = None, order: Order = "new", filters: Filters = EVERYTHING, limit: int = 20
    ) -> FindingList:
        """Findings by newest activity (a reply is activity), or by score.

        With order "new" and the `next_cursor` of an earlier answer: what is new since, oldest first.

        Raises:
            InvalidInputError: the cursor is not of this order.
        """
        find = self._list_top if order == "top" else self._list_new
        with self._transactions.reading() as read:
            return find(read, filters, cursor, limit)

    def read_thread(self, thread_id: str, cursor: str | None = None, *, history: bool = False) -> Thread:
        """A finding with its replies, oldest first. Later pages show only the beginning of the finding.

        `history` adds what this post said before its edits: the latest versions that fit.

        Raises:
            NotFoundError: there is no such thread.
            InvalidInputError: the cursor is not of this tool.
        """
        after = read_cursor(cursor, {"after": 1})[1][0] if cursor else 0
        with self._transactions.reading() as read:
            post = read_post(read, thread_id)
            head = post if post.post_id == post.thread_id else read_post(read, post.thread_id)
            rows = list(read.rows(_REPLIES, thread=head.post_id, seq=after)) if head.replies else []
            old = list(read.rows(_VERSIONS, post=post.post_id)) if history else []
            sources, children = relatives(read, head, self._show)
        finding = self._show.finding(head, max_bytes=EXCERPT_BYTES if after else None)
        past = fit_page((version(row) for row in old), max_bytes=PAGE_BYTES // 2)
        room = PAGE_BYTES - sum(len(one.model_dump_json().encode()) for one in (finding, *past))
        replies = fit_page((reply(row) for row in rows[:REPLIES]), max_bytes=room)
        more = make_cursor("after", rows[len(replies) - 1].seq) if len(replies) < len(rows) else None
        return Thread(
            finding=finding,
            replies=tuple(replies),
            built_on=sources,
            built_by=children,
            history=tuple(past),
            next_cursor=more,
        )

    def search(
        self, query: str, *, filters: Filters = EVERYTHING, limit: int = 20, cursor: str | None = None
    ) -> FindingList:
        """Threads with a post that has all words of the query, best first; where there are none, any of the words.

        Raises:
            InvalidInputError: the query has no words or is too long, or the cursor is not of this tool.
        """
        query = check_query(query)
        form, (skip,) = read_cursor(cursor, {"all": 1, "any": 1}) if cursor else ("all", (0,))
        with self._transactions.reading() as read:
            words = replace(self._common.look_up(read, query), any_word=form == "any")
            best = _best(read, words, filters, skip + limit + 1)
            if not best and cursor is None:
                form, words = "any", replace(words, any_word=True)
                best = _best(read, words, filters, limit + 1)
            page = best[skip:]
            heads = read.rows(BY_IDS, ids=[thread_id for thread_id, _ in page[:limit]])
            found = {row.post_id: row for row in heads}
            snippet_of = snippets(read, words, filters.words(), [seq for _, seq in page[:limit]])
        shown = (
            self._show.finding(found[thread_id], max_bytes=HIT_BYTES, snippet=snippet_of.get(seq, ""))
            for thread_id, seq in page[:limit]
        )
        findings = tuple(fit_page(shown))
        more = make_cursor(form, skip + len(findings)) if len(findings) < len(page) else None
        return FindingList(findings=findings, next_cursor=more)

    def still_shows(self, found: FindingList) -> bool:
        """Whether the verified numbers in an answer are those that hold now."""
        return all(self._show.still_shows(one) for one in found.findings if one.run_id)

    def _list_top(self, read: Transaction, filters: Filters, cursor: str | None, limit: int) -> FindingList:
        form, (score, seq) = read_cursor(cursor, {"top": 2}) if cursor else ("best", (0, 0))
        rows = _rows(read, filters, form, {"score": score, "seq": seq, "most": limit + 1})
        findings = self._page(rows[:limit])
        last = rows[len(findings) - 1] if len(findings) < len(rows) else None
        return FindingList(findings=findings, next_cursor=make_cursor("top", last.score, last.seq) if last else None)

    def _list_new(self, read: Transaction, filters: Filters, cursor: str | None, limit: int) -> FindingList:
        form, numbers = read_cursor(cursor, {"since": 1, "before": 2}) if cursor else ("newest", (0,))
        rows = _rows(read, filters, form, {"seq": numbers[0], "most": limit + 1})
        findings = self._page(rows[:limit])
        last = rows[len(findings) - 1].last_seq if len(findings) < len(rows) else None
        if form == "since":
            seen = last or max(_newest(read), numbers[0])
            return FindingList(findings=findings, next_cursor=make_cursor("since", seen))
        if form == "before":
            since = numbers[1]
        elif filters == EVERYTHING:
            since = rows[0].last_seq if rows else 0
        else:
            since = _newest(read)
        older = make_cursor("before", last, since) if last else None
        return FindingList(findings=findings, next_cursor=make_cursor("since", since), older_cursor=older)

    def _page(self, rows: Sequence[Row[Any]]) -> tuple[Finding, ...]:
        """The leading rows that fit a page, as excerpts."""
        return tuple(fit_page(self._show.finding(row) for row in rows))


def _rows(read: Transaction, filters: Filters, form: str, values: dict[str, int]) -> Sequence[Row[Any]]:
    """Findings as a cursor of this form asks for them."""
    few = few_having(read, filters.words(), FEW) if filters.tag or filters.task else None
    return list(read.rows(_query(filters, form, few is not None), **values, few=few))


def _newest(read: Transaction) -> int:
    newest: int | None = next(read.rows(_NEWEST))[0]
    return newest or 0


@lru_cache(maxsize=256)
def _query(filters: Filters, form: str, among_few: bool) -> Select[Any]:
    """The query, with `few` those among which it looks. Kept, as making a query takes longer than running it."""
    query, place = filters.apply(select(posts)).limit(bindparam("most")), tuple_(posts.c.score, posts.c.seq)
    query = query.where(posts.c.seq.in_(bindparam("few", expanding=True))) if among_few else query
    if form in ("top", "best"):
        query = query.order_by(posts.c.score.desc(), posts.c.seq.desc())
        return query.where(place < tuple_(bindparam("score"), bindparam("seq"))) if form == "top" else query
    if form == "since":
        return query.where(posts.c.last_seq > bindparam("seq")).order_by(posts.c.last_seq)
    query = query.order_by(posts.c.last_seq.desc())
    return query.where(posts.c.last_seq < bindparam("seq")) if form == "before" else query


def _best(read: Transaction, words: Words, filters: Filters, most: int) -> list[tuple[str, int]]:
    """The `most` best threads that match, each with the number of its post that matches best."""
    best: dict[str, int] = {}
    with closing(hits(read, words, filters.words())) as found:
        for seq, thread_id in found:
            best.setdefault(thread_id, seq)
            if len(best) == most:
                break
    return list(best.items())
