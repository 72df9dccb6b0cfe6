"""Collects what detectors look at, and files what they find in the audit log."""

import structlog

from outlearn.audit import Action, AuditKind, AuditLog, Evidence
from outlearn.errors import OutdatedError, PermissionDeniedError
from outlearn_evaluation.detectors import Suspicion, random_masks
from outlearn_evaluation.finished_runs import FinishedRun
from outlearn_evaluation.inspection import OF_PLACE, Place, examine
from outlearn_evaluation.ledger import Question
from outlearn_evaluation.looks import LookBook
from outlearn_evaluation.submissions import Submission
from outlearn_evaluation.thresholds import CONSTANTS, FindThresholds
from outlearn_evaluation.withheld import Withheld, because, withheld

log = structlog.get_logger("outlearn.evaluation")


class Auditor:
    """Watches the evaluations of one home folder."""

    def __init__(
        self, audit_log: AuditLog, looks: LookBook, thresholds: FindThresholds = lambda _task, _fingerprint: CONSTANTS
    ) -> None:
        self._log, self._looks, self._thresholds = audit_log, looks, thresholds
        self._withheld = (0, Withheld())  # as of so many records
        self._inspected: set[str] = set()

    def withheld(self) -> Withheld:
        """Runs and agents that do not rank until the operator reviews them."""
        records = self._log.records()
        if self._withheld[0] != len(records):
            self._withheld = len(records), withheld(records)
        return self._withheld[1]

    def admit(self, question: Question) -> None:
        """Let nobody ask who was seen probing. In the transaction that charges: of many calls at once, each one is
        looked at with all that were answered before it, and is turned away by what was filed against those.

        Raises PermissionDeniedError: the agent's run, this one or an earlier one, waits for the operator's review.
        """
        run, agent, standing = question.run, question.agent, self.withheld()
        why = standing.refusal(agent)
        found = Suspicion(AuditKind.REFUSED, "note", {"why": why}) if why else self._masks(question, standing)
        if found is None:
            return
        self._try_to_file(found, run.run_id, agent, run.task)
        raise PermissionDeniedError(
            f"{why or because(run.run_id, AuditKind.RANDOM_MASKS)}. None of your new questions is answered until the "
            "operator has reviewed it (`outlearn review`). Nothing was charged, and you can have every old answer again"
        )

    def inspect(self, run: FinishedRun) -> None:
        """File what the detectors find about an evaluated run, once. It never raises: the agent's answer stands."""
        if run.run_id in self._inspected:
            return
        try:
            for found in (*run.suspicions, *examine(OF_PLACE, self._place(run.submission))):
                self.file(found, run.run_id, run.agent, run.submission.task)
            self._inspected.add(run.run_id)
        except Exception as error:  # noqa: BLE001 - an answer must not be lost over a look at it
            log.error("a run was not inspected", run_id=run.run_id, error=f"{type(error).__name__}: {error}")

    def forged(self, run_id: str, asked_by: str, error: Exception, action: Action) -> None:
        """File that a run's receipts are not what the predictor signed. One that says that it is old is not scored, and
        shields nobody: a forged one beside it is a record of another kind."""
        kind = AuditKind.FORGED_RECEIPT
        if isinstance(error, OutdatedError):
            kind, action = AuditKind.OUTDATED_RECEIPT, "flag"
        found = Suspicion(kind, action, {"asked_by": asked_by, "error": str(error)})
        self._try_to_file(found, run_id, asked_by, "")

    def file(self, found: Suspicion, run_id: str, agent: str, task: str) -> None:
        """Add to the log what is not there yet. Raises OSError where the log cannot be written."""
        known = {_key(one.kind, one.run_id, one.evidence) for one in self._log.records()}
        if _key(found.kind, run_id, found.evidence) not in known:
            self._log.append(found.kind, found.action, agent=agent, run_id=run_id, task=task, evidence=found.evidence)

    def _try_to_file(self, found: Suspicion, run_id: str, agent: str, task: str) -> None:
        try:
            self.file(found, run_id, agent, task)
        except OSError as failure:
            log.error("the audit log cannot be written", run_id=run_id, kind=found.kind, error=str(failure))

    def _masks(self, question: Question, standing: Withheld) -> Suspicion | None:
        """What is seen of masks once this run is among the evaluated ones. It tells nothing secret: votes do not, and
        the threshold is the same for all."""
        run = question.run
        changes = self._looks.of(run.fingerprint).changes(question.look, standing.released)
        return random_masks(changes, self._thresholds(run.task, run.fingerprint).doubt)

    def _place(self, run: Submission) -> Place:
        """An evaluated run among those of its agent's that were evaluated before it."""
        looks = self._looks.of(run.fingerprint)
        look = looks.find(run.run_id)
        if look is None:
            raise LookupError(f"run {run.run_id!r} was never evaluated")
        changes = looks.changes(look, self.withheld().released)
        return Place((*looks.own_before(look), look), changes, self._thresholds(run.task, run.fingerprint))


def _key(kind: str, run_id: str, evidence: Evidence) -> tuple[object, ...]:
    """One record of a kind is enough for a run, and for a detector that fails or a finding that claims."""
    return kind, run_id, evidence.get("finding"), evidence.get("detector")
