"""A run folder: the home of the tool servers, and what the team runner keeps beside it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import ConfigError, IntegrityError, NotFoundError
from outlearn.files import write_atomic
from outlearn.hints import command_line, problems
from outlearn.identity import AgentName
from outlearn.locks import holder, holding

NAMES = ("ada", "boole", "curie", "dirac", "emmy", "fisher", "gauss", "hopper", "ising", "jeans", "kepler", "lovasz")
MAX_AGENTS = 64


class AgentSpec(BaseModel):
    """One member of a team."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AgentName
    researcher: str = Field(
        "offline", description="A name in the entry-point group outlearn.researchers; empty: a client without a team."
    )
    direction: str = Field(description="The text that the agent starts from; empty for a client without a team.")
    seed: int = 0
    options: dict[str, str] = Field(default_factory=dict, description="Options of the researcher, such as model.")

    @property
    def title(self) -> str:
        """The first line of its direction."""
        return self.direction.strip().partition("\n")[0].strip("# ")


class TeamSpec(BaseModel):
    """A team and its task, as `team.json` keeps them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    agents: tuple[AgentSpec, ...]
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    plugin_servers: tuple[str, ...] = Field((), description="Other packages' servers in the present or last session.")
    seconds_worked: float = Field(0.0, description="Wall time of the sessions so far.")
    server_options: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Command-line options of the tool servers, by server."
    )

    def with_member(self, agent: AgentSpec) -> "TeamSpec":
        """The team with one more agent."""
        return self.model_copy(update={"agents": (*self.agents, agent)})

    def with_server_options(self, server: str, options: Sequence[str]) -> "TeamSpec":
        """The team with options of a tool server, such as ["--workers", "2"], in place of the same ones."""
        pairs: dict[str, str] = {}
        for given in (self.server_options.get(server, ()), options):
            pairs |= dict(zip(given[::2], given[1::2], strict=True))
        flat = tuple(part for pair in pairs.items() for part in pair)
        return self.model_copy(update={"server_options": {**self.server_options, server: flat}})


class RunnerSettings(BaseModel):
    """How the team runner treats its processes."""

    model_config = ConfigDict(frozen=True)

    restarts: int = Field(10, ge=0, description="Deaths of an agent or a server in an hour that are made good.")
    stagger_seconds: float = Field(0.5, ge=0, description="Seconds between the starts of two agents.")
    warm_up_seconds: float = Field(
        0.0,
        ge=0,
        description="Most time for which the session's stands still until a worker has begun with a first run.",
    )


class SessionFile(BaseModel):
    """What a team runner says of itself, for `outlearn team status`."""

    model_config = ConfigDict(frozen=True)

    started_at: datetime
    ends_at: datetime = Field(description="As it looked at `paused_at`, where the team is paused.")
    paused_at: datetime | None = Field(None, description="A moment of the team's pause; None where it is at work.")
    restarts: dict[str, int] = Field(default_factory=dict, description="By agent or server.")

    @property
    def seconds_left(self) -> float:
        """Seconds until the session's end, which stand still while the whole team is paused."""
        return max(0.0, (self.ends_at - (self.paused_at or datetime.now(UTC))).total_seconds())


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
    def control(self) -> Path:
        """What the operator asks of a team at work."""
        return self.root / "control.json"

    @property
    def session(self) -> Path:
        """What the team runner says of itself."""
        return self.root / "session.json"

    @property
    def spending(self) -> Path:
        """The ledger of what the team spends, and its budget."""
        return self.root / "agents" / "spending.sqlite"

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

    def held(self, name: str) -> Path:
        """The lock that the process of a server or agent holds; `agent-NAME` for an agent."""
        return self.root / "processes" / f"{name}.lock"

    def agent(self, name: str) -> Path:
        """An agent's private folder, which is not its workspace."""
        return self.root / "agents" / name

    def read_spec(self) -> TeamSpec:
        """The team of this folder.

        Raises:
            NotFoundError: no team ever worked here; of a plain home, the message says what works there.
            IntegrityError: `team.json` is damaged.
        """
        try:
            return TeamSpec.model_validate_json(self.spec_file.read_bytes())
        except FileNotFoundError:
            without = "; `report`, `team status`, `audit`, `review` and `finalize` work without one"
            raise NotFoundError(
                f"{str(self.root)!r} is not a run folder: it has no team.json; `outlearn team` makes one"
                + (without if self.is_plain_home else "")
            ) from None
        except ValidationError as error:
            raise IntegrityError(f"{str(self.spec_file)!r} is damaged: {problems(error)}") from error

    def write_spec(self, spec: TeamSpec) -> None:
        """Keep the team."""
        write_atomic(self.spec_file, spec.model_dump_json(indent=1).encode())

    def read_session(self) -> SessionFile | None:
        """What the last team runner said of itself, or None where none did."""
        try:
            return SessionFile.model_validate_json(self.session.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @property
    def is_plain_home(self) -> bool:
        """Whether this is a home folder of tool servers in which no team ever worked."""
        return not self.spec_file.exists() and (self.root / "vault").is_dir()

    @property
    def is_at_work(self) -> bool:
        """Whether a team runner is at work in this folder."""
        return self._holder("team.lock") is not None and not self.is_final_at_work

    @property
    def is_final_at_work(self) -> bool:
        """Whether a final is held in this folder at present."""
        return self._holder("final.lock") is not None

    def _holder(self, lock: str) -> int | None:
        return holder(self.root / lock) if self.root.is_dir() else None

    @contextmanager
    def lock_for_final(self) -> Iterator[None]:
        """As `lock`, and let everybody see that it is for a final."""
        with self.lock(), holding(self.root / "final.lock"):
            yield

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only team runner, or the only final, in this folder.

        Raises:
            ConflictError: another one is at work; the message says which, and how to stop it.
            ConfigError: the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {str(self.root)!r}: {error.strerror}") from error
        with holding(self.root / "team.lock", self._who_is_at_work()):
            yield

    def _who_is_at_work(self) -> str:
        number = self._holder("final.lock")
        if number is None:
            stop = command_line("outlearn", "team", "stop", self.root)
            return f"a team is at work in {str(self.root)!r}; wait for it, or stop it: `{stop}`"
        again = command_line("outlearn", "finalize", self.root)
        return (
            f"a final is at work in {str(self.root)!r}; wait for it, or stop it: `kill -INT {number}` "
            f"(`{again}` goes on with it)"
        )


def next_folder(parent: Path, stem: str) -> Path:
    """Make the first of `stem`, `stem-2`, `stem-3` ... that does not exist in `parent`: nobody else gets it then."""
    number = 1
    while True:
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return path


def agent_name(index: int) -> str:
    """The name of the team's agent number `index`, from 0: ada, boole, ... then ada2, boole2, ..."""
    turn, place = divmod(index, len(NAMES))
    return NAMES[place] if turn == 0 else f"{NAMES[place]}{turn + 1}"
