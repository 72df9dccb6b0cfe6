"""Agents that get no more answers."""

from outlearn.audit import AuditLog, AuditRecord
from outlearn.errors import PermissionDeniedError
from outlearn.identity import Caller
from outlearn_evaluation.service import EvaluationService


def is_answered(service: EvaluationService, caller: Caller, run_id: str) -> bool:
    """Ask about a run: whether that gets an answer, and a new one."""
    try:
        return service.evaluate(caller, run_id, None).charged
    except PermissionDeniedError:
        return False


def the_quarantine(service: EvaluationService, log: AuditLog) -> AuditRecord:
    """The only quarantine on record; nothing was answered after it."""
    [found] = [one for one in log.records() if one.action == "quarantine"]
    assert max(row.evaluated_at for row in service.evaluated()) < found.at
    return found
