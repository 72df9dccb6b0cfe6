"""What the evaluation server does, without MCP: score receipts, charge for it, rank."""

from contextlib import suppress
from functools import cached_property

import structlog
from sqlalchemy import Engine

from outlearn.audit import Action, AuditLog
from outlearn.errors import IntegrityError, InvalidInputError, NotFoundError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.results import ResultBook, VerifiedResult
from outlearn.tasks import default_task, load_card, task_names
from outlearn.types import BudgetView, Evaluation, Leaderboard, LeaderboardRow, Nominations
from outlearn_evaluation.auditor import Auditor
from outlearn_evaluation.board import board_lines
from outlearn_evaluation.commitment import Opened, open_task
from outlearn_evaluation.ledger import Answered, Ledger, Question
from outlearn_evaluation.published import Publisher
from outlearn_evaluation.scoring import make_judge, read_votes
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.standing import OPERATOR
from outlearn_evaluation.submissions import Submission

EVERYTHING = 2**31
log = structlog.get_logger("outlearn.evaluation")


class EvaluationService:
    """Evaluations of one home folder."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self._ledger = Ledger(settings)
        self._publisher = Publisher(self._ledger.engine)
        self.auditor = Auditor(AuditLog(settings.vault), self._ledger.engine)

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

    def evaluate(self, caller: Caller, run_id: str, against: str | None) -> Evaluation:
        """Score a full run of the caller's, once charged; the same question again is free and gets the same answer.

        Raises:
            NotFoundError: the run has no receipts yet, or `against` was never evaluated.
            PermissionDeniedError: it is another agent's run, or the caller was seen probing and waits for a review.
            InvalidInputError: `against` is the run itself or of another task, or the task has no significant gap.
            IntegrityError: a receipt is forged, damaged, missing, or for other data.
            BudgetError: no evaluations are left.
        """
        against = against or None  # clients that must fill in every argument send ""
        known, charged = self._ledger.find(run_id, against or "", caller.agent), False
        if known is not None:
            answer, budget = known
            _check_owner(caller, run_id, answer.agent)
        else:
            answer, charged, budget = self._charge(caller, run_id, against)
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

    def leaderboard(self, task: str, limit: int) -> Leaderboard:
        """The evaluated runs of a task, best first. Raises NotFoundError."""
        card = load_card(self._settings.home, task or default_task(self._settings.home))
        rows = tuple(self._ledger.board(card.name, limit, self.auditor.withheld()))
        lines = board_lines(open_task(self._settings.home, card.name))
        return Leaderboard(task=card.name, rows=rows, lines=lines)

    def budget(self, caller: Caller) -> BudgetView:
        """What the caller has left."""
        return self._ledger.budget(caller.agent)

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
        for run_id in self._ledger.evaluated_runs():
            with suppress(IntegrityError):  # it was filed, or the run is of another version of its task
                receipts = self._read_receipts(run_id, OPERATOR, "flag")  # it had its answer when they were whole
                opened = open_task(self._settings.home, receipts[0].task) if receipts else None
                if opened and receipts[0].task_fingerprint == opened.baselines.fingerprint:
                    self.auditor.inspect(receipts, opened)

    def commitments(self) -> dict[str, str]:
        """The commitment of each task. Raises IntegrityError where one is not what was published before."""
        return {name: self._open(name).commitment for name in task_names(self._settings.home)}

    def _charge(self, caller: Caller, run_id: str, against: str | None) -> tuple[Answered, bool, BudgetView]:
        receipts = self._owned(caller, run_id)
        opened = self._open(receipts[0].task)
        judge = make_judge(opened.weights, opened.baselines, opened.secret, opened.seal)
        charged = self._ledger.charge(self._question(receipts, against, opened), judge, caller, self.auditor.admit)
        self.auditor.inspect(receipts, opened)
        return charged

    def _owned(self, caller: Caller, run_id: str) -> tuple[Receipt, ...]:
        receipts = self._read_receipts(run_id, caller.agent)
        if not receipts:
            raise NotFoundError(
                f"run {run_id!r} has no receipts: pilots get none, a full run gets them when it is done, "
                "and `list_runs` shows your runs"
            )
        _check_owner(caller, run_id, receipts[0].agent)
        return receipts

    def _read_receipts(self, run_id: str, asked_by: str, action: Action = "disqualify") -> tuple[Receipt, ...]:
        try:
            return self._receipts.read(run_id)
        except IntegrityError as error:
            self.auditor.forged(run_id, asked_by, error, action)
            raise

    def _question(self, receipts: tuple[Receipt, ...], against: str | None, opened: Opened) -> Question:
        first = receipts[0]
        run = _submission(receipts, opened)
        other = _submission(self._comparable(first, against), opened) if against is not None else None
        return Question(run=run, agent=first.agent, method=first.method, against=other)

    def _comparable(self, run: Receipt, against: str) -> tuple[Receipt, ...]:
        if not self._ledger.was_evaluated(against):
            raise NotFoundError(f"{against[:80]!r} was never evaluated; compare with a run on the leaderboard")
        receipts = self._receipts.read(against)
        if against == run.run_id or not receipts or receipts[0].task != run.task:
            raise InvalidInputError(f"{run.run_id!r} cannot be compared with {against!r}; take another run of its task")
        return receipts

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

    def _publish(self, answer: Answered) -> None:
        """Publish the verified result, unless it stands there already; a crash or a forger may have prevented it."""
        if not self._is_published(answer.run_id):
            fields = answer.model_dump(include={"run_id", "agent", "method", "task", "seeds", "pgr", "pgr_se"})
            self._results.publish(VerifiedResult(**fields, at_most=bool(answer.at_most)))


def _submission(receipts: tuple[Receipt, ...], opened: Opened) -> Submission:
    first = receipts[0]
    votes = read_votes(receipts, opened.secret, opened.baselines)
    return Submission(first.run_id, first.task, first.task_fingerprint, votes)


def _check_owner(caller: Caller, run_id: str, owner: str) -> None:
    if owner != caller.agent and not caller.is_operator:
        raise PermissionDeniedError(f"run {run_id!r} is another agent's; evaluate your own")
