"""What the evaluation server does, without MCP: score receipts, charge for it, rank."""

from contextlib import suppress
from dataclasses import replace
from functools import cached_property, lru_cache

import structlog
from sqlalchemy import Engine

from outlearn.audit import Action, AuditLog
from outlearn.errors import IntegrityError, InvalidInputError, NotFoundError, OutlearnError, PermissionDeniedError
from outlearn.files import FileVersion, unchanged
from outlearn.identity import OPERATOR, Caller
from outlearn.receipts import RUN_ID, Receipt, ReceiptBook
from outlearn.results import ResultBook, VerifiedResult
from outlearn.tasks import default_task, task_names
from outlearn.transactions import BusyError
from outlearn.types import BudgetView, Evaluation, Leaderboard, LeaderboardRow, Nominations
from outlearn_evaluation.auditor import Auditor
from outlearn_evaluation.board import Boards, board_lines
from outlearn_evaluation.commitment import Opened, open_task
from outlearn_evaluation.commitment_log import Publisher
from outlearn_evaluation.finished_runs import FinishedRun, finished_run
from outlearn_evaluation.ledger import Answered, Ledger
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.submissions import Submission
from outlearn_evaluation.thresholds import ThresholdBook
from outlearn_evaluation.withheld import Withheld

EVERYTHING = 2**31
MOST_READY = 1_000
log = structlog.get_logger("outlearn.evaluation")


class EvaluationService:
    """Evaluations of one home folder."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self._ledger = Ledger(settings)
        self._publisher = Publisher(self._ledger.transactions)
        self._thresholds = ThresholdBook(settings.home).of
        audit_log = AuditLog(settings.vault)
        audit_log.begin()
        self.auditor = Auditor(audit_log, self._ledger.looks, self._thresholds)
        self._ready: dict[str, FinishedRun] = {}
        self._tried: dict[str, FileVersion | None] = {}
        self._told_withheld: Withheld | None = None
        self._sign = lru_cache(maxsize=MOST_READY)(self._signed)
        self._asked = set(self._ledger.evaluated_runs())  # as far as this process knows: others may answer, too

    @property
    def engine(self) -> Engine:
        """The ledger's database, to be closed in the end."""
        return self._ledger.engine

    @cached_property
    def _receipts(self) -> ReceiptBook:
        return ReceiptBook(self._settings.vault)

    @cached_property
    def _results(self) -> ResultBook:
        return ResultBook(self._settings.home)

    @cached_property
    def _boards(self) -> Boards:
        return Boards(self.engine)

    def evaluate(self, caller: Caller, run_id: str, against: str | None, *, wait: bool = True) -> Evaluation:
        """Score a full run of the caller's, once charged; the same question again is free and gets the same answer.

        Raises:
            NotFoundError: the run has no receipts yet, or `against` was never evaluated.
            PermissionDeniedError: it is another agent's run, or the caller was seen probing and waits for a review.
            InvalidInputError: `against` is the run itself or of another task, or the task has no significant gap.
            IntegrityError: a receipt is forged, damaged, missing, or for other data.
            BudgetError: no evaluations are left.
            BusyError: it is not to `wait`, and would have to, for others or until the receipts are read; nothing
                happened.
        """
        against = against or None  # clients that must fill in every argument send ""
        if against is not None and not RUN_ID.fullmatch(against):  # databases do not take any text
            raise _never_evaluated(against)
        asked_before = run_id in self._asked
        known = self._ledger.find(run_id, against or "", caller.agent, wait=wait) if asked_before else None
        charged = False
        if known is not None:
            answer, budget = known
            _check_owner(caller, run_id, answer.agent)
        else:
            answer, charged, budget = self._charge(caller, run_id, against, wait)
        if not asked_before or not self._is_published(run_id):  # a crash or a forger may have prevented it
            self._publish(answer)
        return Evaluation(
            run_id=answer.run_id,
            task=answer.task,
            method=answer.method,
            pgr=answer.pgr,
            at_most=bool(answer.at_most),
            same_as=answer.same_as,
            pgr_se=answer.pgr_se,
            seeds=answer.seeds,
            against=answer.against or None,
            verdict=answer.verdict,
            charged=charged,
            budget=budget,
        )

    def leaderboard(self, task: str, limit: int, *, wait: bool = True) -> Leaderboard:
        """The evaluated runs of a task, best first. Raises NotFoundError, BusyError: it would have to `wait`."""
        task = task or default_task(self._settings.home)
        opened, withheld = open_task(self._settings.home, task), self.auditor.withheld()

        def make() -> Leaderboard:
            rows = self._ledger.board(task, limit, withheld, wait=wait)
            return Leaderboard(task=task, rows=tuple(rows), lines=board_lines(opened))

        return self._boards.get(limit, withheld, opened, make)

    def budget(self, caller: Caller, *, wait: bool = True) -> BudgetView:
        """What the caller has left. Raises BusyError where it would have to `wait`."""
        return self._ledger.budget(caller.agent, wait=wait)

    def nominate(self, caller: Caller, run_ids: tuple[str, ...]) -> Nominations:
        """Set the caller's nominations.

        Raises:
            BudgetError, ConflictError, InvalidInputError: as `Ledger.nominate` does.
            PermissionDeniedError: a run is withheld.
        """
        run_ids = tuple(dict.fromkeys(run_ids))
        withheld = self.auditor.withheld()
        for run_id in run_ids:
            if withheld.covers(run_id, caller.agent):
                raise PermissionDeniedError(f"run {run_id!r} is withheld until it is reviewed; nominate another")
        self._ledger.nominate(caller.agent, run_ids)
        return Nominations(run_ids=run_ids, nominations_left=self._ledger.budget(caller.agent).nominations_left)

    def evaluated(self) -> list[LeaderboardRow]:
        """Every evaluated run of every task, withheld or not. For the operator."""
        return [row for task in task_names(self._settings.home) for row in self._ledger.board(task, EVERYTHING)]

    def inspect_again(self) -> None:
        """Have the detectors look at every evaluated run: a crash may have kept them from one."""
        self._ledger.read_looks()
        for run_id in self._ledger.evaluated_runs():
            with suppress(OutlearnError):  # it was filed, or the run is of another version of its task
                self.auditor.inspect(self._finished(run_id, OPERATOR, "flag"))  # its receipts were whole once

    def commitments(self) -> dict[str, str]:
        """The commitment of each task. Raises IntegrityError where one is not what was published before."""
        return {name: self._open(name).commitment for name in task_names(self._settings.home)}

    def get_ready(self) -> None:
        """Check runs that finished since the last time, and look at them: then their answers come at once. And publish
        which runs are withheld, or are no more.

        It raises nothing: whoever asks for a run is told what is wrong with it.
        """
        try:
            self._publish_withheld()
            for run_id in self._receipts.run_ids() - self._asked - set(self._ready):
                version = self._receipts.folder_version(run_id)
                if self._tried.get(run_id) != version:
                    self._tried[run_id] = version
                    with suppress(OutlearnError, OSError):  # most often, not all seeds are done
                        question = self._finished(run_id).question
                        self._sign(question.answer(), withheld=False)
                        self._ledger.look_ahead(question)
        except Exception as error:  # noqa: BLE001 - answers come all the same, a little later
            log.error("it was not looked for what is new", error=f"{type(error).__name__}: {error}")

    def _charge(
        self, caller: Caller, run_id: str, against: str | None, wait: bool
    ) -> tuple[Answered, bool, BudgetView]:
        if not wait and run_id not in self._ready:
            raise BusyError
        run = self._finished(run_id, caller)
        question = run.question
        if against is not None:
            question = replace(question, against=self._comparable(run, against, wait))
        charged = self._ledger.charge(question, run.opened.judge, caller, self.auditor.admit, wait=wait)
        self._asked.add(run_id)
        self._ready.pop(run_id, None)
        self.auditor.inspect(run)
        return charged

    def _finished(self, run_id: str, asked_by: Caller | None = None, action: Action = "disqualify") -> FinishedRun:
        """A run with all its receipts. What was worked out earlier holds as long as its files and the task's do."""
        run = self._ready.get(run_id)
        if not run or not unchanged(run.versions) or run.opened is not self._open(run.submission.task):
            versions = self._receipts.versions(run_id)
            receipts = self._read_receipts(run_id, asked_by, action)
            _check_owner(asked_by, run_id, receipts[0].agent)
            opened = self._open(receipts[0].task)
            thresholds = self._thresholds(opened.task, opened.baselines.fingerprint)
            run = finished_run(receipts, versions, opened, thresholds)
            if run_id not in self._asked:
                self._ready[run_id] = run
                if len(self._ready) > MOST_READY:
                    self._ready.pop(next(iter(self._ready)), None)
        _check_owner(asked_by, run_id, run.agent)
        return run

    def _read_receipts(self, run_id: str, asked_by: Caller | None, action: Action) -> tuple[Receipt, ...]:
        try:
            receipts = self._receipts.read(run_id)
        except IntegrityError as error:
            if asked_by:
                self.auditor.forged(run_id, asked_by.agent, error, action)
            raise
        if not receipts:
            raise NotFoundError(
                f"run {run_id!r} has no receipts: pilots get none, a full run gets them when it is done, "
                "and `list_runs` shows your runs"
            )
        return receipts

    def _comparable(self, run: FinishedRun, against: str, wait: bool) -> Submission:
        other = self._ledger.submission(against, wait=wait)
        if other is None:
            raise _never_evaluated(against)
        if against == run.run_id or other.fingerprint != run.submission.fingerprint:
            raise InvalidInputError(f"{run.run_id!r} cannot be compared with {against!r}; take another run of its task")
        return other

    def _open(self, task: str) -> Opened:
        """Everything sealed of a task, as it was committed to."""
        opened = open_task(self._settings.home, task)
        self._publisher.publish(opened)
        return opened

    def _is_published(self, run_id: str) -> bool:
        try:
            return self._results.lookup(run_id) is not None
        except IntegrityError as error:
            log.warning("publishing again", run_id=run_id, error=str(error))
            return False

    def _publish_withheld(self) -> None:
        """Publish again, the other way round, what is withheld by now, and what no more.

        As long as some are, each time: a line of before may have been copied to the file's end.
        """
        withheld = self.auditor.withheld()
        if withheld == self._told_withheld and not withheld.runs and not withheld.agents:
            return
        for run_id in self._ledger.evaluated_runs():
            with suppress(IntegrityError):  # it is published as it is now when it is evaluated again
                known = self._results.lookup(run_id)
                if known and known.withheld != withheld.covers(run_id, known.agent):
                    self._results.publish(known.model_copy(update={"withheld": not known.withheld}))
        self._told_withheld = withheld

    def _publish(self, answer: Answered) -> None:
        self._results.file(self._sign(answer, withheld=self.auditor.withheld().covers(answer.run_id, answer.agent)))

    def _signed(self, answer: Answered, *, withheld: bool) -> bytes:
        """What is published of an answer."""
        return self._results.sign(
            VerifiedResult(
                run_id=answer.run_id,
                agent=answer.agent,
                method=answer.method,
                task=answer.task,
                seeds=answer.seeds,
                pgr=answer.pgr,
                at_most=bool(answer.at_most),
                pgr_se=answer.pgr_se,
                withheld=withheld,
            )
        )


def _never_evaluated(against: str) -> NotFoundError:
    return NotFoundError(f"{against[:80]!r} was never evaluated; compare with a run on the leaderboard")


def _check_owner(caller: Caller | None, run_id: str, owner: str) -> None:
    if caller and owner != caller.agent and not caller.is_operator:
        raise PermissionDeniedError(f"run {run_id!r} is another agent's; evaluate your own")
