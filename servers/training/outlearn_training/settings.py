"""Settings of the training server and its workers."""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError

from outlearn.errors import IntegrityError
from outlearn.files import write_atomic
from outlearn.hints import problems
from outlearn.settings import ServerSettings

REPEATED = {"workers", "threads", "seed_seconds", "memory_gb", "log_bytes", "bubblewrap", "unsafe_no_sandbox"}
"""What is to be the same where a run is done again."""


class TrainingSettings(ServerSettings):
    """Runs agents' methods on the Qwen trainer and signs receipts for the students that they return."""

    port: int = Field(8001, ge=0, le=65535, description="Port of the HTTP transport; 0 picks a free one.")
    workers: int | None = Field(None, ge=1, description="Worker processes; default: one a GPU, else one a CPU core.")
    threads: int = Field(1, ge=1, description="CPU threads of each worker.")
    worker_idle_seconds: float = Field(120, gt=0, description="A worker without work leaves after this long.")
    seed_seconds: float = Field(3600, gt=0, description="Longest time that a method may take for one seed.")
    memory_gb: float = Field(8, gt=0, description="Memory that a method may take beyond the base model's (CPU only).")
    log_bytes: int = Field(1_000_000, ge=1000, description="What is kept of a run's output.")
    bubblewrap: bool = Field(True, description="Use bubblewrap where it is installed.")
    unsafe_no_sandbox: bool = Field(
        False, description="Run agents' own methods also where the system cannot confine them; receipts say so."
    )
    max_waiting: int = Field(20, ge=1, description="Runs that one agent may have queued or running.")
    max_runs: int = Field(10_000, ge=1, description="Runs that one agent may submit in all.")
    source_mb: float = Field(64, gt=0, description="Disk for the different files that one agent submits, in MiB.")
    keep_weights_gb: float = Field(
        5,
        ge=0,
        description="Disk for the students of one agent's runs that were never evaluated, in GiB: the oldest are "
        "removed. Those of evaluated runs and of its newest one stay, and so do all receipts, metrics and predictions.",
    )
    keep_logs_mb: float = Field(
        256,
        ge=0,
        description="Disk for the logs of one agent's runs that were never evaluated, in MiB: the oldest are removed. "
        "Those of evaluated runs, of unfinished ones and of its newest one stay.",
    )
    agent_device_seconds: float | None = Field(None, gt=0, description="Device time of one agent in all; default: any.")
    team_device_seconds: float | None = Field(None, gt=0, description="Device time of all agents together.")

    def keep(self) -> None:
        """Note in the vault how runs are done in this home folder."""
        self.vault.mkdir(parents=True, exist_ok=True, mode=0o700)
        data = self.model_dump_json(include=REPEATED)
        write_atomic(_kept(self.home), data.encode(), mode=0o600)

    @classmethod
    def as_kept(cls, home: Path, **given: Any) -> Self:
        """Settings to do runs of a home folder again: as `given`, else of the environment, else as its last worker had
        them. Raises IntegrityError where the note of those is damaged."""
        made = cls(home=home, **given)
        try:
            kept = cls.model_validate_json(_kept(home).read_bytes())
        except FileNotFoundError:
            return made
        except ValidationError as error:
            raise IntegrityError(f"{str(_kept(home))!r} is damaged; remove it: {problems(error)}") from error
        return made.model_copy(update={name: getattr(kept, name) for name in REPEATED - made.model_fields_set})

    def run_log(self, run_id: str) -> Path:
        """Where a run's output is kept."""
        return self.home / "logs" / "runs" / f"{run_id}.log"


def _kept(home: Path) -> Path:
    return home / "vault" / "training.json"
