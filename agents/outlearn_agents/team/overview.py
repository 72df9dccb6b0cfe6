"""`outlearn team status`: what a team does, spends and waits for, read from its files, at work or not."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from outlearn.audit import AuditLog
from outlearn.identity import OPERATOR
from outlearn.settings import ServerSettings
from outlearn.tasks import load_card, task_names
from outlearn.types import RunView
from outlearn_agents.plain_home import read_team
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.spending.ledger import HOUR, Ledger, Limits, Statement
from outlearn_agents.team.processes import disk_is_full
from outlearn_agents.team.status import read_status, status_file
from outlearn_agents.words import method_label
from outlearn_evaluation.commitment import open_task
from outlearn_evaluation.commitment_log import Publisher
from outlearn_evaluation.ledger import Ledger as EvaluationLedger
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.withheld import withheld
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.settings import TrainingSettings

MAX_QUEUED = 200
Settings = TypeVar("Settings", bound=ServerSettings)
Final = Literal["", "begun", "at work", "held"]


class OverviewModel(BaseModel):
    """Base of the overview's parts."""

    model_config = ConfigDict(frozen=True)


class Spent(OverviewModel):
    """What was spent, and what may be."""

    dollars: float
    reserved_dollars: float = Field(description="For model calls under way and last turns; not in `dollars`.")
    tokens: int
    hours: float = Field(description="Agent-hours.")
    calls: int
    dollars_per_hour: float | None = Field(description="Dollars per agent-hour; null in the first minute.")
    hours_left: float | None = Field(description="Agent-hours until the first limit, at the pace so far, or null.")
    limits: Limits

    @classmethod
    def of(cls, statement: Statement) -> "Spent":
        """What a statement says."""
        return cls(
            dollars=round(statement.dollars, 6),
            reserved_dollars=round(statement.reserved_dollars, 6),
            tokens=statement.tokens,
            hours=round(statement.hours, 4),
            calls=statement.calls,
            dollars_per_hour=statement.dollars_per_hour,
            hours_left=statement.hours_left(),
            limits=statement.limits,
        )


class AgentOverview(OverviewModel):
    """One agent."""

    name: str
    researcher: str
    direction: str
    state: str = Field(
        description="running, waiting, paused, finished, failed; resting where no team is at work; client where there "
        "is no team."
    )
    doing: str = Field(description="Where it rests, what it did last.")
    seconds_ago: float | None = Field(description="Since it said so; null where it never did.")
    spent: Spent
    evaluations_left: int
    evaluations_today_left: int
    restarts: int = Field(description="In this session.")


class QueuedRun(OverviewModel):
    """A run that is queued or running."""

    run_id: str
    agent: str
    method: str
    kind: str
    status: str
    progress: float
    ahead: int | None = Field(description="Runs ahead of it in the queue; null once it has started.")
    expected_wait_seconds: float | None = Field(description="Until it starts, while it is queued.")
    seconds_left: float | None = Field(description="Until its end, while it runs.")


class Overview(OverviewModel):
    """A team at a moment."""

    run: str
    task: str
    commitment: str | None = Field(description="To labels, split, noise and baselines; null before the task is there.")
    final: Final = Field(description="begun: interrupted; empty before it.")
    is_at_work: bool
    disk_is_full: bool = Field(description="Nothing can be written to the run folder until there is room.")
    is_paused: bool = Field(description="All agents: the session's time stands still.")
    seconds_left: float | None = Field(
        description="Of the session at work; they stand still while all are paused. Null while it starts."
    )
    seconds_worked: float
    agents: tuple[AgentOverview, ...]
    queue: tuple[QueuedRun, ...]
    spent: Spent = Field(description="By the team.")
    forecast_dollars: float | None = Field(description="At the session's end, at the pace so far; null where unknown.")
    evaluations_left: int = Field(description="Of the team.")
    evaluations_a_day: int = Field(description="Most of each agent's in a day (UTC).")
    server_restarts: dict[str, int] = Field(description="In this session, by server.")
    refused: dict[str, str] = Field(description="Agents that get no new answers until the operator's review, and why.")


def look_over(folder: RunFolder) -> Overview:
    """The team of a run folder now, or the clients of a home folder that has none.

    Raises:
        NotFoundError: it is neither.
    """
    spec = read_team(folder)
    is_at_work = folder.is_at_work
    session = folder.read_session() if is_at_work else None
    restarts = session.restarts if session else {}
    left = session.seconds_left if session else 0.0
    names = {agent.name for agent in spec.agents}
    evaluation = _settings(EvaluationSettings, folder, spec, "evaluation")
    evaluations = EvaluationLedger(evaluation)
    with closing(Ledger(folder.spending)) as ledger:
        agents = tuple(
            _agent(folder, agent, ledger, evaluations, is_at_work, restarts.get(agent.name, 0)) for agent in spec.agents
        )
        team = ledger.statement()
        team_left = evaluations.budget(OPERATOR.agent).team_left
        commitment = _commitment(folder, spec.task, Publisher(evaluations.transactions))
    evaluations.engine.dispose()
    standing = withheld(AuditLog(folder.root / "vault").records())
    at_work = sum(agent.state in ("running", "waiting", "paused") for agent in agents)
    pace = team.dollars_per_hour
    return Overview(
        run=str(folder.root),
        task=spec.task,
        commitment=commitment,
        final=_final(folder, spec.task),
        is_at_work=is_at_work,
        disk_is_full=disk_is_full(folder.root),
        is_paused=session is not None and session.paused_at is not None,
        seconds_left=None if is_at_work and session is None else round(left, 1),
        seconds_worked=round(spec.seconds_worked, 1),
        agents=agents,
        queue=_queue(folder, spec),
        spent=Spent.of(team),
        forecast_dollars=None if pace is None else _forecast(team, pace * at_work * left / HOUR),
        evaluations_left=team_left,
        evaluations_a_day=evaluation.daily_evaluations,
        server_restarts={name: count for name, count in restarts.items() if name not in names},
        refused={name: why for name in sorted(names) if (why := standing.refusal(name))},
    )


def _commitment(folder: RunFolder, task: str, publisher: Publisher) -> str | None:
    """What was published, or else is from now on."""
    if task not in task_names(folder.root):
        return None
    fingerprint = load_card(folder.root, task).fingerprint
    return publisher.find(task, fingerprint) or publisher.publish(open_task(folder.root, task))


def _final(folder: RunFolder, task: str) -> Final:
    vault = folder.root / "vault" / task
    if folder.is_final_at_work:
        return "at work"
    if (vault / "release.json").exists():
        return "held"
    return "begun" if (vault / "final-seeds.json").exists() else ""


def _forecast(team: Statement, more: float) -> float:
    limit = team.limits.dollars
    return round(min(team.dollars + more, limit) if limit else team.dollars + more, 4)


def _agent(
    folder: RunFolder, agent: AgentSpec, ledger: Ledger, evaluations: EvaluationLedger, is_at_work: bool, restarts: int
) -> AgentOverview:
    status, has_begun = read_status(folder, agent.name), status_file(folder, agent.name).exists()
    state: str = status.state if is_at_work or status.state in ("finished", "failed") else "resting"
    budget = evaluations.budget(agent.name)
    return AgentOverview(
        name=agent.name,
        researcher=agent.researcher,
        direction=agent.title,
        state=state if agent.researcher else "client",
        doing=status.doing if has_begun else "",
        seconds_ago=round((datetime.now(UTC) - status.at).total_seconds(), 1) if has_begun else None,
        spent=Spent.of(ledger.statement(agent.name)),
        evaluations_left=budget.agent_left,
        evaluations_today_left=budget.agent_today_left,
        restarts=restarts,
    )


def _queue(folder: RunFolder, spec: TeamSpec) -> tuple[QueuedRun, ...]:
    queue = RunQueue(_settings(TrainingSettings, folder, spec, "training").database("training"))
    running, _ = queue.page(OPERATOR, status="running", limit=MAX_QUEUED, before=None)
    queued, _ = queue.page(OPERATOR, status="queued", limit=MAX_QUEUED, before=None)
    return tuple(_queued(run) for run in (*reversed(running), *reversed(queued)))


def _queued(run: RunView) -> QueuedRun:
    return QueuedRun(
        run_id=run.run_id,
        agent=run.agent,
        method=method_label(run.method, run.params),
        kind=run.kind,
        status=run.status,
        progress=run.progress,
        ahead=run.queue_position,
        expected_wait_seconds=run.expected_wait_seconds,
        seconds_left=run.seconds_left,
    )


def _settings(kind: type[Settings], folder: RunFolder, spec: TeamSpec, server: str) -> Settings:
    """A server's settings as the team runner gives them."""
    arguments: dict[str, Any] = {"home": folder.root, "_cli_parse_args": list(spec.server_options.get(server, ()))}
    return kind(**arguments)
