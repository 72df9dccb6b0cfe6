"""What is drawn once when a task is written: the noise of answers about it, and the nonce of the commitment to it.

The nonce is also the key of the noise that each run has of its own.
"""

import secrets
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import IntegrityError
from outlearn.files import create_once
from outlearn.hints import problems

NONCE_BYTES = 32
DITHER = 0.93


class Seal(BaseModel):
    """Drawn for one version of a task, kept in the vault."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    nonce: str = Field(pattern=rf"^[0-9a-f]{{{2 * NONCE_BYTES}}}$")
    noise: tuple[float, ...] = Field(description="g ~ N(0, 1), one for each item of the public half.")
    dither: float = Field(
        DITHER, ge=0, description="Standard deviation, for each item, of the noise that a run has of its own."
    )


def seal_path(vault: Path, fingerprint: str) -> Path:
    """Where the seal of this version of a task is; `vault` is the task's own part of it."""
    return vault / f"seal-{fingerprint[:16]}.json"


def seal_task(vault: Path, fingerprint: str, items: int) -> None:
    """Draw the seal of this version of a task, unless it is there. `items` are those of the public half."""
    path = seal_path(vault, fingerprint)
    if not path.exists():
        noise = np.random.default_rng(secrets.randbits(256)).normal(size=items)
        drawn = Seal(nonce=secrets.token_hex(NONCE_BYTES), noise=tuple(noise.tolist()))
        create_once(path, drawn.model_dump_json().encode())


def read_seal(vault: Path, fingerprint: str) -> Seal:
    """The seal of this version of a task. Raises IntegrityError where it is missing or damaged."""
    path = seal_path(vault, fingerprint)
    try:
        return Seal.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise IntegrityError(f"{str(path)!r} is missing; put the vault's own back") from None
    except ValidationError as error:
        raise IntegrityError(f"{str(path)!r} is damaged; put the vault's own back: {problems(error)}") from error
