"""The method host: the untrusted side. It keeps the base model loaded and forks a child for each seed of a run.

It gets public data only: no vault, no keys, no database, an environment without secrets. A job arrives on a socket
together with two pipes, for the child's output and for its events; the answers are the child's pid and its exit status.
"""

import json
import os
import select
import socket
import sys
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

from outlearn.errors import InvalidInputError, OutlearnError
from outlearn.tasks import PublicTask, load_card, load_public, task_names
from outlearn_training.confinement import confine, python_folders
from outlearn_training.fast.trainer import make_trainer
from outlearn_training.job import HEAD_BYTES, MAX_JOB_BYTES, Job
from outlearn_training.lab import Lab, Student, prompts_for
from outlearn_training.limits import adopt_orphans, die_with_parent, kill_children, limit_memory, limit_resources
from outlearn_training.meter import peak_gpu_bytes
from outlearn_training.model import LabelModel
from outlearn_training.students import MAX_STUDENTS, max_student_bytes, save_students
from outlearn_training.trainer import PlainTrainer

OUT_OF_MEMORY = (
    "out of memory; train fewer students at once, or ask the operator for a task with gradient_checkpointing, a "
    "smaller batch_size or max_tokens, or for a larger --memory-gb"
)


class Host:
    """Answers the worker's jobs until its end of the socket closes."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._loaded: tuple[PublicTask, PlainTrainer] | None = None

    def warm_up(self, home: Path) -> None:
        """Load the base model of the first task before anybody asks."""
        for name in task_names(home)[:1]:
            self._load(home, name)

    def serve(self) -> None:
        """Run jobs, one after another."""
        while (request := _receive(self._channel)) is not None:
            data, (output, events) = request
            try:
                self._run(Job.model_validate_json(data), output, events)
            except OutlearnError as error:
                os.write(events, json.dumps({"error": str(error)}).encode() + b"\n")
                self._send({"exit": 1})
            finally:
                os.close(output)
                os.close(events)

    def _run(self, job: Job, output: int, events: int) -> None:
        task, trainer = self._load(job.home, job.task)
        pid = os.fork()
        if pid == 0:
            self._channel.close()
            _child(job, task, trainer, output, events)
        self._send({"pid": pid})
        code, peak_kib = self._wait(pid)
        kill_children()
        self._send({"exit": code, "peak_mb": peak_kib / 1024})

    def _load(self, home: Path, name: str) -> tuple[PublicTask, PlainTrainer]:
        """The task and its base model, with the pool tokenised: the child inherits all of it."""
        card = load_card(home, name)
        if self._loaded is None or self._loaded[0].card != card:
            task, model = load_public(home, name), LabelModel(card.student, card.student_tuning)
            for prompt in prompts_for(card, task.pool):
                model.encode(prompt)
            self._loaded = (task, make_trainer(model, card.max_tokens))
        return self._loaded

    def _wait(self, pid: int) -> tuple[int, int]:
        """The child's exit code and peak memory in KiB. Ends the child and this process where the worker is gone."""
        while True:
            found, status, used = os.wait4(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status), used.ru_maxrss
            if select.select([self._channel], [], [], 0.02)[0]:
                kill_children()
                raise SystemExit

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")


def run_method(source: str, params: dict[str, Any], seed: int, lab: Lab) -> list[Student]:
    """Execute the method's source and call it.

    Raises:
        InvalidInputError: the source does not parse, has no `method`, or returned something else than students.
    """
    module = types.ModuleType("method")
    module.__file__ = "method.py"
    try:
        exec(compile(source, "method.py", "exec"), module.__dict__)  # noqa: S102 - this process is the sandbox
    except SyntaxError as error:
        raise InvalidInputError(f"the method does not parse: {error}") from error
    function = getattr(module, "method", None)
    if not callable(function):
        raise InvalidInputError("the file has no function `method(lab, seed)`")
    result = function(lab, seed, **params)
    students = list(result) if isinstance(result, list | tuple) else [result]
    if not students or not all(isinstance(one, Student) for one in students):
        raise InvalidInputError(f"the method returned {type(result).__name__}; return what `lab.fit` returned")
    if len(students) > MAX_STUDENTS:
        raise InvalidInputError(f"the method returned {len(students)} students; the limit is {MAX_STUDENTS}")
    return students


def _child(job: Job, task: PublicTask, trainer: PlainTrainer, output: int, events: int) -> None:
    """Run the method and leave its students in `job.out`. Never returns."""
    code = 1
    try:
        os.setsid()
        die_with_parent()
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - for the process's whole life
        sys.stderr = sys.stdout
        _set_threads(job.threads)
        limit_resources(job.cpu_seconds, max_student_bytes(trainer.model))
        if trainer.model.to_device().device.type == "cpu":  # CUDA maps more address space than there is memory
            limit_memory(job.memory_bytes)
        if not confine([*python_folders(), task.folder], [job.out], secret=job.home / "vault"):
            print("# not confined: this system has no Landlock")  # noqa: T201 - to the run's log

        def emit(event: dict[str, Any]) -> None:
            os.write(events, json.dumps(event).encode() + b"\n")

        try:
            students = run_method(job.source, job.params, job.seed, Lab(task, trainer, job.seed, emit))
            save_students(job.out, [student.weights for student in students])
            emit({"usage": trainer.meter.summary(trainer.model.device) | {"peak_gpu_mb": peak_gpu_bytes() / 2**20}})
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever the method raises is its answer
            traceback.print_exception(error.with_traceback(_own_frames(error.__traceback__)))
            emit({"error": _describe(error)})
        sys.stdout.flush()
    finally:
        os._exit(code)


def _describe(error: BaseException) -> str:
    text = str(error) if isinstance(error, OutlearnError) else f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        text = OUT_OF_MEMORY
    return text[:2000]


def _own_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback from the method's first line on: the frames above it are ours."""
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename != "method.py":
        start = start.tb_next
    return start or trace


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _receive(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """A job: its length in `HEAD_BYTES`, with two descriptors, and that many bytes. None where the worker is gone."""
    head, descriptors, _, _ = socket.recv_fds(channel, HEAD_BYTES, 2)
    if not head:
        return None
    size = int(head)
    if size > MAX_JOB_BYTES:
        raise SystemExit(f"a job of {size} bytes")
    data = b""
    while len(data) < size:
        part = channel.recv(size - len(data))
        if not part:
            return None
        data += part
    return data, list(descriptors)


def main() -> None:
    """Serve the socket that is file descriptor `argv[1]`, for tasks in the home folder `argv[2]`."""
    die_with_parent()
    adopt_orphans()
    _set_threads(1)  # a process whose thread pool has started must not fork
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        host = Host(channel)
        with suppress(OutlearnError):  # a job that needs the model will say what is wrong with it
            host.warm_up(Path(sys.argv[2]))
        host.serve()


if __name__ == "__main__":
    main()
