"""Find out whether programs pass their tests, by running them in a confined process."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outlearn.errors import ConfigError, InvalidInputError
from outlearn_training.data.runner import NOT_CONFINED, OUTCOMES, Job, Outcome

PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH")


@dataclass(frozen=True)
class Limits:
    """What one program may use. `wall_seconds` is longer, as the machine may be busy with other things."""

    cpu_seconds: int = 3
    wall_seconds: float = 30
    memory_bytes: int = 2**29


def run_programs(programs: Sequence[str], vault: Path, limits: Limits | None = None) -> list[Outcome]:
    """What became of each program: it passed, it failed, or it took too long.

    They cannot write a file, reach the network, or read anything but Python's own folders; never `vault`.

    Raises:
        ConfigError: this system cannot confine a process, so nothing was run.
        InvalidInputError: a program brought the process down that runs them all.
    """
    limits = limits or Limits()
    job = Job(programs=tuple(programs), vault=vault.resolve(), **vars(limits))
    # fixed hashes: the order of a set decides what some programs answer
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "outlearn_training.data.runner"],
        input=job.model_dump_json().encode(),
        env=environment,
        capture_output=True,
        check=False,
        timeout=60 + len(programs) * (limits.wall_seconds + 1),
    )
    if done.returncode == NOT_CONFINED:
        raise ConfigError(
            "programs are run only where Linux's Landlock confines them and no folder of Python has the vault in it; "
            f"use such a system, or another home folder than {str(vault.parent)!r}"
        )
    if done.returncode:
        raise InvalidInputError(f"the programs could not be run: {done.stderr.decode(errors='replace')[-500:]}")
    return OUTCOMES.validate_json(done.stdout)
