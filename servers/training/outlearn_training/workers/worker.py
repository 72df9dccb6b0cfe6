"""A worker process: claims seeds of queued runs, runs each in the sandbox and has the predictor sign for it."""

import gc
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

import structlog
from sqlalchemy.exc import DBAPIError

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import MethodError, OutlearnError, PermissionDeniedError, is_full_disk
from outlearn.logs import configure_logging
from outlearn_training.catalogue import is_registered
from outlearn_training.queue.seed_claims import Claim, Claims
from outlearn_training.queue.tables import Run
from outlearn_training.run_logs import RunLogs
from outlearn_training.sandbox.disguise import read_digits
from outlearn_training.sandbox.job import Job
from outlearn_training.sandbox.limits import begin_session, share_of_cores
from outlearn_training.sandbox.mechanisms import check_confinement, describe_mechanisms, find_mechanisms
from outlearn_training.sandbox.method_sandbox import MAX_METRICS, Event, MethodSandbox
from outlearn_training.sandbox.watched import Watched
from outlearn_training.settings import TrainingSettings
from outlearn_training.weights import WeightStore
from outlearn_training.workers.slots import give_way, hold_slot, slot_is_alive

POLL_SECONDS = 0.2
REPORT_SECONDS = 0.5
FULL = "the training server's disk is full, and it goes on once there is room"
FULL_SECONDS = 5.0
METHODS_SHARE = 0.95
"""Of a seed's progress: the rest is for predictions of test items."""
log = structlog.get_logger("outlearn.worker")


class Worker:
    """Runs one seed at a time. What it needs to go on after a kill is in the queue and in the receipts."""

    def __init__(self, settings: TrainingSettings, slot: int, slots: int) -> None:
        self._settings = settings
        self._slot = slot
        self._cores = share_of_cores(slot, slots, settings.threads)
        self._mechanisms = find_mechanisms(settings)
        self._sandbox = MethodSandbox(settings, self._mechanisms)
        self._sandbox.start()
        from outlearn_training.predictor import Predictor  # it imports torch, as the sandbox's host does meanwhile

        self._claims = Claims(settings.database("training"))
        self._artifacts = LocalArtifactStore(settings.home / "artifacts")
        self._logs = RunLogs(settings, self._claims)
        self._weights = WeightStore(settings)
        self._predictor = Predictor(settings.home, self._weights)

    def work(self) -> None:
        """Work until there was nothing to do for `worker_idle_seconds`, or a calibration needs the slot."""
        idle_since, last = time.monotonic(), ""
        try:
            while time.monotonic() - idle_since < self._settings.worker_idle_seconds:
                claim = self._claims.claim(self._slot, partial(slot_is_alive, self._settings.home), going_on=last)
                between_runs = claim is None or last not in ("", claim.run.run_id)
                if between_runs and give_way(self._settings.home, idle=claim is None):
                    if claim is not None:
                        self._claims.give_back(claim)
                    break
                if claim is None:
                    time.sleep(POLL_SECONDS)
                else:
                    self._run(claim)
                    if claim.run.kind == "full":
                        self._weights.make_room(int(self._settings.keep_weights_gb * 2**30))
                    idle_since, last = time.monotonic(), claim.run.run_id
        finally:
            self._sandbox.close()

    def _run(self, claim: Claim) -> None:
        run = claim.run
        log.info(
            "seed",
            sandbox=describe_mechanisms(self._mechanisms),
            run_id=run.run_id,
            seed=claim.seed,
            agent=run.agent,
            method=run.method,
            kind=run.kind,
        )
        try:
            if claim.seed not in self._predictor.signed_seeds(run.run_id):
                self._run_seed(claim)
            self._claims.seed_done(claim)
        except OutlearnError as error:
            self._claims.fail(run.run_id, str(error))
            log.info("ended", run_id=run.run_id, error=str(error))
        except SystemExit:
            self._claims.give_back(claim)
            raise
        except (OSError, DBAPIError) as error:
            if not is_full_disk(error):
                raise
            self._claims.give_back(claim, FULL)
            self._sandbox.close()  # the method may be at work still
            log.error("disk full", run_id=run.run_id, error=str(error))
            time.sleep(FULL_SECONDS)

    def _run_seed(self, claim: Claim) -> None:
        run, seed, progress = claim.run, claim.seed, _Progress(self._claims, claim)
        watched = Watched(self._settings, run, seed)

        def on_event(event: Event) -> None:
            (watched.take if "watched" in event else progress.on_event)(event)

        out = self._settings.home / "scratch" / f"slot-{self._slot}"  # ours alone, whatever a killed worker left there
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        try:
            log_path = self._log(run, seed)
            self._sandbox.run(self._job(run, seed, out), log_path, on_event, progress.should_stop)
            if run.kind == "full":
                self._predictor.sign(run, seed, out, describe_mechanisms(self._mechanisms), progress.on_test_items)
            progress.finish()
        except OutlearnError:
            progress.charge()
            raise
        finally:
            shutil.rmtree(out, ignore_errors=True)

    def _job(self, run: Run, seed: int, out: Path) -> Job:
        source = self._artifacts.get(run.source_sha256).decode()
        try:
            check_confinement(self._settings, self._mechanisms)
        except PermissionDeniedError:
            if not is_registered(source):
                raise
        return Job(
            task=run.task,
            home=self._settings.home.resolve(),
            sandbox=self._mechanisms,
            source=source,
            params=run.params,
            seed=seed,
            out=out.resolve(),
            cores=self._cores,
            threads=self._settings.threads,
            cpu_seconds=int(self._settings.seed_seconds * max(1, self._settings.threads)) + 10,
            memory_bytes=int(self._settings.memory_gb * 2**30),
            digits=read_digits(self._settings.home, run.task),
        )

    def _log(self, run: Run, seed: int) -> Path:
        path = self._logs.begin(run.run_id, run.agent)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"# seed {seed}, sandbox: {describe_mechanisms(self._mechanisms)}\n")
        return path


class _Progress:
    """Reports a seed's progress to the queue, at most twice a second, and learns there of a cancellation."""

    def __init__(self, claims: Claims, claim: Claim) -> None:
        self._claims, self._claim = claims, claim
        self._what = f"seed {claim.run.seeds.index(claim.seed) + 1} of {len(claim.run.seeds)}"
        self._start = time.monotonic()
        self._last = 0.0
        self._charged = 0.0
        self._metrics: dict[str, float] = {}
        self._usage: dict[str, float] = {}
        self._message = self._what
        self._share = 0.0
        self._goes_on = True

    def on_event(self, event: Event) -> None:
        """Take a step, predicted items, metrics or usage."""
        if "metrics" in event:
            self._metrics = dict(list((self._metrics | event["metrics"]).items())[:MAX_METRICS])
        elif "usage" in event:
            self._usage |= event["usage"]
        elif "items" in event:
            self._message = f"{self._what}: item {event['item']:,.0f} of {event['items']:,.0f}"
        else:
            self._share = max(self._share, min(1.0, event["step"] / event["steps"]))
            step = f"step {event['step']:.0f} of {event['steps']:.0f}, loss {event['loss_nats']:.3f}"
            self._message = f"{self._what}: {step}"

    def on_test_items(self, done: int, items: int) -> None:
        """Take the predictor's progress. Raises MethodError where the run was cancelled."""
        self._message = f"{self._what}: test item {done:,} of {items:,}"
        if self._is_due():
            self._report(METHODS_SHARE + (1 - METHODS_SHARE) * done / items)
        self._check()

    def should_stop(self) -> bool:
        """Whether the run was cancelled."""
        if self._is_due():
            self._report(METHODS_SHARE * self._share)
        return not self._goes_on

    def finish(self) -> None:
        """Report what the seed took in all. Raises MethodError where the run was cancelled."""
        self._report(1.0)
        self._check()

    def charge(self) -> None:
        """Report what a seed took that failed: one that ends between two reports is not free."""
        self._report(METHODS_SHARE * self._share)

    def _check(self) -> None:
        if not self._goes_on:
            raise MethodError("cancelled")

    def _is_due(self) -> bool:
        return time.monotonic() - self._last >= REPORT_SECONDS

    def _report(self, share: float) -> None:
        self._last = time.monotonic()
        self._goes_on = self._claims.report(
            self._claim,
            seconds=self._last - self._start - self._charged,
            share=share,
            message=self._message,
            metrics=self._metrics,
            usage=self._usage,
        )
        self._charged = self._last - self._start


def main() -> None:
    """Work in slot `argv[1]` of `argv[2]` with the settings on stdin, unless a worker is there already."""
    settings, (slot, slots) = TrainingSettings.model_validate_json(sys.stdin.buffer.read()), map(int, sys.argv[1:])
    begin_session()  # the server may end without us; a signal to its group is not for us
    configure_logging(settings)
    signal.signal(signal.SIGTERM, _leave)
    with hold_slot(settings.home, slot) as free:
        if free:
            settings.keep()
            gc.disable()  # while torch is imported, which is faster by a fifth
            log.info("starting", slot=slot)
            worker = Worker(settings, slot, slots)
            _flush_denormals()
            gc.freeze()
            gc.enable()
            log.info("ready", slot=slot)
            worker.work()


def _flush_denormals() -> None:
    from outlearn_training.predictor import flush_denormals  # torch, as above

    flush_denormals()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
