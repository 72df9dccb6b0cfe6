"""For authors' tests: talk to a server in memory, over stdio or over HTTP, as a client would."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver.exceptions import ToolError

from outlearn.errors import ConfigError
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


@asynccontextmanager
async def connect_stdio(module: str, *options: str) -> AsyncIterator[ToolClient]:
    """A client of `python -m MODULE OPTIONS`, a child process that speaks over stdin and stdout."""
    command = StdioServerParameters(command=sys.executable, args=["-m", module, *options])
    async with Client(command) as client:
        yield ToolClient(client)


@asynccontextmanager
async def connect_http(url: str, token: str | None = None) -> AsyncIterator[ToolClient]:
    """A client of the server at `url`, with a bearer token where it needs one."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=60))
        client = await stack.enter_async_context(Client(streamable_http_client(url, http_client=http)))
        yield ToolClient(client)


@contextmanager
def http_server(module: str, *options: str, deadline_seconds: float = 30.0) -> Iterator[str]:
    """Run `python -m MODULE OPTIONS` as an HTTP server on a free port; yields its URL once `/healthz` answers.

    Without `--tokens` among the options, it lets everybody in.

    Raises:
        ConfigError: it ended, or did not answer before the deadline.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTLEARN_")}
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder, "ready.json")
        http = ["--transport", "http", "--port", "0", "--ready-file", str(ready)]
        http += [] if any(option.startswith("--tokens") for option in options) else ["--unsafe-no-tokens"]
        with subprocess.Popen([sys.executable, "-m", module, *http, *options], env=environment) as process:
            try:
                yield _wait_until_healthy(process, ready, time.monotonic() + deadline_seconds)
            finally:
                process.terminate()


def _wait_until_healthy(process: "subprocess.Popen[bytes]", ready: Path, deadline: float) -> str:
    while time.monotonic() < deadline and process.poll() is None:
        if ready.exists():
            url = str(json.loads(ready.read_bytes())["url"])
            try:
                if httpx2.get(url.removesuffix("/mcp") + "/healthz", timeout=1).status_code == httpx2.codes.OK:
                    return url
            except httpx2.TransportError:
                pass
        time.sleep(0.05)
    raise ConfigError(f"the server did not start (exit status {process.poll()}); its log is on stderr")
