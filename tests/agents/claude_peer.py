"""The Messages API peer as tests of the Claude researcher use it: with a client, and short ways to say things."""

import json
from collections.abc import Callable
from typing import Any

import anthropic
from messages_api import Answer, MessagesApi

from outlearn_agents.claude import ClaudeResearcher

FAST = {"retry_seconds": "0.01", "finish_seconds": "0"}
POST = ("forum__post_finding", {"title": "A thought", "text": "Early students know more.", "kind": "insight"})
LIST = ("training__list_methods", {})


class Api(MessagesApi):
    """The peer over real HTTP."""

    def researcher(self, **options: str) -> ClaudeResearcher:
        client = anthropic.AsyncAnthropic(api_key="key", base_url=self.url, max_retries=0)
        return ClaudeResearcher({**FAST, **options}, client=client)

    def last_results(self, request: int) -> list[dict[str, Any]]:
        """The tool results in the last message of a request."""
        content = self.requests[request]["messages"][-1]["content"]
        return [block for block in content if block["type"] == "tool_result"]

    def told(self, request: int) -> str:
        """The last message of a request, as JSON."""
        return json.dumps(self.requests[request]["messages"][-1])


Serve = Callable[..., Api]


def says(text: str, stop_reason: str = "end_turn") -> Answer:
    return Answer([{"type": "text", "text": text}], stop_reason)


def calls(*tools: tuple[str, dict[str, Any]], stop_reason: str = "tool_use", first: int = 0) -> Answer:
    blocks = [
        {"type": "tool_use", "id": f"toolu_{first + index}_{name}", "name": name, "input": arguments}
        for index, (name, arguments) in enumerate(tools)
    ]
    return Answer(blocks, stop_reason)
