"""Settings that all servers share: read once in `main()` from the command line and `OUTLEARN_*`, then passed down."""

import re
import secrets
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from outlearn.files import create_once, private_folder
from outlearn.identity import AgentName, Role


class ServerSettings(BaseSettings):
    """A server's settings. Each field is a command-line option and an environment variable `OUTLEARN_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="OUTLEARN_",
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
    )

    home: Path = Field(
        default=Path("runs/default"),
        description="Folder with the tasks, the vault and all state; or set OUTLEARN_HOME: each option has a variable.",
    )
    transport: Literal["stdio", "http"] = Field(default="stdio", description="stdio for one client, http for many.")
    host: str = Field(default="127.0.0.1", description="Address that the HTTP transport listens on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port of the HTTP transport; 0 picks a free one.")
    agent: AgentName = Field(default="local", description="Who the caller is where no bearer token says so.")
    role: Role = Field(default="agent", description="What that caller may do; an operator sees every agent's runs.")
    tokens: Path | None = Field(
        default=None,
        description="File of bearer tokens, which HTTP calls need; default: tokens.json in the home folder.",
    )
    unsafe_no_tokens: bool = Field(
        default=False, description="Over HTTP, let everybody on this machine in as --agent, without a token."
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; default: a SQLite file in the home folder."
    )
    database_schema: str | None = Field(
        default=None,
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="PostgreSQL schema of this home's tables; default: the one named in database-schema, a file in "
        "the home folder.",
    )
    ready_file: Path | None = Field(default=None, description="Where to write {url, pid} once the HTTP port is known.")
    log_format: Literal["auto", "json", "console"] = Field(default="auto", description="auto: console on a terminal.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _needs_tokens(self) -> Self:
        if not self.unsafe_no_tokens:
            return self
        if self.tokens or self.role == "operator" or not is_loopback(self.host):
            raise ValueError(
                f"--unsafe-no-tokens is for agents on loopback, with no --tokens; not for {self.role} on {self.host!r}"
            )
        return self

    @property
    def token_file(self) -> Path | None:
        """Bearer tokens that callers need; None over stdio, and where everybody on this machine is let in."""
        if self.tokens or self.transport == "stdio":
            return self.tokens
        return None if self.unsafe_no_tokens else self.home / "tokens.json"

    @property
    def data(self) -> Path:
        """Public files: what agents may see."""
        return self.home / "data"

    @property
    def vault(self) -> Path:
        """Ground truth, baselines, keys and receipts: read by the evaluation server and the trusted predictor only."""
        return self.home / "vault"

    @property
    def workspaces(self) -> Path:
        """One folder for each agent."""
        return self.home / "workspaces"

    def database(self, service: str) -> str:
        """The database URL for `service`, as `outlearn.database.open_database` takes it.

        Makes the home folder where there is none, and closes it to others. On PostgreSQL each home has tables of its
        own, in a schema whose name it keeps.
        """
        from outlearn.database import sqlite_url, with_schema  # which reads the log's settings

        private_folder(self.home)
        if not self.database_url:
            return sqlite_url((self.home / f"{service}.sqlite").resolve())
        if not self.database_url.startswith("postgresql"):
            return self.database_url
        return with_schema(self.database_url, self.database_schema or self._own_schema())

    def _own_schema(self) -> str:
        """Kept in a file and not derived from the path: a folder that is moved keeps its tables."""
        name = re.sub("[^a-z0-9]+", "_", self.home.resolve().name.lower()).strip("_")[:32]
        drawn = f"outlearn_{name or 'home'}_{secrets.token_hex(4)}"
        return create_once(self.home / "database-schema", drawn.encode()).decode().strip()


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether `host` stands for all addresses of this machine."""
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
