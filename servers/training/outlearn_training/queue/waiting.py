"""Callers that wait for runs: their questions are asked together, in a thread, and the event loop is free meanwhile."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from outlearn_training.queue.run_queue import Glance

THREADS = 4
Answer = TypeVar("Answer")


@dataclass
class _Round:
    """One look at all runs that somebody waits for."""

    wanted: set[str] = field(default_factory=set)
    seen: Mapping[str, Glance] | None = None
    done: anyio.Event = field(default_factory=anyio.Event)


class RunWatch:
    """Looks at runs for whoever waits for them: all of them with one query, once in `seconds`."""

    def __init__(self, look: Callable[[Iterable[str]], Mapping[str, Glance]], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._coming: _Round | None = None
        self._threads = anyio.CapacityLimiter(THREADS)  # of its own: tools that wait in threads keep theirs

    async def ask(self, question: Callable[[], Answer]) -> Answer:
        """What `question` returns or raises, asked in a thread."""
        return await anyio.to_thread.run_sync(question, limiter=self._threads)

    async def glance(self, run_id: str) -> Glance | None:
        """How the run is at the next look; None where there is no such run."""
        while True:
            coming, leads = self._coming, self._coming is None
            if coming is None:
                coming = self._coming = _Round()
            coming.wanted.add(run_id)
            await (self._lead(coming) if leads else coming.done.wait())
            if coming.seen is not None:  # else whoever led it was cancelled, or got an error of their own
                return coming.seen.get(run_id)

    async def _lead(self, coming: _Round) -> None:
        try:
            await anyio.sleep(self._seconds)
            self._coming = None  # whoever comes now is in the next
            coming.seen = await self.ask(lambda: self._look(coming.wanted))
        finally:
            if self._coming is coming:
                self._coming = None
            coming.done.set()
