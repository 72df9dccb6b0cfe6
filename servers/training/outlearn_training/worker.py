"""A worker process: takes runs from the queue, runs each seed in the sandbox and has the predictor sign for it."""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import MethodError, OutlearnError
from outlearn.logs import configure_logging
from outlearn_training.catalogue import is_registered
from outlearn_training.job import Job
from outlearn_training.mechanisms import check_confinement, describe_mechanisms, find_mechanisms
from outlearn_training.queue import Run, RunQueue
from outlearn_training.sandbox import MAX_METRICS, Event, MethodSandbox
from outlearn_training.settings import TrainingSettings
from outlearn_training.slots import give_way, hold_slot, slot_is_alive

POLL_SECONDS = 0.2
REPORT_SECONDS = 0.5
log = structlog.get_logger("outlearn.worker")


class Worker:
    """Runs one run at a time. What it needs to go on after a kill is in the queue and in the receipts."""

    def __init__(self, settings: TrainingSettings, slot: int) -> None:
        self._settings = settings
        self._slot = slot
        self._mechanisms = find_mechanisms(settings)
        self._sandbox = MethodSandbox(settings, self._mechanisms)
        self._sandbox.start()
        from outlearn_training.predictor import Predictor  # it imports torch, as the sandbox's host does meanwhile

        self._queue = RunQueue(settings.database("training"))
        self._artifacts = LocalArtifactStore(settings.home / "artifacts")
        self._predictor = Predictor(settings.home, self._artifacts)

    def work(self) -> None:
        """Work until there was nothing to do for `worker_idle_seconds`, or a calibration needs the slot."""
        idle_since = time.monotonic()
        try:
            while time.monotonic() - idle_since < self._settings.worker_idle_seconds:
                run = self._queue.claim(self._slot, partial(slot_is_alive, self._settings.home))
                if run is not None:
                    self._run(run)
                    idle_since = time.monotonic()
                if give_way(self._settings.home, idle=run is None):
                    break
                if run is None:
                    time.sleep(POLL_SECONDS)
        finally:
            self._sandbox.close()

    def _run(self, run: Run) -> None:
        log.info(
            "run",
            sandbox=describe_mechanisms(self._mechanisms),
            run_id=run.run_id,
            agent=run.agent,
            method=run.method,
            kind=run.kind,
        )
        try:
            done = self._predictor.signed_seeds(run.run_id)
            for seed in run.seeds:
                if seed not in done:
                    self._run_seed(run, seed)
        except OutlearnError as error:
            cancelled = isinstance(error, MethodError) and str(error) == "cancelled"
            self._queue.finish(run.run_id, "cancelled" if cancelled else "failed", str(error))
            log.info("ended", run_id=run.run_id, error=str(error))
        except SystemExit:
            self._queue.give_back(run.run_id)
            raise
        else:
            text = "done: `evaluate` it" if run.kind == "full" else "done: submit it as a full run to have it scored"
            self._queue.finish(run.run_id, "done", text)

    def _run_seed(self, run: Run, seed: int) -> None:
        progress = _Progress(self._queue, run, seed)
        out = self._settings.home / "scratch" / run.run_id / str(seed)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        try:
            self._sandbox.run(self._job(run, seed, out), self._log(run, seed), progress.on_event, progress.should_stop)
            if run.kind == "full":
                self._predictor.sign(run, seed, out, describe_mechanisms(self._mechanisms))
            progress.seed_done()
        finally:
            shutil.rmtree(out.parent, ignore_errors=True)

    def _job(self, run: Run, seed: int, out: Path) -> Job:
        source = self._artifacts.get(run.source_sha256).decode()
        if not is_registered(source):
            check_confinement(self._settings, self._mechanisms)
        return Job(
            task=run.task,
            home=self._settings.home.resolve(),
            sandbox=self._mechanisms,
            source=source,
            params=run.params,
            seed=seed,
            out=out.resolve(),
            threads=self._settings.threads,
            cpu_seconds=int(self._settings.seed_seconds * max(1, self._settings.threads)) + 10,
            memory_bytes=int(self._settings.memory_gb * 2**30),
        )

    def _log(self, run: Run, seed: int) -> Path:
        path = self._settings.run_log(run.run_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"# seed {seed}, sandbox: {describe_mechanisms(self._mechanisms)}\n")
        return path


class _Progress:
    """Reports a seed's progress to the queue, at most twice a second, and learns there of a cancellation."""

    def __init__(self, queue: RunQueue, run: Run, seed: int) -> None:
        self._queue, self._run = queue, run
        self._index = run.seeds.index(seed)
        self._start = time.monotonic()
        self._last = 0.0
        self._charged = 0.0
        self._metrics: dict[str, float] = {}
        self._usage: dict[str, float] = {}
        self._message = f"seed {self._index + 1} of {len(run.seeds)}"
        self._share = 0.0
        self._goes_on = True

    def on_event(self, event: Event) -> None:
        """Take a step or metrics."""
        if "metrics" in event:
            self._metrics = dict(list((self._metrics | event["metrics"]).items())[:MAX_METRICS])
        elif "usage" in event:
            self._usage |= event["usage"]
        else:
            self._share = max(self._share, min(1.0, event["step"] / event["steps"]))
            step = f"step {event['step']:.0f} of {event['steps']:.0f}, loss {event['loss_nats']:.3f}"
            self._message = f"seed {self._index + 1} of {len(self._run.seeds)}: {step}"

    def should_stop(self) -> bool:
        """Whether the run was cancelled."""
        if time.monotonic() - self._last >= REPORT_SECONDS:
            self._report((self._index + 0.95 * self._share) / len(self._run.seeds), seeds_done=self._index)
        return not self._goes_on

    def seed_done(self) -> None:
        """Record the whole seed."""
        self._report((self._index + 1) / len(self._run.seeds), seeds_done=self._index + 1)
        if not self._goes_on:
            raise MethodError("cancelled")

    def _report(self, progress: float, **values: Any) -> None:
        self._last = time.monotonic()
        self._goes_on = self._queue.report(
            self._run.run_id,
            seconds=self._last - self._start - self._charged,
            progress=progress,
            message=self._message,
            metrics=self._metrics,
            usage=self._usage,
            **values,
        )
        self._charged = self._last - self._start


def main() -> None:
    """Work in slot `argv[1]` with the settings on stdin, unless a worker is there already."""
    settings, slot = TrainingSettings.model_validate_json(sys.stdin.buffer.read()), int(sys.argv[1])
    with suppress(PermissionError):  # the server may end without us; a signal to its group is not for us
        os.setsid()
    configure_logging(settings)
    signal.signal(signal.SIGTERM, _leave)
    with hold_slot(settings.home, slot) as free:
        if free:
            Worker(settings, slot).work()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
