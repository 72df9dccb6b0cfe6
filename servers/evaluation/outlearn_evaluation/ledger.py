"""The ledger of evaluations: what was answered and charged, and who nominated what. One transaction a charge."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Engine, bindparam, exists, func, select

from outlearn.database import as_utc, open_database, utc_now
from outlearn.errors import BudgetError, InvalidInputError, NotFoundError
from outlearn.identity import Caller
from outlearn.receipts import RUN_ID
from outlearn.transactions import Transaction, Transactions
from outlearn.types import BudgetView, LeaderboardRow, Verdict
from outlearn_evaluation.closed_tasks import close, closed, refuse_closed
from outlearn_evaluation.detectors import Look
from outlearn_evaluation.looks import LookBook
from outlearn_evaluation.scoring import Grade, Judge
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.submissions import Submission, file_submission, read_submission
from outlearn_evaluation.tables import evaluations, finals, metadata, nominations
from outlearn_evaluation.withheld import NOTHING, Withheld


class Answered(NamedTuple):
    """An answer as it stands in the ledger."""

    run_id: str
    against: str
    agent: str
    task: str
    method: str
    seeds: int
    pgr: float
    pgr_se: float
    verdict: Verdict | None
    at_most: bool | None = None
    same_as: str | None = None


_MINE = evaluations.c.agent == bindparam("agent")
_OF_A_FINAL = (
    exists()
    .where(evaluations.c.run_id == nominations.c.run_id, evaluations.c.task == finals.c.task)
    .correlate(nominations)
)
_OPEN = (nominations.c.agent == bindparam("agent")) & ~_OF_A_FINAL
_NOMINATED = select(func.count()).select_from(nominations).where(_OPEN)
_USED = (
    select(
        func.count().filter(_MINE).label("by_agent"),
        func.count().filter(_MINE & (evaluations.c.day == bindparam("today"))).label("by_agent_today"),
        func.count().label("by_team"),
        _NOMINATED.scalar_subquery().label("nominated"),
        select(func.max(evaluations.c.number)).scalar_subquery().label("newest"),
        select(finals.c.closed_at).where(finals.c.task == bindparam("task")).scalar_subquery().label("closed_at"),
    )
    .where(evaluations.c.charged.is_(True))
    .subquery()
)
_ASKED = (evaluations.c.run_id == bindparam("run_id")) & (evaluations.c.against == bindparam("against"))
_ANSWER = [evaluations.c[name] for name in Answered._fields]
_STATE = select(_USED, *_ANSWER).select_from(_USED.outerjoin(evaluations, _ASKED))  # always one row
_FILED = evaluations.insert()
_RUNS = select(evaluations.c.run_id).group_by(evaluations.c.run_id).order_by(func.min(evaluations.c.number))
_EARLIER = evaluations.alias("earlier")
_FIRST = ~exists().where(_EARLIER.c.run_id == evaluations.c.run_id, _EARLIER.c.number < evaluations.c.number)
_BOARD = (
    select(evaluations, nominations.c.run_id.is_not(None).label("nominated"))
    .join(
        nominations,
        (nominations.c.run_id == evaluations.c.run_id) & (nominations.c.agent == evaluations.c.agent),
        isouter=True,
    )
    .where(
        evaluations.c.task == bindparam("task"),
        evaluations.c.run_id.not_in(bindparam("runs", expanding=True)),
        evaluations.c.agent.not_in(bindparam("agents", expanding=True)),
        _FIRST,
    )
    .order_by(evaluations.c.pgr.desc(), evaluations.c.number)
    .limit(bindparam("limit"))
)
_OWN = select(evaluations.c.run_id, evaluations.c.task).where(
    evaluations.c.run_id.in_(bindparam("runs", expanding=True)), _MINE, _FIRST
)
_REPLACED = nominations.delete().where(_OPEN)
_NOMINATE = nominations.insert()
_NOMINEES = (
    select(*_ANSWER)
    .where(evaluations.c.task == bindparam("task"), evaluations.c.run_id.in_(select(nominations.c.run_id)), _FIRST)
    .order_by(evaluations.c.number)
)


@dataclass(frozen=True)
class Question:
    """What an agent asks: the score of a run and, with `against`, how it compares with an earlier one."""

    run: Submission
    agent: str
    method: str
    grade: Grade
    """Of the run's own votes."""
    against: Submission | None = None

    def answer(
        self, grade: Grade | None = None, verdict: Verdict | None = None, same_as: str | None = None
    ) -> Answered:
        """What is told of this; by its own grade, where none is given."""
        grade = grade or self.grade
        return Answered(
            run_id=self.run.run_id,
            against=self.against.run_id if self.against else "",
            agent=self.agent,
            task=self.run.task,
            method=self.method,
            seeds=len(self.run.votes.positive),
            pgr=grade.pgr,
            pgr_se=grade.pgr_se,
            verdict=verdict,
            at_most=grade.at_most,
            same_as=same_as,
        )

    @cached_property
    def look(self) -> Look:
        """The run as detectors see it."""
        votes = self.run.votes
        return Look(self.run.run_id, self.agent, len(votes.positive), votes.counts)


Admit = Callable[[Question], None]
"""Looks at a question before it is answered and raises where it is not to be, within the transaction that charges: the
ledger's `looks` are then all that was ever evaluated."""


class _Left(NamedTuple):
    """What is left of budgets, as in `BudgetView`."""

    agent_left: int
    agent_today_left: int
    team_left: int
    nominations_left: int

    def less_one(self) -> "_Left":
        """After one more evaluation."""
        return _Left(self.agent_left - 1, self.agent_today_left - 1, self.team_left - 1, self.nominations_left)

    def view(self) -> BudgetView:
        """As it is told."""
        return BudgetView(**self._asdict())


class _State(NamedTuple):
    """What the ledger says when a question is asked."""

    answer: Answered | None
    left: _Left
    closed_at: datetime | None
    newest: int
    """Number of the newest evaluation, 0 where there is none."""


class Ledger:
    """Answers, charges and nominations in a database."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self.engine: Engine = open_database(settings.database("evaluation"), metadata)
        self.transactions = Transactions(self.engine)
        self.looks = LookBook()

    def find(self, run_id: str, against: str, agent: str, *, wait: bool = True) -> tuple[Answered, BudgetView] | None:
        """The answer that was given to this question, if it was asked, and what `agent` has left.

        Raises BusyError: it would have to `wait`.
        """
        with self.transactions.reading(wait=wait) as read:
            state = self._state(read, run_id, against, agent)
            return (state.answer, state.left.view()) if state.answer else None

    def submission(self, run_id: str, *, wait: bool = True) -> Submission | None:
        """What an evaluated run answered; None where nobody evaluated it. Raises BusyError: it would have to `wait`."""
        with self.transactions.reading(wait=wait) as read:
            return read_submission(read, run_id)

    def evaluated_runs(self) -> list[str]:
        """Every run that was evaluated, oldest first."""
        with self.transactions.reading() as read:
            return [row.run_id for row in read.rows(_RUNS)]

    def read_looks(self) -> None:
        """Have all that was evaluated up to now in `looks`; each charge does so by itself."""
        with self.transactions.reading() as read:
            self.looks.read(read)

    def look_ahead(self, question: Question) -> None:
        """Hold a run against all that was evaluated up to now, so that fewer are left when it is asked about."""
        self.read_looks()
        self.looks.of(question.run.fingerprint).changes(question.look)

    def charge(
        self, question: Question, judge: Judge, caller: Caller, admit: Admit, *, wait: bool = True
    ) -> tuple[Answered, bool, BudgetView]:
        """Answer a question and charge its agent for it. Returns what now stands, whether it was charged, what is left.

        Of two calls with the same question, one is charged and both get the same answer; a run that is nearly equal to
        an earlier one is charged and gets the earlier one's. Operators are not charged, nor looked at by `admit`, which
        may raise.

        Raises:
            BudgetError: a budget is used up; nothing was recorded.
            ConflictError: the task's final has begun.
            BusyError: it would have to `wait`; nothing was recorded.
        """
        run, against = question.run, question.against.run_id if question.against else ""
        with self.transactions.writing(wait=wait) as write:
            state = self._state(write, run.run_id, against, caller.agent, run.task)
            self.looks.read(write, state.newest)
            if state.answer is not None:
                return state.answer, False, state.left.view()
            if state.closed_at is not None:
                raise closed(run.task, state.closed_at)
            if not caller.is_operator:
                _check_budget(state.left)
                admit(question)
            answer, now = self._answer(write, question, judge), utc_now()
            values = {"charged": not caller.is_operator, "day": now.date().isoformat(), "evaluated_at": now}
            number = write.change(_FILED, **answer._asdict(), **values)
        look = question.look.told(bool(answer.at_most), answer.same_as)
        self.looks.add(number, run.fingerprint, look)
        left = state.left if caller.is_operator else state.left.less_one()
        return answer, not caller.is_operator, left.view()

    def budget(self, agent: str, *, wait: bool = True) -> BudgetView:
        """What is left for an agent. Raises BusyError: it would have to `wait`."""
        with self.transactions.reading(wait=wait) as read:
            return self._state(read, "", "", agent).left.view()

    def board(self, task: str, limit: int, withheld: Withheld = NOTHING, *, wait: bool = True) -> list[LeaderboardRow]:
        """The evaluated runs of a task, best first, without those that are withheld.

        Raises BusyError: it would have to `wait`.
        """
        without = {"runs": [*withheld.runs], "agents": [*withheld.agents]}
        with self.transactions.reading(wait=wait) as read:
            rows = read.rows(_BOARD, task=task, limit=limit, **without)
            return [_board_row(rank, row) for rank, row in enumerate(rows, 1)]

    def nominate(self, agent: str, run_ids: tuple[str, ...]) -> None:
        """Make these (each named once) the agent's nominations, in place of earlier ones but for those of a final.

        Raises:
            BudgetError: there are too many.
            ConflictError: the final of one's task has begun.
            InvalidInputError: one is not an evaluated run of this agent.
        """
        if len(run_ids) > self._settings.nominations:
            raise BudgetError(f"you may nominate {self._settings.nominations} runs, not {len(run_ids)}")
        with self.transactions.writing() as write:
            named = list(filter(RUN_ID.fullmatch, run_ids))
            own = {row.run_id: row.task for row in write.rows(_OWN, runs=named, agent=agent)}
            for run_id in run_ids:
                if run_id not in own:
                    raise InvalidInputError(f"{run_id!r} is not an evaluated run of yours; `evaluate` it first")
            refuse_closed(write, own.values())
            write.change(_REPLACED, agent=agent)
            for run_id in run_ids:
                write.change(_NOMINATE, agent=agent, run_id=run_id)

    def close(self, task: str) -> tuple[datetime, list[Answered]]:
        """Close a task's nominations, once. Returns when that was, and the first answer for each nominated run.

        Raises NotFoundError where there is no nomination; then nothing is closed.
        """
        with self.transactions.writing() as write:
            rows = [*write.rows(_NOMINEES, task=task)]
            if not rows:
                raise NotFoundError(f"nobody has nominated a run of task {task!r}: agents do that with `nominate`")
            return close(write, task), [Answered(*row) for row in rows]

    def _state(self, read: Transaction, run_id: str, against: str, agent: str, task: str = "") -> _State:
        (row,) = read.rows(
            _STATE, run_id=run_id, against=against, agent=agent, task=task, today=utc_now().date().isoformat()
        )
        limits = self._settings
        left = _Left(
            agent_left=max(0, limits.agent_evaluations - row.by_agent),
            agent_today_left=max(0, limits.daily_evaluations - row.by_agent_today),
            team_left=max(0, limits.team_evaluations - row.by_team),
            nominations_left=max(0, limits.nominations - row.nominated),
        )
        answer = None if row.run_id is None else _answered(row)
        return _State(answer, left, row.closed_at, row.newest or 0)

    def _answer(self, write: Transaction, question: Question, judge: Judge) -> Answered:
        """What is told, by the votes of the runs that these are scored as: a near run's own would be a second look.

        The run is filed. Of two near ones at once the second sees the first: all writing takes turns.
        """
        run, looks = question.run, self.looks.of(question.run.fingerprint)
        known = looks.find(run.run_id)
        near = known.same_as if known else looks.nearest(question.look)
        if known is None:
            file_submission(write, run)
        scored = _scored_as(write, run, near)
        grade = question.grade if scored is run else judge.grade(scored.votes)
        verdict = None
        if question.against:
            against = looks.find(question.against.run_id)
            other = _scored_as(write, question.against, against.same_as if against else None)
            verdict = judge.compare(scored.votes, other.votes)
        return question.answer(grade, verdict, near)


def _answered(row: Any) -> Answered:
    return Answered(*(getattr(row, name) for name in Answered._fields))


def _scored_as(read: Transaction, run: Submission, same_as: str | None) -> Submission:
    return (read_submission(read, same_as) if same_as else None) or run


def _check_budget(budget: _Left) -> None:
    for left, what in (
        (budget.agent_left, "all your evaluations are used; nominate your best runs"),
        (budget.agent_today_left, "today's evaluations are used; there are new ones after midnight UTC"),
        (budget.team_left, "the team's evaluations are used; nominate your best runs"),
    ):
        if left <= 0:
            raise BudgetError(f"{what}. Nothing was charged")


def _board_row(rank: int, row: Any) -> LeaderboardRow:
    return LeaderboardRow(
        rank=rank,
        run_id=row.run_id,
        agent=row.agent,
        method=row.method,
        pgr=row.pgr,
        at_most=bool(row.at_most),
        pgr_se=row.pgr_se,
        seeds=row.seeds,
        evaluated_at=as_utc(row.evaluated_at),
        nominated=bool(row.nominated),
    )
