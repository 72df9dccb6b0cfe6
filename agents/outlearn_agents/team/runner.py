"""The team runner: the servers and N agents as processes, one deadline, one clean end."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio

from outlearn.countdown import Countdown
from outlearn.errors import ConflictError
from outlearn.identity import OPERATOR, TokenFile
from outlearn.researcher import make_researcher
from outlearn.tasks import task_names
from outlearn.toolbox import open_toolbox, url_in
from outlearn_agents.directions import choose_directions, read_direction
from outlearn_agents.report.at_rest import collect_at_rest
from outlearn_agents.report.page import write_summary
from outlearn_agents.report.summary import Summary
from outlearn_agents.run_folder import MAX_AGENTS, AgentSpec, RunFolder, RunnerSettings, TeamSpec, agent_name
from outlearn_agents.spending.budgets import write_budget
from outlearn_agents.spending.ledger import Budget
from outlearn_agents.tasks import find_task
from outlearn_agents.team.agents import AgentProcesses
from outlearn_agents.team.control import Control, change_control
from outlearn_agents.team.processes import SERVERS, end_orphans, plugin_servers
from outlearn_agents.team.servers import ServerProcesses
from outlearn_agents.team.session import Observe, Stops, TeamSession
from outlearn_agents.team.watch import Watcher


def make_team(
    task: str,
    directions: list[str],
    researcher: str = "offline",
    seed: int = 0,
    options: Mapping[str, str] | None = None,
) -> TeamSpec:
    """A team with one agent for each direction.

    Raises:
        PluginError: there is no such researcher.
        ConfigError: it refuses its options, or lacks a key.
    """
    make_researcher(researcher, options or {})
    agents = tuple(
        AgentSpec(
            name=agent_name(index),
            researcher=researcher,
            direction=text,
            seed=seed + index,
            options=dict(options or {}),
        )
        for index, text in enumerate(directions)
    )
    return TeamSpec(task=task, agents=agents)


def ask_for_member(
    folder: RunFolder,
    direction: str | None = None,
    researcher: str | None = None,
    options: Mapping[str, str] | None = None,
    seed: int | None = None,
) -> AgentSpec:
    """Ask for one more agent: the running team runner takes it in, or the next one. What is left out is as the first
    agent's, but for the direction, which is the next one.

    Raises:
        PluginError, ConfigError: as `make_team`.
        NotFoundError: no such direction.
    """
    first = folder.read_spec().agents[0]
    kind = researcher or first.researcher
    given = dict(options if options is not None else first.options if kind == first.researcher else {})
    make_researcher(kind, given)
    made: list[AgentSpec] = []

    def change(now: Control) -> Control:
        # read only now: an agent that has just left the list of those who wait is in team.json
        team = {agent.name for agent in (*folder.read_spec().agents, *now.added)}
        place = len(team)
        text = read_direction(direction) if direction else choose_directions([], place + 1)[-1]
        one = AgentSpec(
            name=next(name for name in map(agent_name, range(place, place + MAX_AGENTS)) if name not in team),
            researcher=kind,
            direction=text,
            seed=first.seed + place if seed is None else seed,
            options=given,
        )
        made[:] = [one]
        return now.model_copy(update={"added": (*now.added, one)})

    change_control(folder, change)
    return made[0]


async def run_team(
    folder: RunFolder,
    spec: TeamSpec,
    seconds: float,
    observe: Observe,
    settings: RunnerSettings | None = None,
    budget: Budget | None = None,
) -> Summary | None:
    """Let a team work in a run folder for `seconds`. In a folder where a team worked before, it goes on.

    What a killed team runner left running is ended first, and so are its tokens, but none that `outlearn token` made;
    everybody starts at work, whatever was asked for before.
    Without a `budget`, an earlier session's holds.

    Returns:
        The summary, which is written too, or None where somebody asked twice to stop.

    Raises:
        ConflictError: a team is at work in the folder already, or its final has begun.
        NotFoundError: there is no such task.
        PluginError: another package's tool server has an impossible name.
        ServerUnreachableError: a server does not start, or dies again and again; its log says why.
    """
    settings = settings or RunnerSettings()
    stops = Stops()
    summary: Summary | None = None
    _check_task(folder.root, spec.task)
    plugins = plugin_servers()
    with folder.lock():
        folder.session.unlink(missing_ok=True)
        end_orphans(folder)
        _install(folder.root, spec.task)
        change_control(folder, lambda asked: Control(added=asked.added))
        if budget is not None:
            spec = set_budget(folder, spec, budget)
        spec = spec.model_copy(update={"plugin_servers": plugins})
        folder.write_spec(spec)
        tokens = issue_tokens(folder, spec)
        urls = {name: url_in(folder.ready(name)) for name in (*SERVERS, *plugins)}
        with _signals(stops), stops.scope:
            async with (
                _servers(folder, spec, settings) as servers,
                open_toolbox(urls, token=tokens[OPERATOR.agent]) as tools,
                _crew(folder, settings, seconds) as crew,
            ):
                for place, agent in enumerate(spec.agents):
                    crew.add(agent.name, tokens[agent.name], place * settings.stagger_seconds)
                session = TeamSession(folder, spec, servers, crew, Watcher(spec, folder, tools), stops, settings)
                await session.work(observe)
            # only now do the runs that workers were at have an end, or are queued again
            summary = await collect_at_rest(folder, session.spec)
            write_summary(folder, summary)
    return summary


def set_budget(folder: RunFolder, spec: TeamSpec, budget: Budget) -> TeamSpec:
    """Put a budget into the ledger; returns the team with the options by which the servers enforce their part."""
    write_budget(folder, budget)
    for server, options in budget.server_options().items():
        spec = spec.with_server_options(server, options)
    return spec


def _check_task(home: Path, task: str) -> None:
    """Raises where nobody can work on the task in this folder, before anything is made there."""
    from outlearn_training.testbed import TESTBEDS

    find_task(home, task, TESTBEDS)
    if (home / "vault" / task / "final-seeds.json").exists():
        raise ConflictError(f"the final of task {task!r} has begun in {str(home)!r}; let a team work in another folder")


def _install(home: Path, task: str) -> None:
    """Put the task into the folder, unless it is there."""
    from outlearn_training.prepare import prepare

    if task not in task_names(home):
        prepare(home, task)


def issue_tokens(folder: RunFolder, spec: TeamSpec) -> dict[str, str]:
    """Fresh tokens, by name. Those of earlier sessions end; those that `outlearn token` made go on.

    Raises:
        ConflictError: one of the names has the other role by a token that was made by hand.
        ConfigError: the file is no token file.
    """
    file = TokenFile(folder.tokens)
    file.end_session()
    operator = {OPERATOR.agent: file.issue(OPERATOR.agent, OPERATOR.role, issuer="team")}
    return operator | {agent.name: file.issue(agent.name, issuer="team") for agent in spec.agents}


@asynccontextmanager
async def _servers(folder: RunFolder, spec: TeamSpec, settings: RunnerSettings) -> AsyncIterator[ServerProcesses]:
    keeper = ServerProcesses(folder, spec.server_options, settings.restarts, (*SERVERS, *spec.plugin_servers))
    try:
        await keeper.start()
        yield keeper
    finally:
        with anyio.CancelScope(shield=True):
            await keeper.end()


@asynccontextmanager
async def _crew(folder: RunFolder, settings: RunnerSettings, seconds: float) -> AsyncIterator[AgentProcesses]:
    crew = AgentProcesses(folder, settings, Countdown(seconds))
    try:
        yield crew
    finally:
        with anyio.CancelScope(shield=True):
            await crew.end()


@contextmanager
def _signals(stops: Stops) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stops.ask)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
