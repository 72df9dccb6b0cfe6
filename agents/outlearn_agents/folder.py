"""A run folder: the home of the tool servers, and what the team runner keeps beside it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import ConfigError, ConflictError, IntegrityError, NotFoundError
from outlearn.files import write_atomic
from outlearn.identity import AgentName

NAMES = ("ada", "boole", "curie", "dirac", "emmy", "fisher", "gauss", "hopper", "ising", "jeans", "kepler", "lovasz")
MAX_AGENTS = 64
OPERATOR = "operator"


class AgentSpec(BaseModel):
    """One member of a team."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AgentName
    researcher: str = Field("offline", description="A name in the entry-point group outlearn.researchers.")
    direction: str = Field(description="The text that the agent starts from.")
    seed: int = 0
    options: dict[str, str] = Field(default_factory=dict, description="Options of the researcher, such as model.")


class TeamSpec(BaseModel):
    """A team and its task, as `team.json` keeps them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    agents: tuple[AgentSpec, ...]
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    seconds_worked: float = Field(0.0, description="Wall time of the finished sessions so far.")


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def spec_file(self) -> Path:
        return self.root / "team.json"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.json"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    def ready(self, server: str) -> Path:
        """Where a server writes its address."""
        return self.root / "servers" / f"{server}.json"

    def log(self, name: str) -> Path:
        """The log of a server or agent."""
        return self.root / "logs" / f"{name}.log"

    def agent(self, name: str) -> Path:
        """An agent's private folder, which is not its workspace."""
        return self.root / "agents" / name

    def read_spec(self) -> TeamSpec:
        """The team of this folder.

        Raises:
            NotFoundError: no team ever worked here.
            IntegrityError: `team.json` is damaged.
        """
        try:
            return TeamSpec.model_validate_json(self.spec_file.read_bytes())
        except FileNotFoundError:
            raise NotFoundError(
                f"{str(self.root)!r} is not a run folder: it has no team.json; `outlearn team` makes one"
            ) from None
        except ValidationError as error:
            raise IntegrityError(f"{str(self.spec_file)!r} is damaged: {error}") from error

    def write_spec(self, spec: TeamSpec) -> None:
        """Keep the team."""
        write_atomic(self.spec_file, spec.model_dump_json(indent=1).encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only team runner in this folder.

        Raises:
            ConflictError: another one is at work.
            ConfigError: the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {str(self.root)!r}: {error.strerror}") from error
        with (self.root / "team.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"a team is at work in {str(self.root)!r}; wait for it or stop it") from None
            yield


def next_folder(parent: Path, stem: str) -> Path:
    """The first of `stem`, `stem-2`, `stem-3` ... that does not exist in `parent`."""
    number = 1
    while (path := parent / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return path


def agent_name(index: int) -> str:
    """The name of the team's agent number `index`, from 0: ada, boole, ... then ada2, boole2, ..."""
    turn, place = divmod(index, len(NAMES))
    return NAMES[place] if turn == 0 else f"{NAMES[place]}{turn + 1}"
