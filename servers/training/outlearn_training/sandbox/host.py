"""The method host: the untrusted side. It keeps the base model loaded and forks a child for each seed of a run.

It gets public data only: no vault, no keys, no database, an environment without secrets. A call arrives on a socket
together with two pipes, for the child's output and for its events, and a file with the job, which only the child reads;
the answer, on the socket, is the child's exit status. Whatever arrives while the child runs asks for its end. The pipes
are the child's alone once it runs: it may have filled them, and made writing to them fail.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
import types
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from outlearn.errors import ConfigError, InvalidInputError, OutlearnError
from outlearn.tasks import PublicTask, load_card, load_public, task_names
from outlearn_training.fast.trainer import make_trainer
from outlearn_training.lab import Lab, Student, prompts_for
from outlearn_training.meter import matmul_flops, peak_gpu_bytes
from outlearn_training.model import LabelModel
from outlearn_training.sandbox.canary import Canary
from outlearn_training.sandbox.disguise import Disguise
from outlearn_training.sandbox.execution_watch import watch_execution
from outlearn_training.sandbox.job import HEAD_BYTES, KILL, MAX_CALL_BYTES, Call, Job
from outlearn_training.sandbox.landlock import confine, module_folders, python_folders
from outlearn_training.sandbox.limits import (
    adopt_orphans,
    begin_session,
    close_all_but,
    count_threads,
    die_with_parent,
    kill_children,
    limit_memory,
    limit_resources,
    stay_on,
)
from outlearn_training.sandbox.seccomp import drop_capabilities, filter_calls
from outlearn_training.students import MAX_STUDENTS, max_student_bytes, save_students
from outlearn_training.trainer import PlainTrainer

SPARE_THREADS = 16
"""Threads that a method may have beside torch's: of each thread that it computes with, and once more for gradients."""
CUDA_THREADS = 32
SANDBOXED = (
    "the sandbox refuses this: a method reads Python's modules and its task, writes the folder for its students, and "
    "has no other files, no processes and no network"
)
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
        if not torch.cuda.is_available():
            matmul_flops(torch.device("cpu"))  # the children inherit what it found

    def serve(self) -> None:
        """Run jobs, one after another."""
        while (request := _receive(self._channel)) is not None:
            data, (output, events, job) = request
            try:
                self._run(Call.model_validate_json(data), output, events, job)
            except OutlearnError as error:
                self._send({"exit": 1, "error": str(error)})
            finally:
                for descriptor in (output, events, job):
                    os.close(descriptor)

    def _run(self, call: Call, output: int, events: int, job: int) -> None:
        task, trainer = self._load(call.home, call.task)
        pid = os.fork()
        if pid == 0:
            _child(job, task, trainer, output, events)
        code, peak_kib, error = self._wait(pid, max_threads(call.threads))
        kill_children()
        self._send({"exit": code, "peak_mb": peak_kib / 1024, "error": error})

    def _load(self, home: Path, name: str) -> tuple[PublicTask, PlainTrainer]:
        """The task and its base model, with the pool tokenised: the child inherits all of it."""
        card = load_card(home, name)
        if self._loaded is None or self._loaded[0].card != card:
            task, model = load_public(home, name), LabelModel(card.student, card.student_tuning)
            for prompt in prompts_for(card, task.pool):
                model.encode(prompt)
            self._loaded = (task, make_trainer(model, card.max_tokens))
        return self._loaded

    def _wait(self, pid: int, threads: int) -> tuple[int, int, str]:
        """The child's exit code, its peak memory in KiB, and why it was ended here. Ends the child where the worker
        asks for it or it has more than `threads`, and this process too where the worker is gone."""
        why = ""
        while True:
            found, status, used = os.wait4(pid, os.WNOHANG)
            if found:
                return os.waitstatus_to_exitcode(status), used.ru_maxrss, why
            if count_threads(pid) > threads:
                why = f"started more than {threads} threads"
                os.kill(pid, signal.SIGKILL)
            if select.select([self._channel], [], [], 0.02)[0]:
                if not self._channel.recv(HEAD_BYTES):
                    kill_children()
                    raise SystemExit
                os.kill(pid, signal.SIGKILL)

    def _send(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")


def max_threads(computing: int) -> int:
    """Most threads of a method's process whose torch computes with so many."""
    return 2 * computing + SPARE_THREADS + (CUDA_THREADS if torch.cuda.is_available() else 0)


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


def _child(job_file: int, task: PublicTask, trainer: PlainTrainer, output: int, events: int) -> None:
    """Run the job's method and leave its students in the job's folder. Never returns."""
    code = 1
    try:
        begin_session()
        die_with_parent()
        with open(job_file, "rb", closefd=False) as file:
            job = Job.model_validate_json(file.read())
        os.dup2(output, 1)
        os.dup2(output, 2)
        close_all_but([0, 1, 2, events])
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115 - for the process's whole life
        sys.stderr = sys.stdout

        def emit(event: dict[str, Any]) -> None:
            _emit(events, event)

        try:
            _set_limits(job, trainer)
            canary = Canary()
            disguise = Disguise(job.digits) if job.digits else None
            lab = Lab(task, trainer, job.seed, emit, canary, disguise)
            _confine(job)
            watch_execution(canary.event, str(job.home / "vault"), module_folders(), emit)
            students = run_method(job.source, job.params, job.seed, lab)
            save_students(job.out, [student.weights for student in students])
            emit({"usage": trainer.meter.summary(trainer.model.device) | {"peak_gpu_mb": peak_gpu_bytes() / 2**20}})
            code = 0
        except BaseException as error:  # noqa: BLE001 - whatever the method raises is its answer
            traceback.print_exception(error.with_traceback(_own_frames(error.__traceback__)))
            emit({"error": _describe(error)})
        sys.stdout.flush()
    finally:
        os._exit(code)


def _set_limits(job: Job, trainer: PlainTrainer) -> None:
    torch.set_num_threads(job.threads)
    stay_on(job.cores)
    limit_resources(job.cpu_seconds, max_student_bytes(trainer.model))
    if trainer.model.to_device().device.type == "cpu":  # CUDA maps more address space than there is memory
        limit_memory(job.memory_bytes)


def _confine(job: Job) -> None:
    """Confine this process as the worker says that it is. Raises ConfigError where that fails: nothing is run then."""
    if "landlock" in job.sandbox and not confine(python_folders(), [job.out], secret=job.home / "vault"):
        raise ConfigError("this system has no Landlock after all; the method was not run")
    if "seccomp" in job.sandbox:
        drop_capabilities()
        filter_calls()


def _emit(events: int, event: dict[str, Any]) -> None:
    os.write(events, json.dumps(event).encode() + b"\n")


def _describe(error: BaseException) -> str:
    text = str(error) if isinstance(error, OutlearnError) else f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "allocate memory" in text or "out of memory" in text:
        text = OUT_OF_MEMORY
    if isinstance(error, PermissionError):
        text += f" ({SANDBOXED})"
    return text[:2000]


def _own_frames(trace: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback from the method's first line on: the frames above it are ours."""
    start = trace
    while start is not None and start.tb_frame.f_code.co_filename != "method.py":
        start = start.tb_next
    return start or trace


def _receive(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """A call: its length in `HEAD_BYTES`, with 3 descriptors, and that many bytes. None where the worker is gone."""
    head, descriptors = KILL, list[int]()
    while head == KILL:
        head, descriptors, _, _ = socket.recv_fds(channel, HEAD_BYTES, 3)
    if not head:
        return None
    size = int(head)
    if size > MAX_CALL_BYTES:
        raise SystemExit(f"a call of {size} bytes")
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
    torch.set_num_threads(1)  # a process whose thread pool has started must not fork
    gc.disable()  # what is imported stays: looking through it again and again took a fifth of the start
    descriptor, home = sys.argv[1:]
    del sys.argv[1:]  # a derived home's name says what a run is done again for
    with socket.socket(fileno=int(descriptor)) as channel:
        host = Host(channel)
        with suppress(OutlearnError):  # a job that needs the model will say what is wrong with it
            host.warm_up(Path(home))
        gc.freeze()  # children look through none of it either, which would copy it
        gc.enable()
        host.serve()


if __name__ == "__main__":
    main()
