"""What the forum shows: threads, lists and search results, in pages that fit an agent's context."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Engine, Row, Select, func, select, tuple_

from outlearn.database import reading
from outlearn.errors import IntegrityError
from outlearn.paging import PAGE_BYTES, cut_text, fit_page, make_cursor, read_cursor
from outlearn.results import ResultBook, VerifiedResult
from outlearn.types import Finding, FindingKind, FindingList, Reply, Thread
from outlearn_forum.search import BEST, check_query, hits, snippets
from outlearn_forum.store import find_post
from outlearn_forum.tables import posts

EXCERPT_BYTES = 1_000
REPLIES = 50
Order = Literal["new", "top"]


class ForumReader:
    """Reads the forum's database. Verified numbers are joined from `results` whenever a finding is shown."""

    def __init__(self, engine: Engine, results: ResultBook) -> None:
        self._engine = engine
        self._results = results

    def list_threads(
        self,
        *,
        cursor: str | None = None,
        order: Order = "new",
        kind: FindingKind | None = None,
        author: str | None = None,
        limit: int = 20,
    ) -> FindingList:
        """Findings by newest activity (a reply is activity), or by score.

        With order "new" and the `next_cursor` of an earlier answer: what is new since, oldest first.

        Raises:
            InvalidInputError: the cursor is not of this order.
        """
        query = _filtered(select(posts), kind, author)
        with reading(self._engine) as connection:
            if order == "top":
                return self._list_top(connection, query, cursor, limit)
            return self._list_new(connection, query, cursor, limit)

    def read_thread(self, thread_id: str, cursor: str | None = None) -> Thread:
        """A finding with its replies, oldest first. Later pages show only the beginning of the finding.

        Raises:
            NotFoundError: there is no such thread.
            InvalidInputError: the cursor is not of this tool.
        """
        after = read_cursor(cursor, {"after": 1})[1][0] if cursor else 0
        with reading(self._engine) as connection:
            head = find_post(connection, find_post(connection, thread_id).thread_id)
            in_thread = (posts.c.thread_id == head.thread_id, posts.c.kind.is_(None), posts.c.seq > after)
            query = select(posts).where(*in_thread).order_by(posts.c.seq).limit(REPLIES + 1)
            rows = connection.execute(query).all()
        finding = self._finding(head, excerpt=after > 0)
        room = PAGE_BYTES - len(finding.model_dump_json().encode())
        replies = fit_page((_reply(row) for row in rows[:REPLIES]), max_bytes=room)
        more = make_cursor("after", rows[len(replies) - 1].seq) if len(replies) < len(rows) else None
        return Thread(finding=finding, replies=tuple(replies), next_cursor=more)

    def search(
        self,
        query: str,
        *,
        kind: FindingKind | None = None,
        author: str | None = None,
        limit: int = 20,
        cursor: str | None = None,
    ) -> FindingList:
        """Threads with a post that has all words of the query, best first; where there are none, any of the words.

        Raises:
            InvalidInputError: the query has no words or is too long, or the cursor is not of this tool.
        """
        words = check_query(query)
        form, (skip,) = read_cursor(cursor, {"all": 1, "any": 1}) if cursor else ("all", (0,))
        with reading(self._engine) as connection:
            rows = _find(connection, words, form == "any", kind, author, skip, limit + 1)
            if not rows and cursor is None:
                form = "any"
                rows = _find(connection, words, True, kind, author, skip, limit + 1)
            seqs = [row.hit_seq for row in rows]
            shown = connection.execute(snippets(connection.dialect.name, words, seqs, any_word=form == "any"))
            snippet_of = {row.seq: row.snippet for row in shown}
        findings = self._page(rows[:limit], snippet_of)
        more = make_cursor(form, skip + len(findings)) if len(findings) < len(rows) else None
        return FindingList(findings=findings, next_cursor=more)

    def _list_top(self, connection: Connection, query: Select[Any], cursor: str | None, limit: int) -> FindingList:
        place = tuple_(posts.c.score, posts.c.seq)
        if cursor:
            _, (score, seq) = read_cursor(cursor, {"top": 2})
            query = query.where(place < tuple_(score, seq))
        rows = connection.execute(query.order_by(posts.c.score.desc(), posts.c.seq.desc()).limit(limit + 1)).all()
        findings = self._page(rows[:limit])
        last = rows[len(findings) - 1] if len(findings) < len(rows) else None
        return FindingList(findings=findings, next_cursor=make_cursor("top", last.score, last.seq) if last else None)

    def _list_new(self, connection: Connection, query: Select[Any], cursor: str | None, limit: int) -> FindingList:
        newest = connection.scalar(select(func.max(posts.c.last_seq))) or 0
        form, numbers = read_cursor(cursor, {"since": 1, "before": 2}) if cursor else ("before", (newest + 1, newest))
        if form == "since":
            query = query.where(posts.c.last_seq > numbers[0]).order_by(posts.c.last_seq)
            rows = connection.execute(query.limit(limit + 1)).all()
            findings = self._page(rows[:limit])
            seen = rows[len(findings) - 1].last_seq if len(findings) < len(rows) else max(newest, numbers[0])
            return FindingList(findings=findings, next_cursor=make_cursor("since", seen))
        before, since = numbers
        query = query.where(posts.c.last_seq < before).order_by(posts.c.last_seq.desc())
        rows = connection.execute(query.limit(limit + 1)).all()
        findings = self._page(rows[:limit])
        older = make_cursor("before", rows[len(findings) - 1].last_seq, since) if len(findings) < len(rows) else None
        return FindingList(findings=findings, next_cursor=make_cursor("since", since), older_cursor=older)

    def _page(self, rows: Iterable[Row[Any]], snippet_of: Mapping[int, str] | None = None) -> tuple[Finding, ...]:
        """The leading rows that fit a page, as excerpts."""
        found = snippet_of or {}
        return tuple(
            fit_page(
                self._finding(row, excerpt=True, snippet=found.get(row.hit_seq, "") if found else "") for row in rows
            )
        )

    def _finding(self, row: Row[Any], *, excerpt: bool, snippet: str = "") -> Finding:
        text = cut_text(row.text, EXCERPT_BYTES) if excerpt else row.text
        return Finding(
            finding_id=row.post_id,
            kind=row.kind,
            title=row.title,
            text=text,
            author=row.author,
            run_id=row.run_id,
            verified=self._verified(row),
            tags=tuple(row.tags.split()),
            score=row.score,
            replies=row.replies,
            posted_at=_time(row),
            text_cut=text != row.text,
            snippet=cut_text(snippet, EXCERPT_BYTES),
        )

    def _verified(self, row: Row[Any]) -> VerifiedResult | None:
        """The published result of the finding's run; None where it is missing, tampered with or another agent's."""
        try:
            result = self._results.lookup(row.run_id) if row.run_id else None
        except IntegrityError:
            return None
        return None if result and row.kind == "result" and result.agent != row.author else result


def _find(
    connection: Connection,
    query: str,
    any_word: bool,
    kind: FindingKind | None,
    author: str | None,
    skip: int,
    limit: int,
) -> Sequence[Row[Any]]:
    """Findings whose threads match, each with `hit_seq`, the post of its thread that matches best."""
    hit = hits(connection.dialect.name, query, any_word=any_word).subquery("hit")
    if not kind and not author:
        hit = select(hit).order_by(hit.c.rank).limit(BEST).subquery("best_hit")
    post = posts.alias("post")
    place = func.row_number().over(partition_by=posts.c.seq, order_by=(hit.c.rank, hit.c.seq))
    threads = select(posts.c.seq, hit.c.seq.label("hit_seq"), hit.c.rank, place.label("place")).select_from(
        hit.join(post, post.c.seq == hit.c.seq).join(posts, posts.c.post_id == post.c.thread_id)
    )
    best = _filtered(threads, kind, author).subquery("best")
    found = select(posts, best.c.hit_seq).join(best, best.c.seq == posts.c.seq).where(best.c.place == 1)
    return connection.execute(found.order_by(best.c.rank, posts.c.seq.desc()).offset(skip).limit(limit)).all()


def _filtered(query: Select[Any], kind: FindingKind | None, author: str | None) -> Select[Any]:
    query = query.where(posts.c.kind == kind if kind else posts.c.kind.is_not(None))
    return query.where(posts.c.author == author) if author else query


def _reply(row: Row[Any]) -> Reply:
    return Reply(reply_id=row.post_id, author=row.author, text=row.text, score=row.score, posted_at=_time(row))


def _time(row: Row[Any]) -> datetime:
    return datetime.fromtimestamp(row.posted_at, UTC)
