"""What the operator sees of a team at work, asked from the servers."""

from dataclasses import dataclass

from outlearn.errors import ServerUnreachableError, ToolRefusedError
from outlearn.researcher import Tools, ask
from outlearn.types import Finding, FindingList, Leaderboard, LeaderboardRow, RunList, RunView
from outlearn_agents.reading import MAX_ROWS
from outlearn_agents.run_folder import RunFolder, TeamSpec
from outlearn_agents.team.status import read_status


@dataclass(frozen=True)
class AgentView:
    """An agent and what it is doing."""

    name: str
    direction: str
    doing: str
    state: str

    @property
    def now(self) -> str:
        """What it does, after its state where it is not at work and that does not say so: `finished: done`."""
        says_so = self.state == "running" or self.doing.startswith(self.state)
        return self.doing if says_so else f"{self.state}: {self.doing}"


@dataclass(frozen=True)
class TeamView:
    """A moment of a team's work. Runs are the newest 20, newest first; of the leaderboard there are the best 500, best
    first; findings are oldest first."""

    task: str
    agents: tuple[AgentView, ...]
    runs: tuple[RunView, ...] = ()
    leaderboard: tuple[LeaderboardRow, ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds_left: float = 0.0

    @property
    def has_begun(self) -> bool:
        """Whether a worker has begun with a run, in any session."""
        return any(run.status not in ("queued", "cancelled") for run in self.runs)

    @property
    def workers_start(self) -> bool:
        """Whether a first run waits for workers that are still starting."""
        return not self.has_begun and any(run.status == "queued" for run in self.runs)


class Watcher:
    """Looks at the servers and the agents' status files."""

    def __init__(self, spec: TeamSpec, folder: RunFolder, tools: Tools) -> None:
        self.spec = spec
        self._folder = folder
        self.tools = tools
        self._cursor: str | None = None
        self._findings: dict[str, Finding] = {}

    async def look(self, seconds_left: float) -> TeamView:
        """The state now. A server that does not answer leaves its part empty; known findings stay."""
        return TeamView(
            task=self.spec.task,
            agents=self.agents(),
            runs=await self._runs(),
            leaderboard=await self._leaderboard(),
            findings=await self._feed(),
            seconds_left=seconds_left,
        )

    def agents(self) -> tuple[AgentView, ...]:
        """The agents, from their status files."""
        views = []
        for agent in self.spec.agents:
            status = read_status(self._folder, agent.name)
            views.append(AgentView(agent.name, agent.title, status.doing, status.state))
        return tuple(views)

    async def _runs(self) -> tuple[RunView, ...]:
        try:
            return (await ask(self.tools, RunList, "training", "list_runs", limit=20)).runs
        except (ServerUnreachableError, ToolRefusedError):
            return ()

    async def _leaderboard(self) -> tuple[LeaderboardRow, ...]:
        try:
            board = await ask(self.tools, Leaderboard, "evaluation", "leaderboard", task=self.spec.task, limit=MAX_ROWS)
        except (ServerUnreachableError, ToolRefusedError):
            return ()
        return board.rows

    async def _feed(self) -> tuple[Finding, ...]:
        try:
            page = await ask(self.tools, FindingList, "forum", "list_threads", cursor=self._cursor, limit=20)
        except (ServerUnreachableError, ToolRefusedError):
            return tuple(self._findings.values())
        self._cursor = page.next_cursor
        for finding in sorted(page.findings, key=lambda one: one.posted_at):
            self._findings[finding.finding_id] = finding
        return tuple(self._findings.values())
