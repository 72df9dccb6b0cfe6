"""What the evaluation server does, without MCP: score receipts, charge for it, rank."""

from functools import cached_property, lru_cache
from pathlib import Path

import structlog
from sqlalchemy import Engine

from outlearn.errors import IntegrityError, InvalidInputError, NotFoundError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.results import ResultBook, VerifiedResult
from outlearn.tasks import Baselines, default_task, load_baselines, load_card, load_secret, task_names
from outlearn.types import BudgetView, Evaluation, Leaderboard, LeaderboardLine, Nominations
from outlearn_evaluation.commitment import commitment
from outlearn_evaluation.ledger import Answered, Ledger
from outlearn_evaluation.scoring import Score, compare, public_gap, score
from outlearn_evaluation.settings import EvaluationSettings

log = structlog.get_logger("outlearn.evaluation")


class EvaluationService:
    """Evaluations of one home folder."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self._ledger = Ledger(settings)

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
            PermissionDeniedError: it is another agent's run.
            InvalidInputError: `against` is the run itself or of another task, or the task has no significant gap.
            IntegrityError: a receipt is forged, damaged, missing, or for other data.
            BudgetError: no evaluations are left.
        """
        against = against or None  # clients that must fill in every argument send ""
        receipts = self._owned(caller, run_id)
        answer, charged = self._ledger.find(run_id, against or ""), False
        if answer is None:
            answer, charged = self._ledger.charge(self._answer(receipts, against), caller)
        self._publish(answer)
        return Evaluation(
            run_id=answer.run_id,
            task=answer.task,
            method=answer.method,
            pgr=answer.pgr,
            pgr_se=answer.pgr_se,
            seeds=answer.seeds,
            against=answer.against or None,
            verdict=answer.verdict,
            charged=charged,
            budget=self._ledger.budget(caller.agent),
        )

    def leaderboard(self, task: str, limit: int) -> Leaderboard:
        """The evaluated runs of a task, best first. Raises NotFoundError."""
        card = load_card(self._settings.home, task or default_task(self._settings.home))
        rows = tuple(self._ledger.board(card.name, limit))
        lines = board_lines(self._settings.home, card.name, load_baselines(self._settings.home, card.name))
        return Leaderboard(task=card.name, rows=rows, lines=lines)

    def budget(self, caller: Caller) -> BudgetView:
        """What the caller has left."""
        return self._ledger.budget(caller.agent)

    def nominate(self, caller: Caller, run_ids: tuple[str, ...]) -> Nominations:
        """Set the caller's nominations."""
        run_ids = tuple(dict.fromkeys(run_ids))
        self._ledger.nominate(caller.agent, run_ids)
        return Nominations(run_ids=run_ids, nominations_left=self._ledger.budget(caller.agent).nominations_left)

    def commitments(self) -> dict[str, str]:
        """The commitment of each task."""
        return {name: commitment(self._settings.home, name) for name in task_names(self._settings.home)}

    def _owned(self, caller: Caller, run_id: str) -> tuple[Receipt, ...]:
        receipts = self._receipts.read(run_id)
        if not receipts:
            raise NotFoundError(
                f"run {run_id!r} has no receipts: pilots get none, a full run gets them when it is done, "
                "and `list_runs` shows your runs"
            )
        if receipts[0].agent != caller.agent and not caller.is_operator:
            raise PermissionDeniedError(f"run {run_id!r} is another agent's; evaluate your own")
        return receipts

    def _answer(self, receipts: tuple[Receipt, ...], against: str | None) -> Answered:
        first, verdict = receipts[0], None
        mine = self._score(receipts)
        if against is not None:
            verdict = compare(mine, self._score(self._comparable(first, against)))
        return Answered(
            run_id=first.run_id,
            against=against or "",
            agent=first.agent,
            task=first.task,
            method=first.method,
            seeds=len(receipts),
            pgr=round(mine.pgr, 4),
            pgr_se=round(mine.pgr_se, 4),
            verdict=verdict,
        )

    def _comparable(self, run: Receipt, against: str) -> tuple[Receipt, ...]:
        if not self._ledger.was_evaluated(against):
            raise NotFoundError(f"{against[:80]!r} was never evaluated; compare with a run on the leaderboard")
        receipts = self._receipts.read(against)
        if against == run.run_id or not receipts or receipts[0].task != run.task:
            raise InvalidInputError(f"{run.run_id!r} cannot be compared with {against!r}; take another run of its task")
        return receipts

    def _score(self, receipts: tuple[Receipt, ...]) -> Score:
        home, task = self._settings.home, receipts[0].task
        return score(receipts, load_secret(home, task), load_baselines(home, task))

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
            self._results.publish(VerifiedResult(**fields))


@lru_cache(maxsize=64)
def board_lines(home: Path, task: str, baselines: Baselines) -> tuple[LeaderboardLine, ...]:
    """The sanity lines of a task on PGR's scale, best first; none where PGR is undefined."""
    try:
        weak, gap = public_gap(baselines, load_secret(home, task))
    except InvalidInputError:
        return ()
    lines = [LeaderboardLine(name=one.name, pgr=round((one.accuracy - weak) / gap, 4)) for one in baselines.lines]
    ends = [LeaderboardLine(name="teacher", pgr=0.0), LeaderboardLine(name="ceiling", pgr=1.0)]
    return tuple(sorted(ends + lines, key=lambda one: -one.pgr))
