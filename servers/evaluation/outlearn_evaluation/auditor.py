"""Collects what detectors look at, and files what they find in the audit log."""

from collections import defaultdict
from threading import Lock

import numpy as np
import structlog
from sqlalchemy import Engine, bindparam, select

from outlearn.audit import Action, AuditLog, Evidence
from outlearn.database import reading
from outlearn.receipts import Receipt
from outlearn_evaluation.commitment import Opened
from outlearn_evaluation.detectors import Bits, Change, Look, Suspicion
from outlearn_evaluation.inspection import Case, changes_of, examine
from outlearn_evaluation.ledger import evaluations
from outlearn_evaluation.standing import Withheld, withheld
from outlearn_evaluation.submissions import submissions
from outlearn_training.sanity import frequent_answer

FREQUENT = "frequent answer"
FORGED = "forged receipt"
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

    def __init__(self, audit_log: AuditLog, engine: Engine) -> None:
        self._log, self._looks = audit_log, Looks(engine)
        self._withheld = (0, Withheld())  # as of so many records
        self._changes: dict[str, dict[str, Change | None]] = {}
        self._frequent: dict[str, Bits | None] = {}
        self._inspected: set[str] = set()
        self._lock = Lock()  # calls come from several threads

    def withheld(self) -> Withheld:
        """Runs and agents that do not rank until the operator reviews them."""
        records = self._log.records()
        if self._withheld[0] != len(records):
            self._withheld = len(records), withheld(records)
        return self._withheld[1]

    def inspect(self, receipts: tuple[Receipt, ...], opened: Opened) -> None:
        """File what the detectors find about an evaluated run, once. It never raises: the agent's answer stands."""
        first = receipts[0]
        if first.run_id in self._inspected:
            return
        try:
            with self._lock:
                for found in examine(self._case(receipts, opened)):
                    self.file(found, first.run_id, first.agent, first.task)
                self._inspected.add(first.run_id)
        except Exception as error:  # noqa: BLE001 - an answer must not be lost over a look at it
            log.error("a run was not inspected", run_id=first.run_id, error=f"{type(error).__name__}: {error}")

    def forged(self, run_id: str, asked_by: str, error: Exception, action: Action) -> None:
        """File that a run's receipts are not what the predictor signed."""
        try:
            self.file(Suspicion(FORGED, action, {"asked_by": asked_by, "error": str(error)}), run_id, "", "")
        except OSError as failure:
            log.error("the audit log cannot be written", run_id=run_id, error=str(failure))

    def file(self, found: Suspicion, run_id: str, agent: str, task: str) -> None:
        """Add to the log what is not there yet. Raises OSError where the log cannot be written."""
        known = {_key(one.kind, one.run_id, one.evidence) for one in self._log.records()}
        if _key(found.kind, run_id, found.evidence) not in known:
            self._log.append(found.kind, found.action, agent=agent, run_id=run_id, task=task, evidence=found.evidence)

    def _case(self, receipts: tuple[Receipt, ...], opened: Opened) -> Case:
        looks = self._looks.until(receipts[0])
        run, fingerprint = looks[-1], receipts[0].task_fingerprint
        secret = opened.secret
        return Case(
            run=run,
            earlier=looks[:-1],
            changes=changes_of(run.agent, looks, self._changes.setdefault(fingerprint, {})),
            positive=np.array([one.predictions for one in receipts]) > 0.5,
            labels=secret.test_labels,
            public=secret.public_mask(),
            noise=np.array(opened.seal.noise),
            design_effect=opened.baselines.design_effect,
            frequent=self._frequent_answers(opened),
        )

    def _frequent_answers(self, opened: Opened) -> Bits | None:
        fingerprint = opened.baselines.fingerprint
        if fingerprint not in self._frequent:
            has_line = any(line.name == FREQUENT for line in opened.baselines.lines)
            self._frequent[fingerprint] = frequent_answer(opened.secret) if has_line else None
        return self._frequent[fingerprint]


class Looks:
    """Everybody's evaluated runs, by version of a task, oldest first. The ledger only grows: what is new is read."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._last = engine, 0
        self._known: defaultdict[str, dict[str, Look]] = defaultdict(dict)

    def until(self, run: Receipt) -> list[Look]:
        """Those of the run's version of its task, up to this run."""
        self._read()
        found = self._known[run.task_fingerprint]
        return list(found.values())[: list(found).index(run.run_id) + 1]

    def _read(self) -> None:
        with reading(self._engine) as connection:
            for row in connection.execute(_SINCE, {"last": self._last}):
                counts = np.frombuffer(row.counts, dtype=np.uint8)
                look = Look(row.run_id, row.agent, row.seeds, counts, bool(row.at_most), row.same_as)
                self._known[row.fingerprint].setdefault(row.run_id, look)
                self._last = row.number


def _key(kind: str, run_id: str, evidence: Evidence) -> tuple[object, ...]:
    """One record of a kind is enough for a run, and for a detector that fails or a finding that claims."""
    return kind, run_id, evidence.get("finding"), evidence.get("detector")
