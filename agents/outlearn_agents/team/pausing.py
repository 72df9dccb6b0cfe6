"""Pausing: a paused agent waits at its next tool call, whatever kind of researcher it is."""

from collections.abc import Callable, Mapping
from typing import Any

from outlearn.researcher import Stop, ToolAnswer, ToolInfo, Tools
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.team.control import read_control
from outlearn_agents.team.status import write_status

POLL_SECONDS = 0.5


class Gate:
    """Where an agent waits while the operator wants it to pause.

    Args:
        on_wait: called with True when the agent begins to wait, and with False when it goes on.
    """

    def __init__(self, folder: RunFolder, agent: str, stop: Stop, on_wait: Callable[[bool], None]) -> None:
        self._folder = folder
        self._agent = agent
        self._stop = stop
        self._on_wait = on_wait
        self._waiting = 0

    async def wait(self, before: str) -> None:
        """Return once the agent is not paused any more, or has to finish."""
        if not self._is_shut():
            return
        self._waiting += 1
        if self._waiting == 1:
            self._on_wait(True)
            write_status(self._folder, self._agent, f"paused before {before}", "paused")
        try:
            while self._is_shut():
                await self._stop.sleep(POLL_SECONDS)
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self._on_wait(False)
        write_status(self._folder, self._agent, "going on")

    def _is_shut(self) -> bool:
        return self._stop.seconds_left > 0 and self._agent in read_control(self._folder).paused


class GatedTools:
    """An agent's tools behind its gate."""

    def __init__(self, tools: Tools, gate: Gate) -> None:
        self._tools = tools
        self._gate = gate

    async def list(self) -> tuple[ToolInfo, ...]:
        """All tools."""
        return await self._tools.list()

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool, once the gate is open."""
        await self._gate.wait(f"{server}.{tool}")
        return await self._tools.call(server, tool, arguments)
