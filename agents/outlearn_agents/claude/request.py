"""A request's body, sent while it is read: the conversation is on disk, and no whole copy of it comes to be."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from outlearn_agents.claude.transcript import Transcript, encode

MESSAGES, COMMA, END = b', "messages": [', b", ", b"]}"


class Body:
    """`fields` and a transcript's conversation as JSON, in parts. It can be sent again.

    Args:
        fields: what is asked beside the messages; not empty.
        transcript: stays as it is until the request is sent.
    """

    def __init__(self, fields: Mapping[str, Any], transcript: Transcript) -> None:
        self._head = encode(dict(fields)).removesuffix(b"}") + MESSAGES
        self._transcript = transcript

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP needs to know: without a length, it would be sent in chunks, which not every gateway takes."""
        commas = len(COMMA) * max(0, len(self._transcript) - 1)
        return {"Content-Length": str(len(self._head) + self._transcript.size + commas + len(END))}

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._head
        for index, message in enumerate(self._transcript.messages()):
            yield COMMA + message if index else message
        yield END
