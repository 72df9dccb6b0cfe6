"""The ledger of evaluations: what was answered and charged, and who nominated what. One transaction a charge."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Engine,
    Float,
    Integer,
    Row,
    String,
    Table,
    UniqueConstraint,
    func,
    select,
)

from outlearn.database import as_utc, open_database, reading, utc_now, writing
from outlearn.errors import BudgetError, InvalidInputError
from outlearn.identity import Caller
from outlearn.types import BudgetView, LeaderboardRow, Verdict
from outlearn_evaluation.scoring import Judge
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.submissions import Submission, file_submission, metadata

evaluations = Table(
    "evaluations",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("run_id", String(40), nullable=False, index=True),
    Column("against", String(40), nullable=False, default=""),
    Column("agent", String(32), nullable=False, index=True),
    Column("task", String(48), nullable=False, index=True),
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
)
nominations = Table(
    "nominations",
    metadata,
    Column("agent", String(32), primary_key=True),
    Column("run_id", String(40), primary_key=True),
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


class Ledger:
    """Answers, charges and nominations in a database."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings
        self.engine: Engine = open_database(settings.database("evaluation"), metadata)

    def find(self, run_id: str, against: str) -> Answered | None:
        """The answer that was given to this question, if it was asked."""
        query = select(evaluations).where(evaluations.c.run_id == run_id, evaluations.c.against == against)
        with reading(self.engine) as connection:
            row = connection.execute(query).one_or_none()
            return Answered.model_validate(row) if row else None

    def was_evaluated(self, run_id: str) -> bool:
        """Whether anybody evaluated this run."""
        with reading(self.engine) as connection:
            return _count(connection, evaluations.c.run_id == run_id) > 0

    def charge(self, question: Question, judge: Judge, caller: Caller) -> tuple[Answered, bool]:
        """Answer a question and charge its agent for it. Returns what now stands, and whether it was charged.

        Of two calls with the same question, one is charged and both get the same answer; a run that is nearly equal to
        an earlier one is charged and gets the earlier one's. Operators are not charged.

        Raises:
            BudgetError: a budget is used up; nothing was recorded.
        """
        against = question.against.run_id if question.against else ""
        with writing(self.engine) as connection:
            query = select(evaluations).where(
                evaluations.c.run_id == question.run.run_id, evaluations.c.against == against
            )
            known = connection.execute(query).one_or_none()
            if known is not None:
                return Answered.model_validate(known), False
            if not caller.is_operator:
                _check_budget(self._budget(connection, caller.agent))
            answer, now = _answer(connection, question, judge), utc_now()
            values = {"charged": not caller.is_operator, "day": now.date().isoformat(), "evaluated_at": now}
            connection.execute(evaluations.insert().values(answer.model_dump() | values))
            return answer, not caller.is_operator

    def budget(self, agent: str) -> BudgetView:
        """What is left for an agent."""
        with reading(self.engine) as connection:
            return self._budget(connection, agent)

    def board(self, task: str, limit: int) -> list[LeaderboardRow]:
        """The evaluated runs of a task, best first."""
        first = select(func.min(evaluations.c.number)).where(evaluations.c.task == task).group_by(evaluations.c.run_id)
        query = (
            select(evaluations, nominations.c.run_id.is_not(None).label("nominated"))
            .join(nominations, nominations.c.run_id == evaluations.c.run_id, isouter=True)
            .where(evaluations.c.number.in_(first))
            .order_by(evaluations.c.pgr.desc(), evaluations.c.number)
            .limit(limit)
        )
        with reading(self.engine) as connection:
            return [_board_row(rank, row) for rank, row in enumerate(connection.execute(query).all(), 1)]

    def nominate(self, agent: str, run_ids: tuple[str, ...]) -> None:
        """Make these (each named once) the agent's nominations, in place of earlier ones.

        Raises:
            BudgetError: there are too many.
            InvalidInputError: one is not an evaluated run of this agent.
        """
        if len(run_ids) > self._settings.nominations:
            raise BudgetError(f"you may nominate {self._settings.nominations} runs, not {len(run_ids)}")
        with writing(self.engine) as connection:
            for run_id in run_ids:
                if not _count(connection, (evaluations.c.run_id == run_id) & (evaluations.c.agent == agent)):
                    raise InvalidInputError(f"{run_id!r} is not an evaluated run of yours; `evaluate` it first")
            connection.execute(nominations.delete().where(nominations.c.agent == agent))
            for run_id in run_ids:
                connection.execute(nominations.insert().values(agent=agent, run_id=run_id))

    def _budget(self, connection: Connection, agent: str) -> BudgetView:
        today = utc_now().date().isoformat()
        charged = evaluations.c.charged.is_(True)
        mine = charged & (evaluations.c.agent == agent)
        nominated = select(func.count()).select_from(nominations).where(nominations.c.agent == agent)
        limits = self._settings
        return BudgetView(
            agent_left=max(0, limits.agent_evaluations - _count(connection, mine)),
            agent_today_left=max(0, limits.daily_evaluations - _count(connection, mine & (evaluations.c.day == today))),
            team_left=max(0, limits.team_evaluations - _count(connection, charged)),
            nominations_left=max(0, limits.nominations - int(connection.execute(nominated).scalar_one())),
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
