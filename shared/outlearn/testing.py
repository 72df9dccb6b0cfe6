"""For authors' tests: talk to a server in memory, as a client would."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.server.mcpserver.exceptions import ToolError

from outlearn.server import ToolServer


class ToolClient:
    """Calls tools and returns what they answer, or raises `ToolError` with the message that an agent would see."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def call(self, tool: str, /, **arguments: Any) -> Any:
        """Call a tool; the answer is its structured content (a `{"result": ...}` wrapper is taken off)."""
        result = await self.client.call_tool(tool, arguments)
        text = "\n".join(getattr(block, "text", "") for block in result.content)
        if result.is_error:
            raise ToolError(text)
        content = result.structured_content
        if content is None:
            return json.loads(text) if text[:1] in ("{", "[") else text
        return content["result"] if set(content) == {"result"} else content

    async def tools(self) -> list[str]:
        """The names of the server's tools, sorted."""
        return sorted(tool.name for tool in (await self.client.list_tools()).tools)


@asynccontextmanager
async def connect(server: ToolServer) -> AsyncIterator[ToolClient]:
    """A client of `server` in this process, without a transport."""
    async with Client(server) as client:
        yield ToolClient(client)
