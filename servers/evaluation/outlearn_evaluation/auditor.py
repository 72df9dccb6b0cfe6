"""Collects what detectors look at, and files what they find in the audit log."""

from collections import defaultdict
from collections.abc import Sequence
from threading import Lock

import numpy as np
import structlog
from sqlalchemy import Connection, Engine, bindparam, select

from outlearn.audit import Action, AuditLog, Evidence
from outlearn.database import reading
from outlearn.errors import OutdatedError, PermissionDeniedError
from outlearn_evaluation.detectors import Change, Look, Suspicion, random_masks
from outlearn_evaluation.finished import FinishedRun
from outlearn_evaluation.inspection import OF_PLACE, Place, changes_of, examine
from outlearn_evaluation.ledger import Question, evaluations
from outlearn_evaluation.standing import FORGED, MASKS, Withheld, because, withheld
from outlearn_evaluation.submissions import Submission, submissions
from outlearn_evaluation.thresholds import CONSTANTS, FindThresholds

OUTDATED = "outdated receipt"
_SINCE = (
    select(
        *(evaluations.c[name] for name in ("number", "run_id", "agent", "at_most", "same_as")),
        *(submissions.c[name] for name in ("fingerprint", "seeds", "counts")),
    )
    .join(submissions, submissions.c.run_id == evaluations.c.run_id)
    .where(evaluations.c.number > bindparam("last"))
    .order_by(evaluations.c.number)
)
log = structlog.get_logger("outlearn.evaluation")


class Auditor:
    """Watches the evaluations of one home folder."""

    def __init__(
        self, audit_log: AuditLog, engine: Engine, thresholds: FindThresholds = lambda _task, _fingerprint: CONSTANTS
    ) -> None:
        self._log, self._engine, self._looks = audit_log, engine, Looks()
        self._thresholds = thresholds
        self._withheld = (0, Withheld())  # as of so many records
        self._changes: dict[str, dict[str, Change | None]] = {}
        self._inspected: set[str] = set()
        self._lock = Lock()  # calls come from several threads

    def withheld(self) -> Withheld:
        """Runs and agents that do not rank until the operator reviews them."""
        records = self._log.records()
        if self._withheld[0] != len(records):
            self._withheld = len(records), withheld(records)
        return self._withheld[1]

    def admit(self, connection: Connection, question: Question) -> None:
        """Let nobody ask who was seen probing. In the transaction that charges: of many calls at once, each one is
        looked at with all that were answered before it, and is turned away by what was filed against those.

        Raises PermissionDeniedError: the agent's run, this one or an earlier one, waits for the operator's review.
        """
        run, agent = question.run, question.agent
        why = self.withheld().refusal(agent)
        found = Suspicion("refused", "note", {"why": why}) if why else self._masks(connection, question)
        if found is None:
            return
        self._try_to_file(found, run.run_id, agent, run.task)
        raise PermissionDeniedError(
            f"{why or because(run.run_id, MASKS)}. None of your new questions is answered until the operator has "
            "reviewed it (`outlearn review`). Nothing was charged, and you can have every old answer again"
        )

    def inspect(self, run: FinishedRun) -> None:
        """File what the detectors find about an evaluated run, once. It never raises: the agent's answer stands."""
        if run.run_id in self._inspected:
            return
        try:
            with reading(self._engine) as connection, self._lock:  # as `admit`, which has a connection when it locks
                for found in (*run.suspicions, *examine(OF_PLACE, self._place(connection, run.submission))):
                    self.file(found, run.run_id, run.agent, run.submission.task)
                self._inspected.add(run.run_id)
        except Exception as error:  # noqa: BLE001 - an answer must not be lost over a look at it
            log.error("a run was not inspected", run_id=run.run_id, error=f"{type(error).__name__}: {error}")

    def forged(self, run_id: str, asked_by: str, error: Exception, action: Action) -> None:
        """File that a run's receipts are not what the predictor signed. One that says that it is old is not scored, and
        shields nobody: a forged one beside it is a record of another kind."""
        kind, action = (OUTDATED, "flag") if isinstance(error, OutdatedError) else (FORGED, action)
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

    def _masks(self, connection: Connection, question: Question) -> Suspicion | None:
        """What is seen of masks once this run is among the evaluated ones. It tells nothing secret: votes do not, and
        the threshold is the same for all."""
        run = question.run
        doubt = self._thresholds(run.task, run.fingerprint).doubt
        asked = Look(run.run_id, question.agent, len(run.votes.positive), run.votes.counts, False, None)
        with self._lock:
            looks = self._looks.among(connection, run.fingerprint, asked)
            return random_masks(self._changes_of(question.agent, run.fingerprint, looks), doubt)

    def _changes_of(self, agent: str, fingerprint: str, looks: Sequence[Look]) -> list[Change]:
        known = self._changes.setdefault(fingerprint, {})
        return changes_of(agent, looks, known, self.withheld().released)

    def _place(self, connection: Connection, run: Submission) -> Place:
        looks = self._looks.until(connection, run)
        changes = self._changes_of(looks[-1].agent, run.fingerprint, looks)
        return Place(looks[-1], looks[:-1], changes, self._thresholds(run.task, run.fingerprint))


class Looks:
    """Everybody's evaluated runs, by version of a task, oldest first. The ledger only grows: what is new is read."""

    def __init__(self) -> None:
        self._last = 0
        self._known: defaultdict[str, dict[str, Look]] = defaultdict(dict)

    def until(self, connection: Connection, run: Submission) -> list[Look]:
        """Those of the run's version of its task, up to this run."""
        self._read(connection)
        found = self._known[run.fingerprint]
        return list(found.values())[: list(found).index(run.run_id) + 1]

    def among(self, connection: Connection, fingerprint: str, run: Look) -> list[Look]:
        """Those of a version, and a run that may not be one of them yet."""
        self._read(connection)
        return list((self._known[fingerprint] | {run.run_id: run}).values())

    def _read(self, connection: Connection) -> None:
        for row in connection.execute(_SINCE, {"last": self._last}):
            counts = np.frombuffer(row.counts, dtype=np.uint8)
            look = Look(row.run_id, row.agent, row.seeds, counts, bool(row.at_most), row.same_as)
            self._known[row.fingerprint].setdefault(row.run_id, look)
            self._last = row.number


def _key(kind: str, run_id: str, evidence: Evidence) -> tuple[object, ...]:
    """One record of a kind is enough for a run, and for a detector that fails or a finding that claims."""
    return kind, run_id, evidence.get("finding"), evidence.get("detector")
