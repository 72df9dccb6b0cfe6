"""What a worker asks the method host to run."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from outlearn_training.sandbox.mechanisms import Mechanism

HEAD_BYTES = 16
MAX_CALL_BYTES = 100_000
KILL = b"kill".ljust(HEAD_BYTES)
"""Stands where a call's length would: end what runs. It means nothing where that has ended meanwhile."""


class Call(BaseModel):
    """What the host learns of a job: nothing of the agent's, as later children inherit the host's memory."""

    model_config = ConfigDict(frozen=True)

    task: str
    home: Path
    threads: int


class Job(Call):
    """One seed of a run, as the worker asks for it. Only the child reads it whole."""

    sandbox: tuple[Mechanism, ...]
    source: str
    params: dict[str, Any]
    seed: int
    out: Path
    cores: tuple[int, ...]
    cpu_seconds: int
    memory_bytes: int
    digits: str | None
    """What the pool's digits are disguised as, if they are."""
