"""Workers of a derived home folder, in device slots of the home folder that it is derived from."""

import os
from pathlib import Path

from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import LocalExecutor, has_ended
from outlearn_training.workers.slots import Asking, slot_is_held, stop_asking, take_slot, worker_is_wanted


class BorrowingExecutor(LocalExecutor):
    """Has a worker of `settings.home` in each free slot of `lender`, unless runs wait there and no worker has a slot.

    A worker inherits the lock on the lender's slot, so the kernel gives that back however the worker ends.
    """

    def __init__(self, settings: TrainingSettings, lender: Path) -> None:
        super().__init__(settings)
        self._lender = lender
        self._asking = Asking()

    def ensure(self) -> None:
        if worker_is_wanted(self._lender):
            self._asking.ask(self._settings.home, urgent=True)
            return
        free = [slot for slot in range(self._slots) if not slot_is_held(self._lender, slot)]
        for slot in free:
            self._borrow(slot)
        if not free and not any(self._has_worker(slot) for slot in range(self._slots)):
            self._asking.ask(self._lender, urgent=True)

    def stop(self) -> None:
        for home in (self._lender, self._settings.home):
            stop_asking(home)
        super().stop()

    def _borrow(self, slot: int) -> None:
        lent = take_slot(self._lender, slot)
        if lent is None:
            return
        with lent:
            self._has_worker(slot)  # collects one that ended
            os.set_inheritable(lent.fileno(), True)
            self._starting[slot] = self._start(slot)

    def _has_worker(self, slot: int) -> bool:
        if slot in self._starting and has_ended(self._starting[slot]):
            del self._starting[slot]
        return slot in self._starting or slot_is_held(self._settings.home, slot)
