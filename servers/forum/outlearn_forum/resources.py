"""The forum's resources, for clients that subscribe to what they read."""

from collections.abc import Iterator

from outlearn import ToolServer
from outlearn.identity import AgentName
from outlearn_forum.digest import DigestReader
from outlearn_forum.quoting import NOTE, digest_lines, list_lines, thread_lines
from outlearn_forum.reader import ForumReader


def add_resources(server: ToolServer, reader: ForumReader, digests: DigestReader) -> None:
    """The newest findings, each thread, and each agent's news. Subscribers are told when they change."""

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
        """What an agent should know, as its `digest` gives it."""
        return _text(digest_lines(digests.digest(agent)))


def _text(lines: Iterator[str]) -> str:
    return "\n".join((NOTE, *lines))
