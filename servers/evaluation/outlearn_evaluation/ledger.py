"""The ledger of evaluations: what was answered and charged, and who nominated what. One transaction a charge."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Index,
    Integer,
    Row,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    exists,
    func,
    select,
    text,
)

from outlearn.database import as_utc, open_database, reading, utc_now, writing
from outlearn.errors import BudgetError, InvalidInputError, NotFoundError
from outlearn.identity import Caller
from outlearn.types import BudgetView, LeaderboardRow, Verdict
from outlearn_evaluation.closing import close, finals, refuse_closed
from outlearn_evaluation.scoring import Judge
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.standing import NOTHING, Withheld
from outlearn_evaluation.submissions import Submission, file_submission, metadata, read_submission

evaluations = Table(
    "evaluations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False, index=True),
    Column("against", String(40), nullable=False, default=""),
    Column("agent", String(32), nullable=False, index=True),
    Column("task", String(48), nullable=False),
    Column("method", String(300), nullable=False),
    Column("seeds", Integer, nullable=False),
    Column("pgr", Float, nullable=False),
    Column("pgr_se", Float, nullable=False),
    Column("verdict", String(24)),
    Column("at_most", Boolean),
    Column("same_as", String(40)),
    Column("charged", Boolean, nullable=False),
    Column("day", String(10), nullable=False),
    Column("evaluated_at", DateTime, nullable=False),
    UniqueConstraint("run_id", "against"),
    Index("evaluations_by_rank", "task", text("pgr DESC"), "number"),
)
nominations = Table(
    "nominations",
    metadata,
    Column("agent", String(32), primary_key=True),
    Column("run_id", String(40), primary_key=True),
)
_MINE = evaluations.c.agent == bindparam("agent")
_NOMINATED = select(func.count()).select_from(nominations).where(nominations.c.agent == bindparam("agent"))
_USED = select(
    func.count().filter(_MINE),
    func.count().filter(_MINE & (evaluations.c.day == bindparam("today"))),
    func.count(),
    _NOMINATED.scalar_subquery(),
).where(evaluations.c.charged.is_(True))
_FILED = evaluations.insert()
_ANSWER = select(evaluations).where(
    evaluations.c.run_id == bindparam("run_id"), evaluations.c.against == bindparam("against")
)
_EARLIER = evaluations.alias("earlier")
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
        ~exists().where(_EARLIER.c.run_id == evaluations.c.run_id, _EARLIER.c.number < evaluations.c.number),
    )
    .order_by(evaluations.c.pgr.desc(), evaluations.c.number)
    .limit(bindparam("limit"))
)


class Answered(BaseModel):
    """An answer as it stands in the ledger."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

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


@dataclass(frozen=True)
class Question:
    """What an agent asks: the score of a run and, with `against`, how it compares with an earlier one."""

    run: Submission
    agent: str
    method: str
    against: Submission | None = None


Admit = Callable[[Connection, Question], None]
"""Looks at a question before it is answered and raises where it is not to be, within the transaction that charges."""


class Ledger:
    """Answers, charges and nominations in a database."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self.engine: Engine = open_database(settings.database("evaluation"), metadata)

    def find(self, run_id: str, against: str, agent: str) -> tuple[Answered, BudgetView] | None:
        """The answer that was given to this question, if it was asked, and what `agent` has left."""
        with reading(self.engine) as connection:
            row = connection.execute(_ANSWER, {"run_id": run_id, "against": against}).one_or_none()
            return (Answered.model_validate(row), self._budget(connection, agent)) if row else None

    def submission(self, run_id: str) -> Submission | None:
        """What an evaluated run answered; None where nobody evaluated it."""
        with reading(self.engine) as connection:
            return read_submission(connection, run_id)

    def evaluated_runs(self) -> list[str]:
        """Every run that was evaluated, oldest first."""
        query = select(evaluations.c.run_id).group_by(evaluations.c.run_id).order_by(func.min(evaluations.c.number))
        with reading(self.engine) as connection:
            return list(connection.execute(query).scalars())

    def charge(
        self, question: Question, judge: Judge, caller: Caller, admit: Admit
    ) -> tuple[Answered, bool, BudgetView]:
        """Answer a question and charge its agent for it. Returns what now stands, whether it was charged, what is left.

        Of two calls with the same question, one is charged and both get the same answer; a run that is nearly equal to
        an earlier one is charged and gets the earlier one's. Operators are not charged, nor looked at by `admit`, which
        may raise.

        Raises:
            BudgetError: a budget is used up; nothing was recorded.
            ConflictError: the task's final has begun.
        """
        against = question.against.run_id if question.against else ""
        with writing(self.engine) as connection:
            known = connection.execute(_ANSWER, {"run_id": question.run.run_id, "against": against}).one_or_none()
            budget = self._budget(connection, caller.agent)
            if known is not None:
                return Answered.model_validate(known), False, budget
            refuse_closed(connection, [question.run.task])
            if not caller.is_operator:
                _check_budget(budget)
                admit(connection, question)
            answer, now = _answer(connection, question, judge), utc_now()
            values = {"charged": not caller.is_operator, "day": now.date().isoformat(), "evaluated_at": now}
            connection.execute(_FILED, answer.model_dump() | values)
            return answer, not caller.is_operator, budget if caller.is_operator else _less_one(budget)

    def budget(self, agent: str) -> BudgetView:
        """What is left for an agent."""
        with reading(self.engine) as connection:
            return self._budget(connection, agent)

    def board(self, task: str, limit: int, withheld: Withheld = NOTHING) -> list[LeaderboardRow]:
        """The evaluated runs of a task, best first, without those that are withheld."""
        asked = {"task": task, "limit": limit, "runs": [*withheld.runs], "agents": [*withheld.agents]}
        with reading(self.engine) as connection:
            return [_board_row(rank, row) for rank, row in enumerate(connection.execute(_BOARD, asked).all(), 1)]

    def nominate(self, agent: str, run_ids: tuple[str, ...]) -> None:
        """Make these (each named once) the agent's nominations, in place of earlier ones but for those of a final.

        Raises:
            BudgetError: there are too many.
            ConflictError: the final of one's task has begun.
            InvalidInputError: one is not an evaluated run of this agent.
        """
        if len(run_ids) > self._settings.nominations:
            raise BudgetError(f"you may nominate {self._settings.nominations} runs, not {len(run_ids)}")
        with writing(self.engine) as connection:
            for run_id in run_ids:
                if not _count(connection, (evaluations.c.run_id == run_id) & (evaluations.c.agent == agent)):
                    raise InvalidInputError(f"{run_id!r} is not an evaluated run of yours; `evaluate` it first")
            tasks = select(evaluations.c.task).where(evaluations.c.run_id.in_(run_ids))
            refuse_closed(connection, connection.execute(tasks).scalars())
            of_finals = select(evaluations.c.run_id).where(evaluations.c.task.in_(select(finals.c.task)))
            replaced = (nominations.c.agent == agent) & nominations.c.run_id.not_in(of_finals)
            connection.execute(nominations.delete().where(replaced))
            for run_id in run_ids:
                connection.execute(nominations.insert().values(agent=agent, run_id=run_id))

    def close(self, task: str) -> tuple[datetime, list[Answered]]:
        """Close a task's nominations, once. Returns when that was, and the first answer for each nominated run.

        Raises NotFoundError where there is no nomination; then nothing is closed.
        """
        first = select(func.min(evaluations.c.number)).where(evaluations.c.task == task).group_by(evaluations.c.run_id)
        nominated = evaluations.c.run_id.in_(select(nominations.c.run_id)) & evaluations.c.number.in_(first)
        with writing(self.engine) as connection:
            rows = connection.execute(select(evaluations).where(nominated).order_by(evaluations.c.number)).all()
            if not rows:
                raise NotFoundError(f"nobody has nominated a run of task {task!r}: agents do that with `nominate`")
            return close(connection, task), [Answered.model_validate(row) for row in rows]

    def _budget(self, connection: Connection, agent: str) -> BudgetView:
        asked = {"agent": agent, "today": utc_now().date().isoformat()}
        by_agent, by_agent_today, by_team, nominated = connection.execute(_USED, asked).one()
        limits = self._settings
        return BudgetView(
            agent_left=max(0, limits.agent_evaluations - by_agent),
            agent_today_left=max(0, limits.daily_evaluations - by_agent_today),
            team_left=max(0, limits.team_evaluations - by_team),
            nominations_left=max(0, limits.nominations - nominated),
        )


def _answer(connection: Connection, question: Question, judge: Judge) -> Answered:
    """What is told, by the votes of the runs that these are scored as: a near run's own would be a second look."""
    run = file_submission(connection, question.run)
    against = file_submission(connection, question.against) if question.against else None
    grade = judge.grade(run.votes)
    return Answered(
        run_id=question.run.run_id,
        against=question.against.run_id if question.against else "",
        agent=question.agent,
        task=run.task,
        method=question.method,
        seeds=len(run.votes.positive),
        pgr=grade.pgr,
        pgr_se=grade.pgr_se,
        verdict=judge.compare(run.votes, against.votes) if against else None,
        at_most=grade.at_most,
        same_as=run.run_id if run.run_id != question.run.run_id else None,
    )


def _less_one(budget: BudgetView) -> BudgetView:
    counted = ("agent_left", "agent_today_left", "team_left")
    return budget.model_copy(update={name: getattr(budget, name) - 1 for name in counted})


def _check_budget(budget: BudgetView) -> None:
    for left, what in (
        (budget.agent_left, "all your evaluations are used; nominate your best runs"),
        (budget.agent_today_left, "today's evaluations are used; there are new ones after midnight UTC"),
        (budget.team_left, "the team's evaluations are used; nominate your best runs"),
    ):
        if left <= 0:
            raise BudgetError(f"{what}. Nothing was charged")


def _count(connection: Connection, condition: Any) -> int:
    query = select(func.count()).select_from(evaluations).where(condition)
    return int(connection.execute(query).scalar_one())


def _board_row(rank: int, row: Row[Any]) -> LeaderboardRow:
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
