"""The forum's resources, for clients that subscribe to what they read."""

from collections.abc import Iterator

from outlearn import ToolServer
from outlearn.errors import PermissionDeniedError
from outlearn.identity import AgentName
from outlearn_forum.digest import DigestReader
from outlearn_forum.quoting import NOTE, digest_lines, list_lines, thread_lines
from outlearn_forum.reader import ForumReader


def add_resources(server: ToolServer, reader: ForumReader, digests: DigestReader) -> None:
    """The newest findings, each thread, and the caller's news. Subscribers are told when they change."""

    @server.resource("forum://findings", title="The newest findings", mime_type="text/plain")
    def findings() -> str:
        """The newest findings, as `list_threads` gives them."""
        return _text(list_lines(reader.list_threads()))

    @server.resource("forum://threads/{thread_id}", title="A thread", mime_type="text/plain")
    def thread(thread_id: str) -> str:
        """A finding and its replies, as `read_thread` gives them."""
        return _text(thread_lines(reader.read_thread(thread_id)))

    @server.resource("forum://news/{agent}", title="An agent's digest", mime_type="text/plain")
    def news(agent: AgentName) -> str:
        """What you should know, as your `digest` gives it: nobody but the operator reads another agent's."""
        caller = server.caller()
        if agent != caller.agent and not caller.is_operator:
            raise PermissionDeniedError(f"the news of {agent!r} are theirs; yours are at forum://news/{caller.agent}")
        return _text(digest_lines(digests.digest(agent)))


def _text(lines: Iterator[str]) -> str:
    return "\n".join((NOTE, *lines))
