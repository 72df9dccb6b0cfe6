"""Calibration on the executor's device slots: a process for each seed, side by side in as many slots as are free.

A seed's process inherits two locks, on its slot and on the seed, so the kernel frees both however it ends. Another
calibration of the same task leaves a locked seed to it.
"""

import fcntl
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
from outlearn.tasks import TaskCard
from outlearn_training.executor import count_slots, slot_environment, visible_gpus
from outlearn_training.limits import die_with_parent
from outlearn_training.prepare import Task
from outlearn_training.seed_training import KeptSeeds, OnProgress, SeedTrainer
from outlearn_training.settings import TrainingSettings
from outlearn_training.slots import ask_for_slot, slot_is_held, stop_asking, take_slot, worker_is_wanted

POLL_SECONDS = 0.1
ASK_SECONDS = 5.0
REPORT_SECONDS = 0.2
STOP_SECONDS = 10.0


class SeedJob(BaseModel):
    """One seed, as its process is told on stdin."""

    model_config = ConfigDict(frozen=True)

    home: Path
    card: TaskCard
    seed: int


class SlotTraining:
    """Trains a calibration's seeds in the slots of `settings`. It is a `Train` for `calibrate`."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings, self._home = settings, settings.home
        self._gpus = visible_gpus()
        self._slots = count_slots(settings, self._gpus)
        self._asked = -ASK_SECONDS
        self._reason = ""

    def __call__(self, task: Task, kept: KeptSeeds, seeds: Sequence[int], report: OnProgress) -> None:
        """Train seeds and keep their predictions.

        Raises:
            OutlearnError: a seed's training raised one, or its process died.
        """
        waiting, running = list(seeds), list[_SeedProcess]()
        try:
            while waiting or running:
                for process in [one for one in running if one.has_ended()]:
                    running.remove(process)
                waiting = [seed for seed in waiting if not kept.path(seed).exists() or kept.read(seed) is None]
                while waiting and (started := self._start_one(task[0], kept, waiting)):
                    waiting.remove(started.seed)
                    running.append(started)
                self._ask(waiting, running)
                left = sum(1 - process.share for process in running) + len(waiting)
                report(self._describe(waiting, running), 1 - left / len(seeds))
                time.sleep(POLL_SECONDS)
        finally:
            stop_asking(self._home)
            for process in running:
                process.stop()

    def _start_one(self, card: TaskCard, kept: KeptSeeds, waiting: Sequence[int]) -> "_SeedProcess | None":
        """Start the first seed that no other calibration is at, where there is a slot."""
        if (seed_lock := _first_lock(kept, waiting)) is None:
            self._reason = "for another calibration of this task"
            return None
        seed, lock = seed_lock
        with lock:
            free = (slot for slot in range(self._slots) if not slot_is_held(self._home, slot))
            slot = None if worker_is_wanted(self._home) else next(free, None)
            if slot is None or (slot_file := take_slot(self._home, slot)) is None:
                self._reason = "for a device"
                return None
            with slot_file:
                job = SeedJob(home=self._home.resolve(), card=card, seed=seed)
                log = self._home / "logs" / f"calibrate-{card.name}-{seed}.log"
                environment = slot_environment(self._settings, slot, self._gpus)
                return _SeedProcess.start(job, environment, log, (lock.fileno(), slot_file.fileno()))

    def _ask(self, waiting: Sequence[int], running: Sequence["_SeedProcess"]) -> None:
        """Ask for a slot where one is needed, and not again and again while a worker is on its way out."""
        needed = waiting and self._reason == "for a device"
        if needed and time.monotonic() - self._asked > ASK_SECONDS:
            ask_for_slot(self._home, urgent=not running)
            self._asked = time.monotonic()

    def _describe(self, waiting: Sequence[int], running: Sequence["_SeedProcess"]) -> str:
        now = running[0].what if len(running) == 1 else f"{len(running)} seeds side by side" if running else ""
        later = f"{len(waiting)} waiting {self._reason}" if waiting else ""
        return "; ".join(filter(None, (now, later))) or "done"


@dataclass
class _SeedProcess:
    seed: int
    log: Path
    process: subprocess.Popen[bytes]
    what: str = "starting"
    share: float = 0.0
    error: str = ""
    _partial: bytes = field(default=b"", repr=False)

    @classmethod
    def start(cls, job: SeedJob, environment: dict[str, str], log: Path, locks: tuple[int, int]) -> "_SeedProcess":
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "outlearn_training.calibration_slots"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                pass_fds=locks,
                bufsize=0,
                start_new_session=True,
            )
        made = cls(job.seed, log, process)
        with suppress(BrokenPipeError), made._pipe("stdin") as stdin:
            stdin.write(job.model_dump_json().encode())
        os.set_blocking(made._pipe("stdout").fileno(), False)
        return made

    def has_ended(self) -> bool:
        """Take in what it says, and whether it has trained its seed. Raises as `SlotTraining` does."""
        code = self.process.poll()
        self._listen()
        if code is None:
            return False
        self._pipe("stdout").close()
        if self.error:
            raise OutlearnError(self.error)
        if code:
            raise OutlearnError(
                f"the training of seed {self.seed} died ({code}), probably for want of memory; what it said is in "
                f"{str(self.log)!r}. The seeds that are done are kept: run `outlearn calibrate` again"
            )
        return True

    def stop(self) -> None:
        """End it now."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._pipe("stdout").close()

    def _listen(self) -> None:
        *lines, self._partial = (self._partial + (self._pipe("stdout").read() or b"")).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.what, self.share = said.get("what", self.what), said.get("share", self.share)
            self.error = said.get("error", self.error)

    def _pipe(self, name: str) -> IO[bytes]:
        pipe: IO[bytes] = getattr(self.process, name)
        return pipe


def _first_lock(kept: KeptSeeds, seeds: Sequence[int]) -> tuple[int, IO[bytes]] | None:
    """The first of the seeds that no other calibration is at, locked until the file and its copies are closed."""
    for seed in seeds:
        path = kept.path(seed).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return seed, file
        file.close()
    return None


def main() -> None:
    """Train the seed of the job on stdin; progress and errors go to stdout, a line of JSON each."""
    from outlearn_training.calibrate import find_task

    die_with_parent()
    say = _Channel()
    job = SeedJob.model_validate_json(sys.stdin.buffer.read())
    try:
        _, pool, secret = find_task(job.home, job.card.name)
        found = SeedTrainer((job.card, pool, secret)).train(job.seed, say.progress)
        KeptSeeds(job.home, job.card).write(job.seed, found)
    except OutlearnError as error:
        say.error(str(error))
        raise SystemExit(1) from None


class _Channel:
    """What was stdout; whatever else is printed goes to stderr."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last = 0.0

    def progress(self, what: str, share: float) -> None:
        """Report, but not all the time."""
        if time.monotonic() - self._last > REPORT_SECONDS:
            self._last = time.monotonic()
            print(json.dumps({"what": what, "share": share}), file=self._file, flush=True)

    def error(self, message: str) -> None:
        """Say why there are no predictions."""
        print(json.dumps({"error": message}), file=self._file, flush=True)


if __name__ == "__main__":
    main()
