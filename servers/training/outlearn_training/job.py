"""What a worker asks the method host to run."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

HEAD_BYTES = 16
MAX_JOB_BYTES = 4_000_000


class Job(BaseModel):
    """One seed of a run, as the worker asks for it."""

    model_config = ConfigDict(frozen=True)

    task: str
    home: Path
    source: str
    params: dict[str, Any]
    seed: int
    out: Path
    threads: int
    cpu_seconds: int
    memory_bytes: int
