"""Parts of a request that not every endpoint and model knows: given up where they are refused."""

from dataclasses import dataclass, field
from typing import Any

from outlearn_agents.claude.options import ClaudeOptions

CLEARING_BETA = "context-management-2025-06-27"
COMPACTION_BETA = "compact-2026-01-12"
KEPT_TOOL_USES = 8
CLEAR_AT_LEAST = 20_000
SUMMARY = """\
Summarize this conversation so that your research goes on from the summary alone: what you tried and what came out, \
with run ids, what you believe and why, what is under way, what you wanted to do next, and what is left of your \
budget. Wrap the summary in <summary></summary>."""


@dataclass(frozen=True)
class _Feature:
    name: str
    word: str
    """What a refusal of it says."""
    beta: str = ""
    edit: dict[str, Any] | None = None
    fields: dict[str, Any] = field(default_factory=dict)


class Features:
    """What a request asks for beside the conversation itself."""

    def __init__(self, options: ClaudeOptions) -> None:
        self._fixed = _thinking(options) if options.thinking != "auto" else {}
        if options.effort:
            self._fixed |= {"output_config": {"effort": options.effort}}
        self._optional: list[_Feature] = []
        if options.thinking == "auto":
            self._optional.append(_Feature("adaptive thinking", "thinking", fields=_thinking(options)))
        if options.context == "auto":
            self._optional += [_clearing(options), _compaction(options)]

    @property
    def compacts(self) -> bool:
        """Whether the API may summarize the conversation, which is a model call of its own within a call."""
        return any(one.beta == COMPACTION_BETA for one in self._optional)

    def fields(self) -> dict[str, Any]:
        """Fields of the request's body."""
        made: dict[str, Any] = dict(self._fixed)
        for one in self._optional:
            made |= one.fields
        edits = [one.edit for one in self._optional if one.edit]
        return made | ({"context_management": {"edits": edits}} if edits else {})

    def headers(self) -> dict[str, str]:
        """The request's headers."""
        betas = ",".join(one.beta for one in self._optional if one.beta)
        return {"anthropic-beta": betas} if betas else {}

    def give_up(self, refusal: str) -> str | None:
        """Ask for less from now on: without what a refusal names, or else the last part.

        Returns what was given up, or None where there is nothing left to give up.
        """
        named = [one for one in self._optional if one.word in refusal.lower()]
        if not self._optional:
            return None
        given_up = (named or self._optional)[-1]
        self._optional.remove(given_up)
        return given_up.name


def _thinking(options: ClaudeOptions) -> dict[str, Any]:
    if options.thinking == "off":
        return {"thinking": {"type": "disabled"}}
    if isinstance(options.thinking, int):
        return {"thinking": {"type": "enabled", "budget_tokens": options.thinking}}
    return {"thinking": {"type": "adaptive", "display": "summarized"}}


def _clearing(options: ClaudeOptions) -> _Feature:
    edit = {
        "type": "clear_tool_uses_20250919",
        "trigger": {"type": "input_tokens", "value": options.clear_at},
        "keep": {"type": "tool_uses", "value": KEPT_TOOL_USES},
        "clear_at_least": {"type": "input_tokens", "value": CLEAR_AT_LEAST},
    }
    return _Feature("clearing of old tool results", "clear", CLEARING_BETA, edit)


def _compaction(options: ClaudeOptions) -> _Feature:
    trigger = {"type": "input_tokens", "value": options.compact_at}
    edit = {"type": "compact_20260112", "trigger": trigger, "instructions": SUMMARY}
    return _Feature("compaction", "compact", COMPACTION_BETA, edit)
