"""What the operator asks of a team at work: a small private file that commands change and the runner and agents read.

It says how things are to be, not what happened, so nothing is lost where the runner is killed in between.
"""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, ValidationError

from outlearn.errors import IntegrityError
from outlearn.files import write_atomic
from outlearn.hints import problems
from outlearn.identity import AgentName
from outlearn.locks import locked
from outlearn_agents.run_folder import AgentSpec, RunFolder


class Control(BaseModel):
    """How the team is to be."""

    model_config = ConfigDict(frozen=True)

    stop: bool = False
    paused: frozenset[AgentName] = frozenset()
    stopped: frozenset[AgentName] = frozenset()
    added: tuple[AgentSpec, ...] = ()


def read_control(folder: RunFolder) -> Control:
    """What was asked for; nothing where no command was given. Raises IntegrityError where the file is damaged."""
    try:
        return Control.model_validate_json(folder.control.read_bytes())
    except FileNotFoundError:
        return Control()
    except ValidationError as error:
        raise IntegrityError(f"{str(folder.control)!r} is damaged; remove it: {problems(error)}") from error


def change_control(folder: RunFolder, change: Callable[[Control], Control]) -> Control:
    """Change what is asked for. Of several commands at the same time none is lost."""
    with locked(folder.control):
        changed = change(read_control(folder))
        write_atomic(folder.control, changed.model_dump_json(indent=1).encode(), mode=0o600)
    return changed
