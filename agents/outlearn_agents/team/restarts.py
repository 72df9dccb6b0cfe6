"""A process that is started again when it dies: later each time, and not for ever."""

import time
from collections import deque
from collections.abc import Callable

from outlearn_agents.team.processes import Child

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 60.0
WINDOW_SECONDS = 3600.0


class Kept:
    """A child process with its deaths of the last hour.

    Args:
        start: starts the process.
        most: how many deaths an hour are made good.
        after: seconds from now until the first start.
        clock: seconds, never going back.
    """

    def __init__(
        self, start: Callable[[], Child], most: int, after: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.child: Child | None = None
        self.is_over = False
        self.is_leaving = False
        self.restarts = 0
        self.ending = ""
        self._start = start
        self._most = most
        self._clock = clock
        self._start_at = clock() + after
        self._deaths: deque[float] = deque()

    def start_if_due(self) -> None:
        """Start the process if it does not run, is to run, and its time has come."""
        if self.child is None and not self.is_over and self._clock() >= self._start_at:
            self.child = self._start()

    def take_end(self) -> int | None:
        """The exit code of a process that has just ended, once; None while it runs. `ending` has that in words."""
        if self.child is None or self.child.code is None:
            return None
        code, self.ending = self.child.code, self.child.ending()
        self.child.kill()
        self.child = None
        return code

    def try_again(self) -> float | None:
        """After a death: plan the next start. Returns the seconds until then, or None where it has died too often."""
        now = self._clock()
        while self._deaths and now - self._deaths[0] > WINDOW_SECONDS:
            self._deaths.popleft()
        if len(self._deaths) >= self._most:
            self.is_over = True
            return None
        pause: float = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** len(self._deaths))
        self._deaths.append(now)
        self._start_at = now + pause
        self.restarts += 1
        return pause
