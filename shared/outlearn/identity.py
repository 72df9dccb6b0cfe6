"""Who is calling: the bearer token (HTTP) or the process environment (stdio) says it, never a tool's argument."""

import hashlib
import secrets
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from outlearn.errors import ConfigError
from outlearn.files import locked, write_atomic

AgentName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Role = Literal["agent", "operator"]


class Caller(BaseModel):
    """An authenticated caller. Operators see every agent's runs and are never charged."""

    model_config = ConfigDict(frozen=True)

    agent: AgentName
    role: Role = "agent"

    @property
    def is_operator(self) -> bool:
        return self.role == "operator"


_CALLERS = TypeAdapter(dict[str, Caller])


class TokenFile:
    """Bearer tokens, hashed at rest: a JSON object from SHA-256 of the token to its caller.

    The file is read again when it changes, so tokens can be added and revoked while servers run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._callers: dict[str, Caller] = {}

    def verify(self, token: str) -> Caller | None:
        """The caller that holds `token`, or None."""
        return self.read().get(_digest(token))

    def issue(self, agent: str, role: Role = "agent") -> str:
        """Make a token for `agent`. It is returned once and cannot be read back.

        Raises:
            ConfigError: `agent` is not a name that an agent can have, or the file is not a token file.
        """
        try:
            caller = Caller(agent=agent, role=role)
        except ValidationError:
            raise ConfigError(f"{agent!r} cannot be an agent's name; use up to 32 of a-z, 0-9, '-' and '_'") from None
        token = f"outlearn_{secrets.token_urlsafe(32)}"
        with locked(self._path):
            known = self.read() if self._path.exists() else {}
            write_atomic(self._path, _CALLERS.dump_json({**known, _digest(token): caller}, indent=1), mode=0o600)
        return token

    def read(self) -> dict[str, Caller]:
        """All callers, by the hash of their token. Raises ConfigError where there is no readable token file."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                self._callers, self._stamp = _CALLERS.validate_json(self._path.read_bytes()), stamp
            return self._callers
        except FileNotFoundError:
            raise ConfigError(f"no token file at {str(self._path)!r}; `outlearn token NAME` makes one") from None
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{str(self._path)!r} is no token file; `outlearn token NAME` makes one") from error


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
