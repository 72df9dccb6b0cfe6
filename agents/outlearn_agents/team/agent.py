"""One agent's process: `python -m outlearn_agents.team.agent --run FOLDER --agent NAME`, with OUTLEARN_TOKEN set."""

import os
import signal
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from outlearn.errors import BudgetError, ConfigError, OutlearnError, PluginError, leaves
from outlearn.locks import holding
from outlearn.logs import configure_logging
from outlearn.researcher import Session, Stop, Tools, make_researcher
from outlearn.settings import ServerSettings
from outlearn.toolbox import open_toolbox, url_in
from outlearn_agents.run_folder import AgentSpec, RunFolder
from outlearn_agents.spending.ledger import Ledger
from outlearn_agents.spending.shift import Shift
from outlearn_agents.team.agents import CANNOT_WORK
from outlearn_agents.team.pausing import Gate, GatedTools
from outlearn_agents.team.processes import SERVERS
from outlearn_agents.team.status import read_status, write_status

WRAP_UP_SECONDS = 30.0
KEEP_SECONDS = 0.5


class AgentSettings(BaseSettings):
    """What the team runner tells an agent's process."""

    model_config = SettingsConfigDict(env_prefix="OUTLEARN_", frozen=True, extra="ignore", cli_kebab_case=True)

    run: Path = Field(description="The run folder.")
    agent: str = Field(description="Which of the team's agents this is.")
    seconds: float = Field(gt=0, description="How long to work.")
    token: SecretStr = Field(description="Bearer token for the tool servers.")


async def work(settings: AgentSettings) -> None:
    """Run the agent's researcher until it returns, is told to stop, or overstays."""
    folder = RunFolder(settings.run)
    spec = find_agent(folder, settings.agent)
    researcher = make_researcher(spec.researcher, spec.options)
    stop = Stop(settings.seconds)
    urls = {name: url_in(folder.ready(name)) for name in (*SERVERS, *folder.read_spec().plugin_servers)}
    with closing(Ledger(folder.spending)) as ledger:
        async with (
            open_toolbox(urls, token=settings.token.get_secret_value()) as tools,
            anyio.create_task_group() as group,
        ):
            group.start_soon(_watch_signals, stop, group)
            group.start_soon(_watch_parent, stop)
            group.start_soon(_keep_time, folder, stop, group)
            shift = Shift(ledger, spec.name)
            group.start_soon(shift.keep, stop)
            gate = Gate(folder, spec.name, stop, shift.rest)
            await gate.wait("it began")
            await researcher.research(make_session(folder, spec, GatedTools(tools, gate), stop, gate))
            group.cancel_scope.cancel()


def make_session(folder: RunFolder, spec: AgentSpec, tools: Tools, stop: Stop, gate: Gate) -> Session:
    """The session of an agent at work in a run folder."""
    return Session(
        agent=spec.name,
        direction=spec.direction,
        task=folder.read_spec().task,
        tools=tools,
        stop=stop,
        log=structlog.get_logger("outlearn.agent").bind(agent=spec.name),
        folder=folder.agent(spec.name),
        seed=spec.seed,
        spending=folder.spending,
        on_status=lambda doing: write_status(folder, spec.name, doing),
        on_wait=lambda why: write_status(folder, spec.name, why, "waiting"),
        until_resumed=lambda: gate.wait("its next model call"),
    )


def find_agent(folder: RunFolder, name: str) -> AgentSpec:
    """The agent of this name. Raises ConfigError."""
    spec = folder.read_spec()
    for agent in spec.agents:
        if agent.name == name:
            return agent
    known = ", ".join(agent.name for agent in spec.agents)
    raise ConfigError(f"no agent {name!r} in {str(folder.root)!r}; there are: {known}")


async def _watch_signals(stop: Stop, group: TaskGroup) -> None:
    """The first signal asks to stop, the second one ends the work."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if stop.asked:
                group.cancel_scope.cancel()
            stop.ask()


async def _watch_parent(stop: Stop) -> None:
    """Stop when the team runner is gone: its end of our stdin closes with it."""
    with suppress(OSError, ValueError):
        await anyio.wait_readable(sys.stdin.fileno())
        stop.ask()


async def _keep_time(folder: RunFolder, stop: Stop, group: TaskGroup) -> None:
    """Stand still while the whole team is paused, and end the work of who overstays."""
    countdown = stop.countdown
    while countdown.left > -WRAP_UP_SECONDS:
        session = folder.read_session()
        is_paused = session is not None and session.paused_at is not None
        if is_paused and not countdown.is_paused:
            countdown.pause()
        elif not is_paused:
            countdown.go_on()
        await anyio.sleep(KEEP_SECONDS)
    group.cancel_scope.cancel()


def main(argv: list[str] | None = None) -> None:
    """Run one agent; errors that somebody can act on end in the status file and the log.

    It exits with `CANNOT_WORK` where the same would happen again.
    """
    arguments: dict[str, Any] = {"_cli_parse_args": sys.argv[1:] if argv is None else argv}
    settings = AgentSettings(**arguments)
    os.environ.pop("OUTLEARN_TOKEN", None)
    configure_logging(ServerSettings.model_construct(log_format="json", log_level="info"))
    folder = RunFolder(settings.run)
    try:
        with holding(folder.held(f"agent-{settings.agent}")):
            anyio.run(work, settings)
    except* OutlearnError as group:
        causes = list(leaves(group))
        message = "; ".join(str(error) for error in causes)
        write_status(folder, settings.agent, message, "failed")
        structlog.get_logger("outlearn.agent").error("failed", agent=settings.agent, error=message)
        hopeless = any(isinstance(error, BudgetError | ConfigError | PluginError) for error in causes)
        raise SystemExit(CANNOT_WORK if hopeless else 1) from None
    write_status(folder, settings.agent, read_status(folder, settings.agent).doing, "finished")


if __name__ == "__main__":
    main()
