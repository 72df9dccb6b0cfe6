"""Tool access over MCP: several servers behind one `Tools`, over HTTP with a bearer token or in this process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.types import CallToolResult, Tool

from outlearn.errors import NotFoundError, ServerUnreachableError, leaves
from outlearn.researcher import ToolAnswer, ToolInfo

DIAL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
READ_SECONDS = 120.0
Dial = AbstractAsyncContextManager[Client]


class Toolbox:
    """The tools of several servers. Over HTTP each call dials anew, so that a restarted server is no event."""

    def __init__(self, servers: Mapping[str, str | Client], http: httpx2.AsyncClient) -> None:
        self._servers = dict(servers)
        self._http = http
        self._tools: tuple[ToolInfo, ...] | None = None

    async def list(self) -> tuple[ToolInfo, ...]:
        """All tools, by server and name."""
        if self._tools is None:
            found: list[ToolInfo] = []
            for server in sorted(self._servers):
                async with self._dial(server) as client:
                    found += [_describe(server, tool) for tool in (await client.list_tools()).tools]
            self._tools = tuple(found)
        return self._tools

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool.

        A server that refuses the connection is tried again for some seconds: nothing was sent yet, so that is safe.

        Raises:
            NotFoundError: there is no such server.
            ServerUnreachableError: it did not answer.
        """
        for pause in (*DIAL_SECONDS, None):
            try:
                async with self._dial(server) as client:
                    return _answer(await client.call_tool(tool, dict(arguments)))
            except ServerUnreachableError as error:
                if pause is None or not _refused(error):
                    raise
                await anyio.sleep(pause)
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _dial(self, server: str) -> AsyncIterator[Client]:
        target = self._servers.get(server)
        if target is None:
            raise NotFoundError(f"no server {server!r}; there are: {', '.join(sorted(self._servers))}")
        if isinstance(target, Client):
            yield target
            return
        try:
            async with Client(streamable_http_client(target, http_client=self._http)) as client:
                yield client
        except (ExceptionGroup, httpx2.HTTPError, MCPError) as error:
            raise _unreachable(server, target, error) from error


@asynccontextmanager
async def open_toolbox(
    servers: Mapping[str, str | MCPServer[Any]], *, token: str | None = None
) -> AsyncIterator[Toolbox]:
    """The tools of `servers`: the URLs of MCP endpoints, or server objects in this process."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = httpx2.Timeout(30.0, read=READ_SECONDS)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
        targets: dict[str, str | Client] = {}
        for name, server in servers.items():
            targets[name] = server if isinstance(server, str) else await stack.enter_async_context(Client(server))
        yield Toolbox(targets, http)


def _describe(server: str, tool: Tool) -> ToolInfo:
    read_only = bool(tool.annotations and tool.annotations.read_only_hint)
    return ToolInfo(
        server=server,
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema,
        read_only=read_only,
    )


def _answer(result: CallToolResult) -> ToolAnswer:
    text = "\n".join(getattr(block, "text", "") for block in result.content)
    return ToolAnswer(text=text, content=result.structured_content, is_error=bool(result.is_error))


def _unreachable(server: str, url: str, error: Exception) -> Exception:
    """What to raise for a failed exchange. A bug in our own code inside the group is passed on as it is."""
    causes = list(leaves(error))
    strange = [one for one in causes if not isinstance(one, httpx2.HTTPError | MCPError | ServerUnreachableError)]
    if strange:
        return strange[0] if isinstance(strange[0], Exception) else error
    if isinstance(causes[0], MCPError):
        return ServerUnreachableError(f"the {server} server at {url!r} turned us away: {causes[0]}; check the token")
    return ServerUnreachableError(f"the {server} server at {url!r} does not answer: {causes[0]}; is it running?")


def _refused(error: ServerUnreachableError) -> bool:
    cause = error.__cause__
    return cause is not None and all(isinstance(one, httpx2.ConnectError) for one in leaves(cause))
