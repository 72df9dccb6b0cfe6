"""So much of one agent's at a time: what takes long must not keep the server's threads from others."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from outlearn.errors import BudgetError

SEARCHES = 4


class Turns:
    """Counts what is going on for each agent."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._running = Counter[str]()

    @contextmanager
    def one_of(self, agent: str) -> Iterator[None]:
        """Take one of an agent's turns. Raises BudgetError where they are all taken."""
        with self._lock:
            if self._running[agent] >= self._most:
                raise BudgetError(f"{self._most} searches of yours are running; wait for one of them")
            self._running[agent] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[agent] -= 1
