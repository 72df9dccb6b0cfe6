"""What an agent should know, in a token budget: what concerns it, and what is best, open and failed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine, Row, Select, or_, select

from outlearn.database import reading
from outlearn.paging import cut_text, make_cursor, read_cursor
from outlearn.results import ResultBook
from outlearn.types import Digest, Finding, FindingKind, News
from outlearn_forum.events import newest
from outlearn_forum.showing import Show, moment
from outlearn_forum.tables import events, posts

BYTES_A_TOKEN = 3  # of JSON in English, rather few
FRAME_BYTES = 200
EXCERPT_BYTES = 300
MOST = 30
WINDOW = 500
Section: TypeAlias = Literal["news", "findings", "questions", "failures"]
Item: TypeAlias = News | Finding
_KINDS: dict[Section, tuple[FindingKind, ...]] = {
    "findings": ("result", "insight", "hypothesis"),
    "questions": ("question",),
    "failures": ("error",),
}
CONCERNS = ("reply", "mention", "vote", "built on")


@dataclass
class _Page:
    """Items by section, as long as there is room."""

    room: int
    sections: dict[Section, list[Item]] = field(
        default_factory=lambda: {"news": [], "findings": [], "questions": [], "failures": []}
    )

    def add(self, section: Section, item: Item) -> bool:
        """Add an item; False where there is no room for it. The first one always has."""
        size = len(item.model_dump_json(exclude_defaults=True).encode()) + 1
        if size > self.room and any(self.sections.values()):
            return False
        self.room -= size
        self.sections[section].append(item)
        return True


class DigestReader:
    """Reads the forum's database for one agent at a time."""

    def __init__(self, engine: Engine, results: ResultBook) -> None:
        self._engine = engine
        self._show = Show(results)

    def digest(self, agent: str, *, cursor: str | None = None, max_tokens: int = 2_000) -> Digest:
        """Without a cursor: the latest news, and the best of all there is. With one: all that is new since.

        Nothing new is passed over: where not all fits, `more` is set and the cursor goes on where this answer ends.

        Raises:
            InvalidInputError: the cursor is not of this tool.
        """
        page = _Page(max_tokens * BYTES_A_TOKEN - FRAME_BYTES)
        with reading(self._engine) as connection:
            last = newest(connection)
            if cursor:
                (since,) = read_cursor(cursor, {"event": 1})[1]
                reached = self._add_new(connection, page, agent, since)
            else:
                reached = None
                self._add_best(connection, page, agent)
        return Digest(
            **{name: tuple(items) for name, items in page.sections.items()},
            next_cursor=make_cursor("event", last if reached is None else reached),
            more=reached is not None,
        )

    def _add_best(self, connection: Connection, page: _Page, agent: str) -> None:
        """Some of each section in turn."""
        mine = select(events).where(events.c.to_agent == agent).order_by(events.c.seq.desc()).limit(MOST)
        news = self._news(connection, connection.execute(mine).all())
        found = [self._top(connection, name) for name in _KINDS]
        sections: list[Iterable[tuple[Section, Item]]] = [
            [("news", one) for one in news.values()],
            *([(_section(one), one) for one in findings] for findings in found),
        ]
        for entry in chain.from_iterable(zip_longest(*sections)):
            if entry:
                page.add(*entry)

    def _add_new(self, connection: Connection, page: _Page, agent: str, since: int) -> int | None:
        """All that is new, oldest first. Returns where it ended for want of room, or None."""
        for_me = or_(events.c.to_agent == agent, (events.c.kind == "finding") & (events.c.by_agent != agent))
        query = select(events).where(events.c.seq > since, for_me).order_by(events.c.seq).limit(WINDOW + 1)
        rows = connection.execute(query).all()
        entries = self._entries(connection, rows[:WINDOW])
        for seq, section, item in entries:
            if not page.add(section, item):
                return since
            since = seq
        return since if len(rows) > WINDOW else None

    def _entries(self, connection: Connection, rows: Sequence[Row[Any]]) -> Iterator[tuple[int, Section, Item]]:
        """What happened, with the number of the event. Of several votes on a post, the last one stands for all."""
        news = self._news(connection, rows)
        ids = [row.post_id for row in rows if row.kind == "finding"]
        findings = {row.post_id: row for row in connection.execute(select(posts).where(posts.c.post_id.in_(ids)))}
        for row in rows:
            if row.kind == "finding":
                finding = self._show.finding(findings[row.post_id], max_bytes=EXCERPT_BYTES)
                yield row.seq, _section(finding), finding
            elif row.seq in news:
                yield row.seq, "news", news[row.seq]

    def _news(self, connection: Connection, rows: Sequence[Row[Any]]) -> dict[int, News]:
        """By the number of the event: all but votes that a later one stands for, and mentions in an answer to one."""
        concerning = [row for row in rows if row.kind in CONCERNS]
        query = select(posts).where(posts.c.post_id.in_({row.post_id for row in concerning}))
        about = {row.post_id: row for row in connection.execute(query)} if concerning else {}
        newest_of = {(row.post_id, row.kind == "vote"): row for row in sorted(concerning, key=lambda row: row.seq)}
        kept = {row.seq for row in newest_of.values()}
        return {row.seq: _news(row, about[row.post_id]) for row in concerning if row.seq in kept}

    def _top(self, connection: Connection, section: Section) -> list[Finding]:
        """The best by votes; of results with as many, the better by their records."""
        rows = [row for kind in _KINDS[section] for row in connection.execute(_of_kind(kind)).all()]
        found = [self._show.finding(row, max_bytes=EXCERPT_BYTES) for row in sorted(rows, key=lambda row: -row.seq)]
        return sorted(found, key=lambda one: (-one.score, -(one.verified.pgr if one.verified else -9.0)))


def _of_kind(kind: str) -> Select[Any]:
    """The best by votes; of questions, those without an answer."""
    query = select(posts).where(posts.c.kind == kind)
    query = query.where(posts.c.replies == 0) if kind == "question" else query
    return query.order_by(posts.c.score.desc(), posts.c.seq.desc()).limit(MOST)


def _section(finding: Finding) -> Section:
    return next(name for name, kinds in _KINDS.items() if finding.kind in kinds)


def _news(event: Row[Any], post: Row[Any]) -> News:
    return News(
        kind=event.kind,
        by=event.by_agent,
        post_id=event.post_id,
        thread_id=event.thread_id,
        text=cut_text(f"{post.title}\n{post.text}".strip(), EXCERPT_BYTES),
        score=post.score,
        at=moment(event.at),
    )
