"""The worker's side of the method host: start it, send it a seed, keep its limits, collect the students."""

import json
import math
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from outlearn.errors import MethodError
from outlearn.printable import printable
from outlearn_training.sandbox.bubblewrap import wrap
from outlearn_training.sandbox.job import HEAD_BYTES, KILL, Call, Job
from outlearn_training.sandbox.mechanisms import Mechanism
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import QUIET

POLL_SECONDS = 0.1
MAX_EVENT_BYTES = 64_000
MAX_METRICS = 50
USAGE = ("tokens_per_second", "mfu", "peak_gpu_mb")
MAX_FILES = 16  # in `job.out`; the kernel limits their size, and keeps them from being removed
READ_BYTES, MAX_PIPE_BYTES = 65536, 2**20
PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE")
Event = dict[str, Any]


class MethodSandbox:
    """One method host, started when it is needed and again when it died."""

    def __init__(self, settings: TrainingSettings, mechanisms: tuple[Mechanism, ...]) -> None:
        self._settings = settings
        self._wrapped = "bubblewrap" in mechanisms
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def start(self) -> socket.socket:
        """Start the host, unless it runs."""
        if self._channel and self._process and self._process.poll() is None:
            return self._channel
        self.close()
        ours, theirs = socket.socketpair()
        environment = (
            {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            | QUIET
            | {"OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
            | ({"HF_HUB_OFFLINE": "1"} if self._wrapped else {})  # there is no network to wait for
        )
        home = str(self._settings.home.resolve())
        command = [sys.executable, "-P", "-m", "outlearn_training.sandbox.host", str(theirs.fileno()), home]
        if self._wrapped:
            command = [*wrap(self._settings.home), *command]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=[theirs.fileno()]
        )
        theirs.close()
        self._channel = ours
        return ours

    def run(self, job: Job, log: Path, on_event: Callable[[Event], None], should_stop: Callable[[], bool]) -> None:
        """Run a method for one seed; it leaves its students in `job.out`.

        Args:
            log: file that the method's output is appended to, up to `settings.log_bytes`.
            on_event: called with {"step", "steps", "loss_nats"}, {"item", "items"}, {"metrics"}, {"usage"} and
                {"watched", "where"} ones, whose values are checked.
            should_stop: asked ten times a second; True kills the method.

        Raises:
            MethodError: it raised, was stopped, broke a limit, or its host died.
        """
        channel = self.start()
        with _pipe() as (output, output_end), _pipe() as (events, events_end):
            try:
                _send(channel, job, output_end.take(), events_end.take())
            except OSError as error:
                self.close()
                raise MethodError(f"the method host did not take the job: {error}; submit the run again") from error
            finally:
                output_end.close()
                events_end.close()
            watch = _Watch(channel, output, events, log, job, self._settings, on_event)
            try:
                watch.until_exit(should_stop)
            except EOFError:
                self.close()
                raise MethodError("the method's process host died, probably for want of memory; use less") from None
        watch.raise_for_exit()

    def close(self) -> None:
        """End the host and whatever it runs."""
        if self._channel:
            self._channel.close()
        if self._process:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None


class _Watch:
    """Reads what a running method says, until it ends, and kills it where it breaks a limit."""

    def __init__(
        self,
        channel: socket.socket,
        output: "_End",
        events: "_End",
        log: Path,
        job: Job,
        settings: TrainingSettings,
        on_event: Callable[[Event], None],
    ) -> None:
        self._channel, self._output, self._events = channel, output.take(), events.take()
        self._log, self._seed, self._out, self._settings, self._on_event = log, job.seed, job.out, settings, on_event
        self._logged = _size(log)
        self._deadline = time.monotonic() + settings.seed_seconds
        self._partial, self._answers = b"", b""
        self._error = ""
        self._killed = False
        self._exit: int | None = None

    def until_exit(self, should_stop: Callable[[], bool]) -> None:
        """Pump until the host reports the child's exit. Raises EOFError where the host died."""
        sources = [self._channel.fileno(), self._output, self._events]
        while self._exit is None:
            ready = select.select(sources, [], [], POLL_SECONDS)[0]
            for source in ready:
                if source == self._channel.fileno():
                    self._read_answers()
                elif not self._pump(source):
                    sources.remove(source)
            if should_stop():
                self._kill("cancelled")
            elif len(os.listdir(self._out)) > MAX_FILES:  # noqa: PTH208  (counted often)
                self._kill(f"wrote more than {MAX_FILES} files")
            elif time.monotonic() > self._deadline:
                self._kill(f"took longer than the {self._settings.seed_seconds:g} seconds that a seed may take")
        for source in sources[1:]:
            self._drain(source)

    def raise_for_exit(self) -> None:
        """Raises MethodError unless the method ended well."""
        if self._exit == 0 and not self._error:
            return
        killed = f"was killed by signal {-(self._exit or 0)}; it may have used too much memory or CPU time"
        raise MethodError(self._error or (killed if (self._exit or 0) < 0 else f"ended with exit code {self._exit}"))

    def _drain(self, source: int) -> None:
        """Take what is left in a pipe, and no more than it holds: somebody may have stayed behind to write on."""
        left = MAX_PIPE_BYTES // READ_BYTES
        while left and select.select([source], [], [], 0)[0] and self._pump(source):
            left -= 1

    def _pump(self, source: int) -> bool:
        data = os.read(source, READ_BYTES)
        if source == self._output:
            self._keep(data)
        else:
            self._take_events(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        size = _size(self._log)
        room = self._settings.log_bytes - size
        if data and size != self._logged:  # another seed of the run wrote meanwhile
            data = f"\n# seed {self._seed}\n".encode() + data
        if data and room > 0:
            with self._log.open("ab") as file:
                file.write(data[:room])
                if len(data) > room:
                    file.write(b"\n[the rest of the output is not kept]\n")
                self._logged = file.tell()

    def _take_events(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_EVENT_BYTES:
            self._kill("wrote to the event channel, which is the lab's")
            self._partial = b""
        for line in lines:
            event = _parse_event(line)
            if "error" in event:
                self._error = self._error or event["error"]
            elif event:
                self._on_event(event)
                if "metrics" in event:
                    self._keep(json.dumps(event["metrics"]).encode() + b"\n")

    def _read_answers(self) -> None:
        data = self._channel.recv(4096)
        if not data:
            raise EOFError
        *lines, self._answers = (self._answers + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            self._exit = answer.get("exit", self._exit)
            self._error = self._error or answer.get("error", "")
            if "peak_mb" in answer:
                self._on_event({"usage": {"peak_memory_mb": answer["peak_mb"]}})

    def _kill(self, reason: str) -> None:
        """Have the host end the method: it may be in a world where process ids are others."""
        if not self._killed and self._exit is None:
            self._killed, self._error = True, self._error or reason
            with suppress(OSError):  # the host died: the next answer is its end
                self._channel.sendall(KILL)


def _send(channel: socket.socket, job: Job, output: int, events: int) -> None:
    """Send the host its call, and the child its job. Raises OSError where there is no host."""
    call = Call.model_validate(job.model_dump(include=set(Call.model_fields))).model_dump_json().encode()
    with tempfile.TemporaryFile() as file:
        file.write(job.model_dump_json().encode())
        file.flush()
        file.seek(0)
        socket.send_fds(channel, [f"{len(call):<{HEAD_BYTES}d}".encode()], [output, events, file.fileno()])
    channel.sendall(call)


def _parse_event(line: bytes) -> Event:
    """An event that a method sent, or {} where it is none: the sender is not trusted."""
    try:
        event = json.loads(line, parse_int=float)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(event, dict):
        return {}
    if isinstance(event.get("error"), str):
        return {"error": _printable(event["error"][:2000])}
    if isinstance(event.get("usage"), dict):
        return {"usage": {name: event["usage"][name] for name in USAGE if _is_number(event["usage"].get(name))}}
    if isinstance(event.get("metrics"), dict):
        numbers = {_printable(name[:64]): value for name, value in event["metrics"].items() if _is_number(value)}
        return {"metrics": dict(list(numbers.items())[:MAX_METRICS])}
    if isinstance(event.get("watched"), str) and isinstance(event.get("where"), str):
        return {name: _printable(event[name][:200]) for name in ("watched", "where")}
    if all(_is_number(event.get(name)) for name in ("step", "steps", "loss_nats")) and event["steps"] >= 1:
        return {name: event[name] for name in ("step", "steps", "loss_nats")}
    if all(_is_number(event.get(name)) for name in ("item", "items")):
        return {name: event[name] for name in ("item", "items")}
    return {}


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _is_number(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _printable(text: str) -> str:
    """`text` without what terminals obey and databases refuse."""
    return printable(text, keep="\n\t")


class _End:
    """One end of a pipe, closed once."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def take(self) -> int:
        """The descriptor, which stays ours to close."""
        if self._descriptor is None:
            raise ValueError("this end is closed")
        return self._descriptor

    def close(self) -> None:
        """Close it, if that was not done."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def _pipe() -> Iterator[tuple[_End, _End]]:
    reader, writer = (_End(descriptor) for descriptor in os.pipe())
    try:
        yield reader, writer
    finally:
        reader.close()
        writer.close()
