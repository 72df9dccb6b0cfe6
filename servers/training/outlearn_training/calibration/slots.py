"""Calibration on the executor's device slots: seeds side by side in as many processes as there are free slots.

A process inherits the lock on its slot, so the kernel frees that however it ends, and trains one seed after another
unless a worker waits for the slot. Another calibration of the same task leaves a locked seed to this one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

from outlearn.errors import OutlearnError
from outlearn.locks import take
from outlearn.prepared import Parts
from outlearn.tasks import TaskCard
from outlearn_training.calibration.seed_training import KeptSeeds, OnProgress, SeedTrainer
from outlearn_training.sandbox.limits import die_with_parent
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import count_slots, slot_environment, visible_gpus
from outlearn_training.workers.slots import Asking, slot_is_held, stop_asking, take_slot, worker_is_wanted

POLL_SECONDS = 0.1
REPORT_SECONDS = 0.2
STOP_SECONDS = 10.0


class SeedJob(BaseModel):
    """One seed, as its process is told on stdin."""

    model_config = ConfigDict(frozen=True)

    home: Path
    card: TaskCard
    seed: int


class SlotTraining:
    """Trains a calibration's seeds in the slots of `settings`, or of another home folder, `lender`. It is a `Train` for
    `calibrate`."""

    def __init__(self, settings: TrainingSettings, lender: Path | None = None) -> None:
        self._settings, self._lender = settings, lender or settings.home
        self._gpus = visible_gpus()
        self._slots = count_slots(settings, self._gpus)
        self._asking = Asking()
        self._reason = ""

    def __call__(self, task: Parts, kept: KeptSeeds, seeds: Sequence[int], report: OnProgress) -> None:
        """Train seeds and keep their predictions.

        Raises:
            OutlearnError: a seed's training raised one, or its process died.
        """
        waiting, running = list(seeds), list[_SeedProcess]()
        try:
            while waiting or running:
                waiting = [seed for seed in waiting if not kept.path(seed).exists() or kept.read(seed) is None]
                for process in list(running):
                    if process.is_idle() and not self._go_on(process, task[0], kept, waiting):
                        process.stop()
                        running.remove(process)
                while waiting and (started := self._start_one(task[0], kept, waiting)):
                    running.append(started)
                self._ask(waiting, running)
                left = sum(1 - process.share for process in running) + len(waiting)
                report(self._describe(waiting, running), 1 - left / len(seeds))
                time.sleep(POLL_SECONDS)
        finally:
            stop_asking(self._lender)
            for process in running:
                process.stop()

    def _start_one(self, card: TaskCard, kept: KeptSeeds, waiting: list[int]) -> "_SeedProcess | None":
        """Start a process in a free slot, with the first seed that no other calibration is at."""
        if (seed_lock := _take_first(kept, waiting)) is None:
            self._reason = "for another calibration of this task"
            return None
        seed, lock = seed_lock
        free = (slot for slot in range(self._slots) if not slot_is_held(self._lender, slot))
        slot = None if worker_is_wanted(self._lender) else next(free, None)
        if slot is None or (slot_file := take_slot(self._lender, slot)) is None:
            self._reason = "for a device"
            waiting.insert(0, seed)
            lock.close()
            return None
        with slot_file:
            log = self._settings.home / "logs" / f"calibrate-{card.name}-{seed}.log"
            process = _SeedProcess.start(log, slot_environment(self._settings, slot, self._gpus), slot_file)
            process.train(self._job(card, seed), lock)
            return process

    def _go_on(self, process: "_SeedProcess", card: TaskCard, kept: KeptSeeds, waiting: list[int]) -> bool:
        """Give a process its next seed; False where there is none, or a worker is to have the slot."""
        if worker_is_wanted(self._lender) or (seed_lock := _take_first(kept, waiting)) is None:
            return False
        process.train(self._job(card, seed_lock[0]), seed_lock[1])
        return True

    def _job(self, card: TaskCard, seed: int) -> SeedJob:
        return SeedJob(home=self._settings.home.resolve(), card=card, seed=seed)

    def _ask(self, waiting: Sequence[int], running: Sequence["_SeedProcess"]) -> None:
        if waiting and self._reason == "for a device":
            self._asking.ask(self._lender, urgent=not running)

    def _describe(self, waiting: Sequence[int], running: Sequence["_SeedProcess"]) -> str:
        doing = {process.what for process in running}
        now = doing.pop() if len(doing) == 1 else f"teachers and ceilings of {len(running)} seeds" if running else ""
        later = f"{len(waiting)} waiting {self._reason}" if waiting else ""
        return "; ".join(filter(None, (now, later))) or "done"


@dataclass
class _SeedProcess:
    log: Path
    process: subprocess.Popen[bytes]
    seed: int = -1
    what: str = "starting"
    share: float = 0.0
    error: str = ""
    _lock: IO[str] | None = None
    _partial: bytes = field(default=b"", repr=False)

    @classmethod
    def start(cls, log: Path, environment: dict[str, str], slot_file: IO[str]) -> "_SeedProcess":
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "outlearn_training.calibration.slots"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                pass_fds=[slot_file.fileno()],
                bufsize=0,
                start_new_session=True,
            )
        made = cls(log, process)
        os.set_blocking(made._pipe("stdout").fileno(), False)
        return made

    def train(self, job: SeedJob, lock: IO[str]) -> None:
        """Have it train a seed. The lock on the seed is held until that is done."""
        self.seed, self.what, self.share, self._lock = job.seed, "starting", 0.0, lock
        with suppress(BrokenPipeError):  # it died: `is_idle` will say so
            self._pipe("stdin").write(job.model_dump_json().encode() + b"\n")

    def is_idle(self) -> bool:
        """Take in what it says, and whether its seed is trained. Raises as `SlotTraining` does."""
        code = self.process.poll()
        self._listen()
        if self.error:
            raise OutlearnError(self.error)
        if code is not None:
            probably = ", probably for want of memory" if code < 0 else ""
            raise OutlearnError(
                f"the training of seed {self.seed} died ({code}){probably}; what it said is in "
                f"{str(self.log)!r}. The seeds that are done are kept: run `outlearn calibrate` again"
            )
        if self.share < 1:
            return False
        self._unlock()
        return True

    def stop(self) -> None:
        """End it now."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for name in ("stdin", "stdout"):
            self._pipe(name).close()
        self._unlock()

    def _listen(self) -> None:
        *lines, self._partial = (self._partial + (self._pipe("stdout").read() or b"")).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.what, self.share = said.get("what", self.what), said.get("share", self.share)
            self.error = said.get("error", self.error)

    def _unlock(self) -> None:
        if self._lock:
            self._lock.close()
        self._lock = None

    def _pipe(self, name: str) -> IO[bytes]:
        pipe: IO[bytes] = getattr(self.process, name)
        return pipe


def _take_first(kept: KeptSeeds, waiting: list[int]) -> tuple[int, IO[str]] | None:
    """Take the first seed that no other calibration is at; it is locked until the file is closed."""
    for seed in waiting:
        if lock := take(kept.path(seed).with_suffix(".lock")):
            waiting.remove(seed)
            return seed, lock
    return None


def main() -> None:
    """Train the seeds of the jobs on stdin, one a line; progress and errors go to stdout, a line of JSON each."""
    from outlearn_training.calibration.calibrate import find_task

    die_with_parent()
    say, trainers = _Channel(), dict[tuple[Path, TaskCard], SeedTrainer]()
    try:
        for line in sys.stdin.buffer:
            job = SeedJob.model_validate_json(line)
            if (job.home, job.card) not in trainers:
                _, pool, secret = find_task(job.home, job.card.name)
                trainers[job.home, job.card] = SeedTrainer((job.card, pool, secret))
            found = trainers[job.home, job.card].train(job.seed, say.progress)
            KeptSeeds(job.home, job.card).write(job.seed, found)
            say.done()
    except (OutlearnError, OSError) as error:  # said through a pipe: a full disk takes no log
        say.error(str(error))
        raise SystemExit(1) from None


class _Channel:
    """What was stdout; whatever else is printed goes to stderr."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._what, self._last = "", 0.0

    def progress(self, what: str, share: float) -> None:
        """Report what is new, and the share not all the time."""
        if what != self._what or time.monotonic() - self._last > REPORT_SECONDS:
            self._what, self._last = what, time.monotonic()
            self._say({"what": what, "share": min(share, 0.99)})

    def done(self) -> None:
        """The seed's predictions are kept."""
        self._say({"share": 1.0})

    def error(self, message: str) -> None:
        """Say why there are no predictions."""
        self._say({"error": message})

    def _say(self, what: dict[str, object]) -> None:
        print(json.dumps(what), file=self._file, flush=True)


if __name__ == "__main__":
    main()
