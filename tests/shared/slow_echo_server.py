"""The echo server with a tool that takes a worker thread until it is let go."""

from pathlib import Path

from echo_server import EchoSettings
from echo_server import build as build_echo

from outlearn import READ_ONLY, ToolServer, run


def build(settings: EchoSettings) -> ToolServer:
    """The echo server, slow where it is asked for that."""
    server = build_echo(settings)

    @server.tool(annotations=READ_ONLY)
    def hold(fifo: str) -> str:
        """Wait until somebody opens the named pipe to write."""
        return Path(fifo).read_text()

    return server


if __name__ == "__main__":
    run(build, EchoSettings, "echo")
