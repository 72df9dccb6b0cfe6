"""The team runner: four servers and N agents as processes, one deadline, one clean end."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from outlearn.errors import NotFoundError
from outlearn.files import write_atomic
from outlearn.identity import TokenFile
from outlearn.registry import RESEARCHERS, Registry
from outlearn.tasks import task_names
from outlearn.toolbox import open_toolbox
from outlearn_agents.folder import OPERATOR, AgentSpec, RunFolder, TeamSpec, agent_name
from outlearn_agents.processes import Child, start_servers, stop_children, wait_ready
from outlearn_agents.report import render_report
from outlearn_agents.status import write_status
from outlearn_agents.summary import Summary, collect
from outlearn_agents.watch import TeamView, Watcher

LOOK_SECONDS = 1.0
GRACE_SECONDS = 35.0
KILL_SECONDS = 0.5
Observe = Callable[[TeamView], None]


@dataclass
class Control:
    """How far the team was asked to stop: once, agents finish what they say; twice, everything ends now."""

    asked: int = 0
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def ask(self) -> None:
        """Ask once more."""
        self.asked += 1
        if self.asked > 1:
            self.scope.cancel()


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
    Registry(RESEARCHERS).load(researcher)(dict(options or {}))
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


async def run_team(
    folder: RunFolder,
    spec: TeamSpec,
    seconds: float,
    observe: Observe,
    server_options: Mapping[str, list[str]] | None = None,
) -> Summary | None:
    """Let a team work in a run folder for `seconds`. In a folder where a team worked before, it goes on.

    Returns:
        The summary, which is written too, or None where somebody asked twice to stop.

    Raises:
        ConflictError: a team is at work in the folder already.
        ServerUnreachableError: a server does not start; its log says why.
    """
    start = time.monotonic()
    control = Control()
    summary: Summary | None = None
    with folder.lock():
        _install(folder.root, spec.task)
        folder.write_spec(spec)
        tokens = _issue_tokens(folder, spec)
        with _signals(control), control.scope:
            async with (
                _servers(folder, server_options or {}) as urls,
                open_toolbox(urls, token=tokens[OPERATOR]) as tools,
                _agents(folder, spec, seconds, tokens) as agents,
            ):
                await _supervise(Watcher(spec, folder, tools), agents, seconds, observe, control)
                summary = await collect(tools, folder, spec, spec.seconds_worked + time.monotonic() - start)
                write_summary(folder, summary)
        folder.write_spec(spec.model_copy(update={"seconds_worked": spec.seconds_worked + time.monotonic() - start}))
    return summary


def write_summary(folder: RunFolder, summary: Summary) -> None:
    """Write `summary.json` and `report.html`."""
    write_atomic(folder.summary, summary.model_dump_json(indent=1).encode())
    write_atomic(folder.report, render_report(summary).encode())


async def _supervise(watcher: Watcher, agents: list[Child], seconds: float, observe: Observe, control: Control) -> None:
    """Watch the agents until the last one has left; those that overstay are ended."""
    deadline = time.monotonic() + seconds
    told = False
    while any(agent.code is None for agent in agents):
        left = deadline - time.monotonic()
        if control.asked and not told:
            told, deadline = True, min(deadline, time.monotonic())
            for agent in agents:
                agent.terminate()
        if left < -GRACE_SECONDS:
            await stop_children(agents, KILL_SECONDS)
        watcher.note_deaths(agents)
        observe(await watcher.look(max(0.0, left)))
        await anyio.sleep(LOOK_SECONDS)
    watcher.note_deaths(agents)
    observe(await watcher.look(0.0))


def _install(home: Path, task: str) -> None:
    """Put the task into the folder, unless it is there."""
    from outlearn_training.prepare import prepare

    if task not in task_names(home):
        try:
            prepare(home, task)
        except NotFoundError as error:
            raise NotFoundError(f"{error}; `outlearn calibrate {task} --home {home}` makes a task") from error


def _issue_tokens(folder: RunFolder, spec: TeamSpec) -> dict[str, str]:
    """Fresh tokens, by name; those of earlier sessions end."""
    folder.tokens.unlink(missing_ok=True)
    file = TokenFile(folder.tokens)
    return {OPERATOR: file.issue(OPERATOR, "operator")} | {agent.name: file.issue(agent.name) for agent in spec.agents}


@asynccontextmanager
async def _servers(folder: RunFolder, options: Mapping[str, list[str]]) -> AsyncIterator[dict[str, str]]:
    children = start_servers(folder, options)
    try:
        yield await wait_ready(folder, children)
    finally:
        with anyio.CancelScope(shield=True):
            await stop_children(children)


@asynccontextmanager
async def _agents(
    folder: RunFolder, spec: TeamSpec, seconds: float, tokens: Mapping[str, str]
) -> AsyncIterator[list[Child]]:
    children = [_start_agent(folder, agent.name, seconds, tokens[agent.name]) for agent in spec.agents]
    try:
        yield children
    finally:
        with anyio.CancelScope(shield=True):
            await stop_children(children, KILL_SECONDS)


def _start_agent(folder: RunFolder, name: str, seconds: float, token: str) -> Child:
    write_status(folder, name, "starting")
    argv = [sys.executable, "-m", "outlearn_agents.agent"]
    argv += ["--run", str(folder.root), "--agent", name, "--seconds", str(seconds)]
    return Child(f"agent-{name}", argv, folder.log(f"agent-{name}"), {**os.environ, "OUTLEARN_TOKEN": token})


@contextmanager
def _signals(control: Control) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, control.ask)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
