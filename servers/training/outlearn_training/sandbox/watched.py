"""The trusted side of the watch on methods: what it reports goes to the audit log."""

import structlog

from outlearn.audit import Action, AuditKind, AuditLog
from outlearn.errors import IntegrityError, NotFoundError
from outlearn.tasks import load_card
from outlearn_training.queue.tables import Run
from outlearn_training.sandbox.execution_watch import MOST
from outlearn_training.sandbox.method_sandbox import Event
from outlearn_training.settings import TrainingSettings

log = structlog.get_logger("outlearn.worker")


class Watched:
    """Files what one seed's method was seen doing. The method's process may say anything; it is bounded here."""

    def __init__(self, settings: TrainingSettings, run: Run, seed: int) -> None:
        self._settings, self._run, self._seed = settings, run, seed
        self._left = {AuditKind.CANARY: 1, AuditKind.VAULT: 4, AuditKind.DYNAMIC_CODE: MOST}

    def take(self, event: Event) -> None:
        """File an event. A log that cannot be written must not end an honest run."""
        watched = event["watched"]
        kind = AuditKind(watched) if watched in (AuditKind.CANARY, AuditKind.VAULT) else AuditKind.DYNAMIC_CODE
        if not self._left[kind]:
            return
        self._left[kind] -= 1
        evidence = {"event": watched, "where": event["where"], "seed": self._seed, "method": self._run.method}
        try:
            AuditLog(self._settings.vault).append(
                kind,
                self._action(kind),
                agent=self._run.agent,
                run_id=self._run.run_id,
                task=self._run.task,
                evidence=evidence,
            )
        except OSError as error:
            log.error("the audit log cannot be written", run_id=self._run.run_id, kind=kind, error=str(error))

    def _action(self, kind: AuditKind) -> Action:
        """Whoever ran a program under review is out; other dynamic code may be a program too where there are some."""
        if kind == AuditKind.CANARY:
            return "disqualify"
        if kind == AuditKind.VAULT:
            return "quarantine"
        try:
            return "quarantine" if load_card(self._settings.home, self._run.task).kind == "code" else "flag"
        except (NotFoundError, IntegrityError):
            return "flag"
