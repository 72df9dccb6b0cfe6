"""What findings claim, held against what is on record."""

from collections.abc import Collection, Sequence

from outlearn.audit import AuditKind, Evidence
from outlearn.stated_pgr import TOLERANCE, OnRecord, differs, own_pgrs, stated_pgrs
from outlearn.types import Finding
from outlearn_evaluation.detectors import Suspicion


def false_claim(finding: Finding, board: Collection[OnRecord]) -> Suspicion | None:
    """A finding about a run whose text gives PGRs of it, none of which is the run's; or one above it that no run has.

    Args:
        board: all runs with a verified PGR; a text may well compare.
    """
    texts, verified = (finding.title, finding.text), finding.verified
    stated = [number for text in texts for number in stated_pgrs(text)]
    if finding.run_id is None or not stated:
        return None
    if verified is None:
        return Suspicion(AuditKind.FORUM_CLAIM, "note", _evidence(finding, stated, "none"))
    above = [one for text in texts for one in own_pgrs(text, verified, board) if one > verified.pgr + TOLERANCE]
    unheard_of = any(all(abs(one - other.pgr) > TOLERANCE for other in board) for one in above)
    if unheard_of or differs(texts, verified, board):
        return Suspicion(AuditKind.FORUM_CLAIM, "flag", _evidence(finding, stated, str(verified)))
    return None


def _evidence(finding: Finding, stated: Sequence[float], verified: str) -> Evidence:
    numbers = ", ".join(f"{one:g}" for one in stated[:8])
    return {"finding": finding.finding_id, "stated": numbers, "verified": verified, "title": finding.title}
