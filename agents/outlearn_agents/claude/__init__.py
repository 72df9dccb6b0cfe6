"""The Claude researcher: the Messages API with the four servers' tools."""

from outlearn_agents.claude.researcher import ClaudeResearcher

__all__ = ["ClaudeResearcher"]
