"""The hours of an agent's process, without its pauses."""

import anyio

from outlearn.researcher import Stop
from outlearn_agents.spending.ledger import Ledger

SEEN_SECONDS = 5.0


class Shift:
    """An agent at work, from now on. If its process dies, the time since the ledger last heard of it is not counted."""

    def __init__(self, ledger: Ledger, agent: str) -> None:
        self._ledger = ledger
        self._agent = agent
        self._number: int | None = ledger.begin_shift(agent)

    def rest(self, is_resting: bool) -> None:
        """The agent is paused, or goes on."""
        self._seen()
        self._number = None if is_resting else self._ledger.begin_shift(self._agent)

    async def keep(self, stop: Stop) -> None:
        """Count the hours until cancelled, and ask the agent to stop when they are over."""
        try:
            while True:
                self._seen()
                statements = self._ledger.statement(self._agent), self._ledger.statement()
                if any(one.shares().get("hours", 0.0) >= 1 for one in statements):
                    stop.ask()
                await anyio.sleep(SEEN_SECONDS)
        finally:
            self._seen()

    def _seen(self) -> None:
        if self._number is not None:
            self._ledger.seen(self._number)
