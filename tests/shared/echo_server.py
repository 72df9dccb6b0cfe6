"""A third-party tool server of the smallest kind, run as `python -m echo_server`."""

import errno

from mcp.server.mcpserver import Context
from pydantic import BaseModel

from outlearn import READ_ONLY, OutlearnError, ServerSettings, ToolServer, make_server, run


class EchoSettings(ServerSettings):
    """Settings of the echo server."""

    prefix: str = ""
    loud: bool = False


class Echo(BaseModel):
    """What was said, and by whom."""

    text: str
    agent: str
    role: str


def build(settings: EchoSettings) -> ToolServer:
    """The echo server."""
    server = make_server("echo", settings, instructions="Says what it was told.")

    @server.tool(annotations=READ_ONLY)
    def echo(text: str) -> Echo:
        """Say `text`, and who asked for it."""
        print("this line must not reach the protocol")
        said = settings.prefix + (text.upper() if settings.loud else text)
        return Echo(text=said, agent=server.caller().agent, role=server.caller().role)

    @server.tool(annotations=READ_ONLY)
    async def count(to: int, ctx: Context) -> list[int]:
        """Count from one, with progress."""
        for number in range(1, to + 1):
            await ctx.report_progress(number, to)
        return list(range(1, to + 1))

    @server.tool()
    def fail(how: str) -> str:
        """Fail with an explanation, with a bug, or on a full disk."""
        if how == "explained":
            raise OutlearnError(f"{how!r} cannot be done; try something else")
        if how == "disk full":
            raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")
        raise RuntimeError("secret of the server")

    return server


if __name__ == "__main__":
    run(build, EchoSettings, "echo")
