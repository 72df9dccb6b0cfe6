"""Who is calling: the bearer token (HTTP) or the process environment (stdio) says it, never a tool's argument."""

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from outlearn.errors import ConfigError, ConflictError, NotFoundError
from outlearn.files import FileVersion, file_version, write_atomic
from outlearn.hints import command_line
from outlearn.locks import locked

AgentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Role = Literal["agent", "operator"]
GRACE = timedelta(seconds=60)


class Caller(BaseModel):
    """An authenticated caller. Operators see every agent's runs and are never charged."""

    model_config = ConfigDict(frozen=True)

    agent: AgentName
    role: Role = "agent"

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


OPERATOR = Caller(agent="operator", role="operator")
"""Who asks where the operator's own commands do."""


class Grant(Caller):
    """What a token stands for."""

    created_at: AwareDatetime
    issuer: Literal["team"] | None = None
    rotated_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None

    @cached_property
    def caller(self) -> Caller:
        return Caller(agent=self.agent, role=self.role)

    def holds(self, now: datetime) -> bool:
        """Whether the token is good at `now`."""
        return self.expires_at is None or now < self.expires_at

    @property
    def issued_at(self) -> datetime:
        return self.rotated_at or self.created_at

    def ending(self, moment: datetime) -> "Grant":
        """This grant, good until `moment` at most."""
        return self.model_copy(update={"expires_at": min(moment, self.expires_at or moment)})

    def renewed(self, now: datetime) -> "Grant":
        """A grant from `now` on, by the operator, that lasts as long as this one did."""
        ends = now + (self.expires_at - self.issued_at) if self.expires_at else None
        return self.model_copy(update={"rotated_at": now, "expires_at": ends, "issuer": None})


Grants = dict[str, Grant]
_GRANTS = TypeAdapter(Grants)


class TokenFile:
    """Bearer tokens, hashed at rest: a JSON object from SHA-256 of the token to what it stands for.

    The file is read again when it changes, so what is issued, rotated and revoked holds in running servers at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: FileVersion | None = None
        self._grants: Grants = {}

    def verify(self, token: str) -> Caller | None:
        """The caller that holds `token`, or None."""
        # looked up by digest: what the time of the search tells about a digest does not lead back to 256 random bits
        grant = self.read().get(_digest(token))
        return grant.caller if grant and grant.holds(datetime.now(UTC)) else None

    def issue(
        self,
        agent: str,
        role: Role = "agent",
        lifetime: timedelta | None = None,
        issuer: Literal["team"] | None = None,
    ) -> str:
        """Make a token for `agent`. It is returned once and cannot be read back. Earlier tokens stay as they are.

        `issuer` says that a team runner made it, for a session.

        Raises:
            ConfigError: `agent` is not a name that an agent can have, or the file is not a token file.
            ConflictError: the name has the other role.
        """
        now = datetime.now(UTC)
        try:
            ends = now + lifetime if lifetime else None
            grant = Grant(agent=agent, role=role, created_at=now, issuer=issuer, expires_at=ends)
        except ValidationError:
            raise ConfigError(f"{agent!r} cannot be an agent's name; use up to 32 of a-z, 0-9, '-' and '_'") from None
        token = _new_token()
        with self._changing() as grants:
            if any(one.agent == agent and one.role != role for one in grants.values()):
                raise ConflictError(
                    f"{agent!r} has another role than {role!r}; choose another name, or revoke it first"
                )
            grants[_digest(token)] = grant
        return token

    def rotate(self, agent: str, grace: timedelta = GRACE) -> str:
        """Make a token in place of all that `agent` has; those end after `grace`.

        Raises:
            NotFoundError: `agent` has no token.
        """
        now, token = datetime.now(UTC), _new_token()
        with self._changing() as grants:
            own = self._of(agent, grants)
            grants |= {digest: grant.ending(now + grace) for digest, grant in own.items()}
            grants[_digest(token)] = max(own.values(), key=lambda grant: grant.issued_at).renewed(now)
        return token

    def revoke(self, agent: str) -> int:
        """End all tokens of `agent` now; returns how many.

        Raises:
            NotFoundError: `agent` has no token.
        """
        with self._changing() as grants:
            own = self._of(agent, grants)
            for digest in own:
                del grants[digest]
        return len(own)

    def end_session(self) -> None:
        """End all tokens that team runners issued; those that were made by hand go on."""
        with self._changing() as grants:
            for digest in [digest for digest, grant in grants.items() if grant.issuer == "team"]:
                del grants[digest]

    def grants(self) -> list[Grant]:
        """What the tokens that are good today stand for, by agent and age."""
        now = datetime.now(UTC)
        return sorted(
            (one for one in self.read().values() if one.holds(now)), key=lambda one: (one.agent, one.issued_at)
        )

    def read(self) -> Grants:
        """All grants, by the hash of their token. Raises ConfigError where there is no readable token file."""
        try:
            version = file_version(self.path)
            if version is None or version != self._version:
                self._grants, self._version = _GRANTS.validate_json(self.path.read_bytes()), version
            return self._grants
        except FileNotFoundError:
            make = command_line("outlearn", "token", "NAME", "--tokens", self.path)
            raise ConfigError(f"no token file at {str(self.path)!r}; `{make}` makes one") from None
        except OSError as error:
            raise ConfigError(f"the token file {str(self.path)!r} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise ConfigError(
                f"{str(self.path)!r} is no token file; put it away, and `outlearn token NAME` makes one"
            ) from error

    def _of(self, agent: str, grants: Grants) -> Grants:
        own = {digest: grant for digest, grant in grants.items() if grant.agent == agent}
        if not own:
            known = ", ".join(sorted({grant.agent for grant in grants.values()})) or "nobody"
            raise NotFoundError(f"{agent!r} has no token in {str(self.path)!r}; these have: {known}")
        return own

    @contextmanager
    def _changing(self) -> Iterator[Grants]:
        """The grants, to change in place; tokens that have ended are left out of the file."""
        with locked(self.path):
            now = datetime.now(UTC)
            known = self.read() if self.path.exists() else {}
            grants = {digest: grant for digest, grant in known.items() if grant.holds(now)}
            yield grants
            write_atomic(self.path, _GRANTS.dump_json(grants, indent=1, exclude_none=True), mode=0o600)


def _new_token() -> str:
    return f"outlearn_{secrets.token_urlsafe(32)}"


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
