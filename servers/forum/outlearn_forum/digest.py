"""What an agent should know, in a token budget: what concerns it, and what is best, open and failed."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from sqlalchemy import Row, bindparam, func, or_, select

from outlearn.paging import cut_text, make_cursor, read_cursor
from outlearn.results import ResultBook
from outlearn.transactions import Transaction, Transactions
from outlearn.types import Digest, Finding, FindingKind, News
from outlearn_forum.showing import Show, moment
from outlearn_forum.store import BY_IDS
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
_LAST = select(func.max(events.c.seq))
_MINE = select(events).where(events.c.to_agent == bindparam("agent")).order_by(events.c.seq.desc()).limit(MOST)
_FOR_ME = or_(
    events.c.to_agent == bindparam("agent"), (events.c.kind == "finding") & (events.c.by_agent != bindparam("agent"))
)
_NEW = select(events).where(events.c.seq > bindparam("since"), _FOR_ME).order_by(events.c.seq).limit(WINDOW + 1)
_OF_KIND = (
    select(posts)
    .where(posts.c.kind == bindparam("kind"))
    .order_by(posts.c.score.desc(), posts.c.seq.desc())
    .limit(MOST)
)
_UNANSWERED = _OF_KIND.where(posts.c.replies == 0)


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

    def __init__(self, transactions: Transactions, results: ResultBook) -> None:
        self._transactions = transactions
        self._show = Show(results)

    def digest(self, agent: str, *, cursor: str | None = None, max_tokens: int = 2_000) -> Digest:
        """Without a cursor: the latest news, and the best of all there is. With one: all that is new since.

        Nothing new is passed over: where not all fits, `more` is set and the cursor goes on where this answer ends.

        Raises:
            InvalidInputError: the cursor is not of this tool.
        """
        page = _Page(max_tokens * BYTES_A_TOKEN - FRAME_BYTES)
        since = read_cursor(cursor, {"event": 1})[1][0] if cursor else None
        reached = None
        with self._transactions.reading() as read:
            ((last,),) = read.rows(_LAST)
            if since is None:
                self._add_best(read, page, agent)
            else:
                reached = self._add_new(read, page, agent, since)
        return Digest(
            **{name: tuple(items) for name, items in page.sections.items()},
            next_cursor=make_cursor("event", (last or 0) if reached is None else reached),
            more=reached is not None,
        )

    def _add_best(self, read: Transaction, page: _Page, agent: str) -> None:
        """Of each section in turn, best first, until its next one does not fit."""
        news = self._news(read, list(read.rows(_MINE, agent=agent)))
        turns: deque[tuple[Section, Iterator[Item]]] = deque([("news", iter(news.values()))])
        turns += [(name, self._top(read, name)) for name in _KINDS]
        while turns:
            section, items = turns.popleft()
            item = next(items, None)
            if item and page.add(section, item):
                turns.append((section, items))

    def _add_new(self, read: Transaction, page: _Page, agent: str, since: int) -> int | None:
        """All that is new, oldest first. Returns where it ended for want of room, or None."""
        rows = list(read.rows(_NEW, agent=agent, since=since))
        for seq, section, item in self._entries(read, rows[:WINDOW]):
            if not page.add(section, item):
                return since
            since = seq
        return since if len(rows) > WINDOW else None

    def _entries(self, read: Transaction, rows: Sequence[Row[Any]]) -> Iterator[tuple[int, Section, Item]]:
        """What happened, with the number of the event. Of several votes on a post, the last one stands for all."""
        news = self._news(read, rows)
        ids = [row.post_id for row in rows if row.kind == "finding"]
        findings = {row.post_id: row for row in read.rows(BY_IDS, ids=ids)}
        for row in rows:
            if row.kind == "finding":
                finding = self._show.finding(findings[row.post_id], max_bytes=EXCERPT_BYTES)
                yield row.seq, _section(finding), finding
            elif row.seq in news:
                yield row.seq, "news", news[row.seq]

    def _news(self, read: Transaction, rows: Sequence[Row[Any]]) -> dict[int, News]:
        """By the number of the event: all but votes that a later one stands for, and mentions in an answer to one."""
        concerning = [row for row in rows if row.kind in CONCERNS]
        about = {row.post_id: row for row in read.rows(BY_IDS, ids=[*{row.post_id for row in concerning}])}
        newest_of = {(row.post_id, row.kind == "vote"): row for row in sorted(concerning, key=lambda row: row.seq)}
        kept = {row.seq for row in newest_of.values()}
        return {row.seq: _news(row, about[row.post_id]) for row in concerning if row.seq in kept}

    def _top(self, read: Transaction, section: Section) -> Iterator[Item]:
        """The best by votes, of results with as many the better by their records; each is shown when it is taken."""
        of_kind = _UNANSWERED if section == "questions" else _OF_KIND
        rows = [row for kind in _KINDS[section] for row in read.rows(of_kind, kind=kind)]
        rows.sort(key=lambda row: (-row.score, -self._pgr(row), -row.seq))
        return (self._show.finding(row, max_bytes=EXCERPT_BYTES) for row in rows)

    def _pgr(self, row: Row[Any]) -> float:
        verified = self._show.verified(row)
        return verified.pgr if verified and not verified.withheld else -9.0


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
