"""Two servers with an echo tool and nothing else: `bare`, of the `mcp` package alone, and `kit`, of ours.

python benchmarks/echo_servers.py bare|kit [options of any outlearn server]
"""

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server import MCPServer

from outlearn.server import ToolServer, make_server, run
from outlearn.settings import ServerSettings


def build_kit(settings: ServerSettings) -> ToolServer:
    """An echo tool on a server of our kit."""
    server = make_server("kit", settings, instructions="Echoes.")
    server.tool()(echo)
    return server


def serve_bare(settings: ServerSettings) -> None:
    """Serve an echo tool as the `mcp` package does it, with no settings but what is needed to find it."""
    server: MCPServer[Any] = MCPServer("bare")
    server.tool()(echo)
    if settings.transport == "stdio":
        server.run("stdio")
    elif settings.ready_file:
        _serve_http(server, settings.ready_file)


def echo(text: str) -> str:
    """Return the text."""
    return text


def _serve_http(server: MCPServer[Any], ready: Path) -> None:
    config = uvicorn.Config(server.streamable_http_app(), "127.0.0.1", 0, log_level="error", backlog=2048)
    socket = config.bind_socket()
    ready.write_text(json.dumps({"url": f"http://127.0.0.1:{socket.getsockname()[1]}/mcp"}))
    uvicorn.Server(config).run(sockets=[socket])


def main() -> None:
    which, *options = sys.argv[1:]
    if which == "kit":
        run(build_kit, ServerSettings, "echo", options)
    else:
        serve_bare(ServerSettings(_cli_parse_args=options))


if __name__ == "__main__":
    main()
