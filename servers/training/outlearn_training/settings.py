"""Settings of the training server and its workers."""

from pathlib import Path

from pydantic import Field

from outlearn.settings import ServerSettings


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
    agent_device_seconds: float | None = Field(None, gt=0, description="Device time of one agent in all; default: any.")
    team_device_seconds: float | None = Field(None, gt=0, description="Device time of all agents together.")

    def run_log(self, run_id: str) -> Path:
        """Where a run's output is kept."""
        return self.home / "logs" / "runs" / f"{run_id}.log"
