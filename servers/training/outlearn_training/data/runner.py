"""A process that runs other people's programs: confined, without network, each in a child with limits of its own.

It reads a `Job` as JSON from stdin and writes a list of outcomes to stdout.
"""

import ctypes
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter

from outlearn_training.sandbox.landlock import confine, python_folders
from outlearn_training.sandbox.limits import (
    adopt_orphans,
    die_with_parent,
    kill_children,
    limit_memory,
    limit_resources,
)

Outcome = Literal["passed", "failed", "timeout"]
OUTCOMES: TypeAdapter[list[Outcome]] = TypeAdapter(list[Outcome])
PASSED = 77  # no program ends with it by chance, as `sys.exit()` would with 0
NOT_CONFINED = 3
POLL_SECONDS = 0.002
MAX_FILE_BYTES = 2**20
NEW_USER, NEW_NET = 0x10000000, 0x40000000


class Job(BaseModel):
    """Programs to run one after another; each passes if it reaches its end without an exception."""

    model_config = ConfigDict(frozen=True)

    programs: tuple[str, ...]
    vault: Path
    cpu_seconds: int
    wall_seconds: float
    memory_bytes: int


def main() -> None:
    """Run the job. Ends with `NOT_CONFINED`, having run none of it, where not even an empty program can be confined."""
    die_with_parent()
    adopt_orphans()
    job = Job.model_validate_json(sys.stdin.buffer.read())
    _leave_network()
    if _run("", job) != "passed":
        raise SystemExit(NOT_CONFINED)
    sys.stdout.buffer.write(OUTCOMES.dump_json([_run(program, job) for program in job.programs]))


def _leave_network() -> None:
    """Move to a network namespace with nothing in it, where the system lets us; Landlock forbids TCP anyway."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NET)


def _run(program: str, job: Job) -> Outcome:
    child = os.fork()
    if child == 0:
        _execute(program, job)
    status = _wait(child, job.wall_seconds)
    kill_children()
    if status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)):
        return "timeout"
    return "passed" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == PASSED else "failed"


def _wait(child: int, seconds: float) -> int | None:
    """The exit status of a child; None where it runs on after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(POLL_SECONDS)
    return None


def _execute(program: str, job: Job) -> None:
    """Run one program in this child process. Never returns."""
    code = 1
    try:
        os.setsid()
        die_with_parent()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nowhere, descriptor)
        limit_resources(job.cpu_seconds, MAX_FILE_BYTES)
        limit_memory(job.memory_bytes)
        if confine(python_folders(), [], secret=job.vault):
            random.seed(0)
            exec(compile(program, "program.py", "exec"), {"__name__": "program"})  # noqa: S102 - what this process is for
            code = PASSED
    except BaseException:  # noqa: BLE001 - whatever the program raises, it has failed
        code = 1
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
