"""Rows of the database as the forum shows them, with the evaluation server's numbers joined to them."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Row

from outlearn.errors import IntegrityError
from outlearn.paging import cut_text
from outlearn.receipts import RUN_ID
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
        verified = self.verified(row)
        cited = self._cited(row) if verified and _badge(row.title, row.text, verified) == "differs" else ()
        if snippet:
            return _finding(row, verified, cited, max_bytes, cut_text(snippet, EXCERPT_BYTES))
        return _known_finding(row, verified, cited, max_bytes)

    def still_shows(self, finding: Finding) -> bool:
        """Whether the verified number that was shown is the one that holds now."""
        verified = self.verified(finding)
        is_withheld = verified is not None and verified.withheld
        return verified == finding.verified or (is_withheld and finding.badge == "withheld")

    def verified(self, finding: Row[Any] | Finding) -> VerifiedResult | None:
        """The published result of a finding's run, be it withheld; None where it is missing, tampered with or another
        agent's."""
        result = self.record(finding.run_id) if finding.run_id else None
        return None if result and finding.kind == "result" and result.agent != finding.author else result

    def record(self, run_id: str) -> VerifiedResult | None:
        """The published result of a run; None where it is missing or tampered with."""
        try:
            return self._results.lookup(run_id)
        except IntegrityError:
            return None

    def _cited(self, row: Row[Any]) -> tuple[VerifiedResult, ...]:
        """The results of the runs that a finding names."""
        named = dict.fromkeys(RUN_ID.findall(f"{row.title}\n{row.text}"))
        return tuple(record for run_id in named if (record := self.record(run_id)))

    def run(self, run_id: str) -> LineageNode:
        """A run of the lineage."""
        result = self.record(run_id)
        if result is None or result.withheld:
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


def _finding(
    row: Row[Any],
    verified: VerifiedResult | None,
    cited: tuple[VerifiedResult, ...],
    max_bytes: int | None,
    snippet: str = "",
) -> Finding:
    text = row.text if max_bytes is None else cut_text(row.text, max_bytes)
    return Finding(
        finding_id=row.post_id,
        kind=row.kind,
        title=row.title,
        text=text,
        author=row.author,
        run_id=row.run_id,
        task=row.task,
        verified=None if verified and verified.withheld else verified,
        badge=_badge(row.title, row.text, verified, cited),
        tags=tuple(row.tags.split()),
        score=row.score,
        replies=row.replies,
        posted_at=moment(row.posted_at),
        edited_at=moment(row.edited_at) if row.edited_at else None,
        text_cut=text != row.text,
        snippet=snippet,
    )


# kept by all that it is made of, since lists and digests show the same findings again and again
_known_finding = lru_cache(maxsize=2_000)(_finding)


@lru_cache(maxsize=2_000)
def _badge(title: str, text: str, verified: VerifiedResult | None, cited: tuple[VerifiedResult, ...] = ()) -> Badge:
    """Kept, as to read what a text states takes longer than all else about a finding."""
    if verified is None:
        return "unverified" if stated_pgrs(f"{title}\n{text}") else ""
    if verified.withheld:
        return "withheld"
    return "differs" if differs((title, text), verified, cited) else "verified"
