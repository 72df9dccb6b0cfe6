"""Two servers with an echo tool and hardly anything else: `bare`, of the `mcp` package alone, and `kit`, of ours.

python benchmarks/echo_servers.py bare|kit [options of any outlearn server]
"""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer

from outlearn.files import write_atomic
from outlearn.server import ToolServer, make_server, run
from outlearn.serving import IDLE_SECONDS
from outlearn.settings import ServerSettings


def build_kit(settings: ServerSettings) -> ToolServer:
    """An echo tool on a server of our kit."""
    server = make_server("kit", settings, instructions="Echoes.")
    server.tool()(echo)
    return server


def serve_bare(settings: ServerSettings) -> None:
    """Serve an echo tool as the `mcp` package does it, with no settings but what is needed to find it."""
    server: MCPServer[Any] = MCPServer("bare", log_level="WARNING")
    server.tool()(echo)
    server.tool()(repeat)
    if settings.transport == "stdio":
        server.run("stdio")
    elif settings.ready_file:
        _serve_http(server, settings.ready_file)


def echo(text: str) -> str:
    """Return the text."""
    return text


def repeat(text: str, times: int) -> str:
    """Return the text so many times."""
    return text * times


def _serve_http(server: MCPServer[Any], ready: Path) -> None:
    config = uvicorn.Config(server.streamable_http_app(), log_level="error", timeout_keep_alive=IDLE_SECONDS)
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        write_atomic(ready, json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"}).encode())
        uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    which, *options = sys.argv[1:]
    if which == "kit":
        run(build_kit, ServerSettings, "echo", options)
    else:
        serve_bare(ServerSettings(_cli_parse_args=options))


if __name__ == "__main__":
    main()
