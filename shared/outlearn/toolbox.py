"""Tool access over MCP: several servers behind one `Tools`, over HTTP with a bearer token or in this process."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.types import HEADER_MISMATCH, CallToolRequest, CallToolRequestParams, CallToolResult, Tool
from pydantic import ValidationError

from outlearn.errors import NotFoundError, ServerUnreachableError, leaves
from outlearn.researcher import ToolAnswer, ToolInfo

DIAL_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
READ_SECONDS = 120.0
Result = TypeVar("Result")
Address = str | Callable[[], str]
"""The URL of an MCP endpoint, or what gives it at each call: a server that was started again has another one."""


class Toolbox:
    """The tools of several servers. Over HTTP each call dials anew, so that a restarted server is no event."""

    def __init__(self, servers: Mapping[str, Address | Client], http: httpx2.AsyncClient) -> None:
        self._servers = dict(servers)
        self._http = http
        self._tools: tuple[ToolInfo, ...] | None = None
        self._met: dict[str, dict[str, Any]] = {}

    async def list(self) -> tuple[ToolInfo, ...]:
        """All tools, by server and name."""
        if self._tools is None:
            found: list[ToolInfo] = []
            for server in sorted(self._servers):
                tools = await self._patiently(server, lambda client: client.list_tools())
                found += [_describe(server, tool) for tool in tools.tools]
            self._tools = tuple(found)
        return self._tools

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool.

        A server that refuses the connection is tried again for some seconds: nothing was sent yet, so that is safe.

        Raises:
            NotFoundError: there is no such server.
            ServerUnreachableError: it did not answer.
        """
        return _answer(await self._patiently(server, lambda client: _call(client, tool, dict(arguments))))

    async def _patiently(self, server: str, ask: Callable[[Client], Awaitable[Result]]) -> Result:
        for pause in (*DIAL_SECONDS, None):
            try:
                async with self._dial(server) as client:
                    return await ask(client)
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
        url = target if isinstance(target, str) else target()
        try:
            transport = streamable_http_client(url, http_client=self._http)
            async with Client(transport, **self._met.get(server, {})) as client:
                yield client
                if greeting := client.session.discover_result:
                    self._met[server] = {"mode": client.protocol_version, "prior_discover": greeting}
        except (ExceptionGroup, httpx2.HTTPError, MCPError, ValidationError) as error:
            self._met.pop(server, None)
            raise _unreachable(server, url, error) from error


@asynccontextmanager
async def open_toolbox(
    servers: Mapping[str, Address | MCPServer[Any]], *, token: str | None = None
) -> AsyncIterator[Toolbox]:
    """The tools of `servers`: the addresses of MCP endpoints, or server objects in this process."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    timeout = httpx2.Timeout(30.0, read=READ_SECONDS)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=timeout))
        targets: dict[str, Address | Client] = {}
        for name, server in servers.items():
            if isinstance(server, MCPServer):
                targets[name] = await stack.enter_async_context(Client(server))
            else:
                targets[name] = server
        yield Toolbox(targets, http)


def url_in(ready_file: Path) -> Callable[[], str]:
    """The address of a server that writes its URL into `ready_file` whenever it starts."""

    def read() -> str:
        try:
            return str(json.loads(ready_file.read_bytes())["url"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServerUnreachableError(f"no server has said in {str(ready_file)!r} where it listens") from error

    return read


async def _call(client: Client, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    """Call a tool in one exchange: `Client.call_tool` asks for all schemas after each dial, to check the answer."""
    request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
    try:
        return await client.session.send_request(request, CallToolResult)
    except MCPError as error:
        if error.code != HEADER_MISMATCH:  # a tool whose arguments are to stand in headers, as only its schema says
            raise
        return await client.call_tool(tool, arguments)


def _describe(server: str, tool: Tool) -> ToolInfo:
    hints = tool.annotations
    return ToolInfo(
        server=server,
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema,
        read_only=bool(hints and hints.read_only_hint),
        idempotent=bool(hints and hints.idempotent_hint),
    )


def _answer(result: CallToolResult) -> ToolAnswer:
    text = "\n".join(getattr(block, "text", "") for block in result.content)
    return ToolAnswer(text=text, content=result.structured_content, is_error=bool(result.is_error))


def _unreachable(server: str, url: str, error: Exception) -> Exception:
    """What to raise for a failed exchange. A bug in our own code inside the group is passed on as it is."""
    causes = list(leaves(error))
    known = httpx2.HTTPError | MCPError | ValidationError | ServerUnreachableError
    strange = [one for one in causes if not isinstance(one, known)]
    if strange:
        return strange[0] if isinstance(strange[0], Exception) else error
    if isinstance(causes[0], ValidationError):
        return ServerUnreachableError(f"the {server} server at {url!r} answers what is no tool's result")
    if isinstance(causes[0], MCPError):
        return ServerUnreachableError(f"the {server} server at {url!r} turned us away: {causes[0]}; check the token")
    return ServerUnreachableError(f"the {server} server at {url!r} does not answer: {causes[0]}; is it running?")


def _refused(error: ServerUnreachableError) -> bool:
    cause = error.__cause__
    not_there = (httpx2.ConnectError, FileNotFoundError)
    return cause is not None and all(isinstance(one, not_there) for one in leaves(cause))
