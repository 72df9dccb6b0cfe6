"""Rows of the database as the forum shows them, with the evaluation server's numbers joined to them."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Row

from outlearn.errors import IntegrityError
from outlearn.paging import cut_text
from outlearn.results import ResultBook, VerifiedResult
from outlearn.stated_pgr import differs, stated_pgrs
from outlearn.types import Badge, Finding, LineageNode, Reply, Version

EXCERPT_BYTES = 1_000


class Show:
    """Shows findings with what `results` says about their runs at this moment."""

    def __init__(self, results: ResultBook) -> None:
        self._results = results

    def finding(self, row: Row[Any], *, max_bytes: int | None = EXCERPT_BYTES, snippet: str = "") -> Finding:
        """A finding; its text is cut at `max_bytes`, if any."""
        found = _finding(row, self.verified(row), max_bytes)
        return found.model_copy(update={"snippet": cut_text(snippet, EXCERPT_BYTES)}) if snippet else found

    def verified(self, row: Row[Any]) -> VerifiedResult | None:
        """The published result of a finding's run; None where it is missing, tampered with or another agent's."""
        result = self.record(row.run_id) if row.run_id else None
        return None if result and row.kind == "result" and result.agent != row.author else result

    def record(self, run_id: str) -> VerifiedResult | None:
        """The published result of a run; None where it is missing or tampered with."""
        try:
            return self._results.lookup(run_id)
        except IntegrityError:
            return None

    def run(self, run_id: str) -> LineageNode:
        """A run of the lineage."""
        result = self.record(run_id)
        if result is None:
            return LineageNode(id=run_id, kind="run")
        return LineageNode(
            id=run_id, kind="run", title=result.method, agent=result.agent, pgr=result.pgr, at_most=result.at_most
        )


def reply(row: Row[Any]) -> Reply:
    """A reply, in full."""
    return Reply(
        reply_id=row.post_id,
        author=row.author,
        text=row.text,
        score=row.score,
        posted_at=moment(row.posted_at),
        edited_at=moment(row.edited_at) if row.edited_at else None,
    )


def version(row: Row[Any]) -> Version:
    """What a post said before an edit."""
    return Version(
        post_id=row.post_id, title=row.title, text=row.text, tags=tuple(row.tags.split()), until=moment(row.until)
    )


def moment(seconds: float) -> datetime:
    """A time in seconds since 1970, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=2_000)
def _finding(row: Row[Any], verified: VerifiedResult | None, max_bytes: int | None) -> Finding:
    """Kept by all that it is made of, since lists and searches show the same findings again and again."""
    text = row.text if max_bytes is None else cut_text(row.text, max_bytes)
    return Finding(
        finding_id=row.post_id,
        kind=row.kind,
        title=row.title,
        text=text,
        author=row.author,
        run_id=row.run_id,
        task=row.task,
        verified=verified,
        badge=_badge(row, verified),
        tags=tuple(row.tags.split()),
        score=row.score,
        replies=row.replies,
        posted_at=moment(row.posted_at),
        edited_at=moment(row.edited_at) if row.edited_at else None,
        text_cut=text != row.text,
    )


def _badge(row: Row[Any], verified: VerifiedResult | None) -> Badge:
    if verified is None:
        return "unverified" if stated_pgrs(f"{row.title}\n{row.text}") else ""
    return "differs" if differs((row.title, row.text), verified) else "verified"
