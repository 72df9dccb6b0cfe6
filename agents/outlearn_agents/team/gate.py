"""Pausing: a paused agent waits at its next tool call, whatever kind of researcher it is."""

from collections.abc import Mapping
from typing import Any

from outlearn.researcher import Stop, ToolAnswer, ToolInfo, Tools
from outlearn_agents.team.control import read_control
from outlearn_agents.team.folder import RunFolder
from outlearn_agents.team.status import write_status

POLL_SECONDS = 0.5


class GatedTools:
    """An agent's tools, which wait while the operator wants the agent to pause."""

    def __init__(self, tools: Tools, folder: RunFolder, agent: str, stop: Stop) -> None:
        self._tools = tools
        self._folder = folder
        self._agent = agent
        self._stop = stop

    async def list(self) -> tuple[ToolInfo, ...]:
        """All tools."""
        return await self._tools.list()

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool, once the agent is not paused any more or has to finish."""
        waited = False
        while self._stop.seconds_left > 0 and self._agent in read_control(self._folder).paused:
            if not waited:
                write_status(self._folder, self._agent, f"paused before {server}.{tool}", "paused")
                waited = True
            await self._stop.sleep(POLL_SECONDS)
        if waited:
            write_status(self._folder, self._agent, "going on")
        return await self._tools.call(server, tool, arguments)
