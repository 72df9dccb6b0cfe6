"""One agent's process: `python -m outlearn_agents.agent --run FOLDER --agent NAME`, its token in OUTLEARN_TOKEN."""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from outlearn.errors import ConfigError, OutlearnError, leaves
from outlearn.logs import configure_logging
from outlearn.registry import RESEARCHERS, Registry
from outlearn.researcher import Researcher, Session, Stop
from outlearn.settings import ServerSettings
from outlearn.toolbox import open_toolbox
from outlearn_agents.folder import AgentSpec, RunFolder
from outlearn_agents.processes import SERVERS, Ready
from outlearn_agents.status import write_status

WRAP_UP_SECONDS = 30.0


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
    researcher: Researcher = Registry(RESEARCHERS).load(spec.researcher)(spec.options)
    urls = {name: Ready.model_validate(json.loads(folder.ready(name).read_bytes())).url for name in SERVERS}
    stop = Stop(settings.seconds)
    async with open_toolbox(urls, token=settings.token.get_secret_value()) as tools, anyio.create_task_group() as group:
        group.start_soon(_watch_signals, stop, group)
        group.start_soon(_watch_parent, stop)
        group.start_soon(_overstay, settings.seconds, group)
        await researcher.research(
            Session(
                agent=spec.name,
                direction=spec.direction,
                task=folder.read_spec().task,
                tools=tools,
                stop=stop,
                log=structlog.get_logger("outlearn.agent").bind(agent=spec.name),
                folder=folder.agent(spec.name),
                seed=spec.seed,
                on_status=lambda doing: write_status(folder, spec.name, doing),
            )
        )
        group.cancel_scope.cancel()


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


async def _overstay(seconds: float, group: TaskGroup) -> None:
    await anyio.sleep(seconds + WRAP_UP_SECONDS)
    group.cancel_scope.cancel()


def main(argv: list[str] | None = None) -> None:
    """Run one agent; errors that somebody can act on end in the status file and the log."""
    arguments: dict[str, Any] = {"_cli_parse_args": sys.argv[1:] if argv is None else argv}
    settings = AgentSettings(**arguments)
    os.environ.pop("OUTLEARN_TOKEN", None)
    configure_logging(ServerSettings.model_construct(log_format="json", log_level="info"))
    folder = RunFolder(settings.run)
    try:
        anyio.run(work, settings)
    except* OutlearnError as group:
        message = "; ".join(str(error) for error in leaves(group))
        write_status(folder, settings.agent, message, "failed")
        structlog.get_logger("outlearn.agent").error("failed", agent=settings.agent, error=message)
        raise SystemExit(1) from None
    write_status(folder, settings.agent, "finished", "finished")


if __name__ == "__main__":
    main()
