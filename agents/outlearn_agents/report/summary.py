"""`summary.json`: what a team achieved. Every number in it is the evaluation server's or comes from the vault."""

from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from outlearn.audit import AuditKind, AuditLog
from outlearn.researcher import Tools
from outlearn.results import pgr_text
from outlearn.tasks import load_baselines
from outlearn.types import (
    Finding,
    FindingKind,
    Leaderboard,
    LeaderboardRow,
    Lineage,
    LineageEdge,
    LineageNode,
    RunStatus,
    RunView,
)
from outlearn_agents.reading import all_findings, all_runs, pages
from outlearn_agents.run_folder import RunFolder, TeamSpec
from outlearn_agents.spending.ledger import Ledger
from outlearn_evaluation.release import Finalist, Release, ReleaseBook
from outlearn_evaluation.service import EVERYTHING, EvaluationService
from outlearn_evaluation.settings import EvaluationSettings


class SummaryModel(BaseModel):
    """Base of the summary's parts."""

    model_config = ConfigDict(frozen=True)


class RunSummary(SummaryModel):
    """An evaluated run. `pgr` is 0 at the teacher's level and 1 at the ceiling's, and may lie outside."""

    run_id: str
    agent: str
    method: str = Field(description="A registered method, or the path of a file in the agent's workspace.")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters that the run was submitted with.")
    seeds: int
    pgr: float = Field(description="In steps of 0.05.")
    at_most: bool = Field(False, description="`pgr` is no more than this, and may be anything below.")
    pgr_se: float = Field(description="Standard error of pgr, over items, seeds and the answer's noise.")
    evaluated_at: datetime
    nominated: bool = False


class LineSummary(SummaryModel):
    """A shortcut, a control or an end of the scale, to hold the runs against."""

    name: str
    pgr: float
    at_most: bool = Field(False, description="`pgr` is no more than this.")


class FindingSummary(SummaryModel):
    """A finding of the forum. `text` is its author's; `pgr` and `pgr_se` are the evaluation server's, or null."""

    finding_id: str
    kind: FindingKind
    title: str
    text: str
    author: str
    run_id: str | None = None
    pgr: float | None = None
    at_most: bool = False
    pgr_se: float | None = None
    score: int = 0
    replies: int = 0
    posted_at: datetime


class AgentSummary(SummaryModel):
    """An agent of the team."""

    name: str
    researcher: str
    direction: str
    runs: int = Field(description="Runs that it submitted, of any kind and outcome.")


class LineageSummary(SummaryModel):
    """Which findings name which findings, runs and snapshots as built on, and which runs findings report."""

    nodes: tuple[LineageNode, ...] = ()
    edges: tuple[LineageEdge, ...] = ()


class FinalSummary(SummaryModel):
    """The final of the task, on fresh seeds and the private half of the test items."""

    release: Release
    revealed: bool = Field(description="Labels, split and noise were written out by `outlearn reveal`.")


class Summary(SummaryModel):
    """What a team achieved in a run folder, over all its sessions."""

    schema_version: int = 1
    task: str
    weak_acc: float = Field(description="Mean accuracy of the teachers on the test split, in [0, 1].")
    ceiling_acc: float = Field(description="Mean accuracy of students trained on the truth, in [0, 1].")
    agents: tuple[AgentSummary, ...]
    runs: tuple[RunSummary, ...] = Field(description="Evaluated runs, best first; of equal ones the earlier.")
    submitted: dict[RunStatus, int] = Field(
        default_factory=dict, description="Runs of any kind, pilots too, by what became of them."
    )
    best: RunSummary | None = Field(description="The run with the highest PGR, or null where none was evaluated.")
    lines: tuple[LineSummary, ...] = Field((), description="What shortcuts and controls reach, best first.")
    findings: tuple[FindingSummary, ...] = Field(description="Oldest first.")
    lineage: LineageSummary = LineageSummary()
    final: FinalSummary | None = Field(None, description="Null until `outlearn finalize` was run.")
    started_at: datetime
    wall_seconds: float = Field(description="Wall time that the team was at work, pauses and breaks not counted.")
    at_work: tuple[tuple[datetime, datetime], ...] = Field(
        (), description="From when to when any agent was at work; empty where no team ever was."
    )

    def hours_at(self, moment: datetime) -> float:
        """Hours that the team had been at work by then, without pauses and breaks; 0 for what clients did before.

        Where no team ever was, hours since the start.
        """
        spans = self.at_work or ((self.started_at, max(moment, self.started_at)),)
        worked = (min(moment, end) - start for start, end in spans if start < moment)
        return sum(worked, timedelta()) / timedelta(hours=1)

    def for_scale(self) -> str:
        """The lines in words."""
        return ", ".join(f"{one.name} {pgr_text(one.pgr, one.at_most)}" for one in self.lines)

    def best_in_final(self) -> Finalist | None:
        """The first of the final that has a PGR."""
        finalists = self.final.release.finalists if self.final else ()
        return next((one for one in finalists if one.pgr), None)

    def best_finding(self) -> FindingSummary | None:
        """The result finding with the highest verified PGR."""
        verified = [finding for finding in self.findings if finding.pgr is not None]
        return max(verified, key=lambda finding: finding.pgr or 0.0, default=None)


async def collect(tools: Tools, folder: RunFolder, spec: TeamSpec) -> Summary:
    """Ask the training server and the forum, as the operator, for what a summary holds beside the vault's numbers.

    Raises:
        ServerUnreachableError, ToolRefusedError: a server is gone or refuses.
    """
    baselines = load_baselines(folder.root, spec.task)
    board = _board(folder, spec.task)
    submitted = await all_runs(tools)
    runs = _runs(board.rows, submitted)
    numbers = {run.run_id: run for run in runs}
    return Summary(
        task=spec.task,
        weak_acc=round(baselines.weak_acc, 4),
        ceiling_acc=round(baselines.ceiling_acc, 4),
        agents=tuple(
            AgentSummary(
                name=agent.name,
                researcher=agent.researcher,
                direction=agent.direction,
                runs=sum(run.agent == agent.name for run in submitted),
            )
            for agent in spec.agents
        ),
        runs=runs,
        submitted=Counter(run.status for run in submitted),
        best=runs[0] if runs else None,
        lines=tuple(LineSummary(**one.model_dump()) for one in board.lines),
        findings=tuple(_finding(finding, numbers) for finding in await all_findings(tools)),
        lineage=await _lineage(tools),
        final=_final(folder, spec.task),
        started_at=spec.created_at,
        wall_seconds=round(spec.seconds_worked, 1),
        at_work=_at_work(folder),
    )


def _board(folder: RunFolder, task: str) -> Leaderboard:
    """All of it: the tool gives agents no more than 500 rows."""
    service = EvaluationService(EvaluationSettings(home=folder.root))
    try:
        return service.leaderboard(task, EVERYTHING)
    finally:
        service.engine.dispose()


def _at_work(folder: RunFolder) -> tuple[tuple[datetime, datetime], ...]:
    if not folder.spending.exists():
        return ()
    with closing(Ledger(folder.spending)) as ledger:
        return tuple((_moment(start), _moment(end)) for start, end in ledger.at_work())


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _runs(rows: tuple[LeaderboardRow, ...], submitted: list[RunView]) -> tuple[RunSummary, ...]:
    params = {run.run_id: run.params for run in submitted}
    return tuple(RunSummary(**row.model_dump(exclude={"rank"}), params=params.get(row.run_id, {})) for row in rows)


def _finding(finding: Finding, numbers: dict[str, RunSummary]) -> FindingSummary:
    """The finding with the leaderboard's number for its author's run, whatever the text claims."""
    run = numbers.get(finding.run_id or "")
    run = run if run and run.agent == finding.author else None
    fields = finding.model_dump(include=set(FindingSummary.model_fields) - {"pgr", "at_most", "pgr_se"})
    return FindingSummary(**fields, **(run.model_dump(include={"pgr", "at_most", "pgr_se"}) if run else {}))


async def _lineage(tools: Tools) -> LineageSummary:
    nodes: dict[str, LineageNode] = {}
    edges: dict[LineageEdge, None] = {}
    async for page in pages(tools, Lineage, "forum", "lineage"):
        nodes |= {node.id: node for node in page.nodes}
        edges |= dict.fromkeys(page.edges)
    return LineageSummary(nodes=tuple(nodes.values()), edges=tuple(edges))


def _final(folder: RunFolder, task: str) -> FinalSummary | None:
    vault = folder.root / "vault"
    release = ReleaseBook(vault, task).read()
    if release is None:
        return None
    revealed = any(one.kind == AuditKind.COMMITMENT_REVEALED and one.task == task for one in AuditLog(vault).records())
    return FinalSummary(release=release, revealed=revealed)
