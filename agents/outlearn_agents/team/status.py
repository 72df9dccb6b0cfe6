"""What an agent is doing: a small file that its process replaces and the team runner reads."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from outlearn.files import write_atomic
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.words import failures

State = Literal["running", "waiting", "paused", "finished", "failed"]
"""`waiting`: for an API, or for what others have set aside of a budget."""


class AgentStatus(BaseModel):
    """What an agent is doing, for the team runner to show."""

    model_config = ConfigDict(frozen=True)

    doing: str
    state: State = "running"
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))


def status_file(folder: RunFolder, agent: str) -> Path:
    """Where an agent's status stands."""
    return folder.agent(agent) / "status.json"


def read_status(folder: RunFolder, agent: str) -> AgentStatus:
    """An agent's last status; before its first one, that it is starting."""
    try:
        return AgentStatus.model_validate_json(status_file(folder, agent).read_bytes())
    except FileNotFoundError:
        return AgentStatus(doing="starting")


def write_status(folder: RunFolder, agent: str, doing: str, state: State = "running") -> None:
    """Replace an agent's status."""
    write_atomic(status_file(folder, agent), AgentStatus(doing=doing[:300], state=state).model_dump_json().encode())


def why_all_failed(folder: RunFolder) -> str:
    """What the agents of a folder failed of, where all of them did; else empty."""
    agents = folder.read_spec().agents if folder.spec_file.exists() else ()
    statuses = [read_status(folder, agent.name) for agent in agents]
    return failures(one.doing for one in statuses) if all(one.state == "failed" for one in statuses) else ""
