"""What the Messages API does with a context: clears old tool results, summarizes, and binds thoughts to their past.

Models with preserved thinking refuse a thought where anything before it was changed, but for what the API itself
cleared or summarized: a client must send a conversation as it was.
"""

import hashlib
import json
from typing import Any

from scripted_model import Block, Body

CLEARING, COMPACTION = "clear_tool_uses_20250919", "compact_20260112"
CLEARED = "[cleared]"
SUMMARY: Block = {"type": "compaction", "content": "<summary>So far, vanilla is best.</summary>"}
BIND = "sign this"
"""The signature of a scripted thought that the API is to bind."""
BOUND = "sig-bound-"
CHARACTERS_A_TOKEN = 4


class Context:
    """A request's conversation, before the API manages it and after.

    `body` is what the model sees; `edits` what was done for that, as a response tells it; `is_full`: it is summarized.
    """

    def __init__(self, body: Body) -> None:
        self.body = body
        self.edits: list[dict[str, Any]] = []
        self._messages = body["messages"]
        self._prefixes = _hashes(body)
        wanted = {edit["type"]: edit for edit in body.get("context_management", {}).get("edits", ())}
        tokens = count_tokens(body) if wanted else 0
        if CLEARING in wanted and tokens >= wanted[CLEARING]["trigger"]["value"]:
            tokens -= self._clear(wanted[CLEARING])
        self.is_full = COMPACTION in wanted and tokens >= wanted[COMPACTION]["trigger"]["value"]

    def bind(self, content: list[Block]) -> list[Block]:
        """The content with its new thoughts bound to the conversation."""
        signature = f"{BOUND}{self._prefixes[-1]}"
        return [one | {"signature": signature} if one.get("signature") == BIND else one for one in content]

    def problem(self) -> str | None:
        """Where a thought comes back in another conversation than the one in which it was had."""
        for index, (message, prefix) in enumerate(zip(self._messages, self._prefixes, strict=False)):
            for one in message["content"] if isinstance(message["content"], list) else ():
                signature = one.get("signature", "")
                if prefix and signature.startswith(BOUND) and signature != f"{BOUND}{prefix}":
                    where = f"messages.{index}: Invalid `signature` in `thinking` block"
                    return f"{where}. The block is bound to a different conversation."
        return None

    def usage(self) -> dict[str, Any]:
        """What a summary adds to a call's usage."""
        used = {"input_tokens": count_tokens(self.body), "output_tokens": tokens_of(SUMMARY)}
        return {"iterations": [{"type": "compaction", **used}]} if self.is_full else {}

    def _clear(self, edit: dict[str, Any]) -> int:
        """Clear all tool results but the last ones, if that is worth it. Returns how many tokens that frees."""
        results = [one for message in self._messages for one in message["content"] if one["type"] == "tool_result"]
        old = {one["tool_use_id"]: one for one in results[: -edit["keep"]["value"]]}
        freed = sum(len(str(one["content"])) // CHARACTERS_A_TOKEN for one in old.values())
        if freed < edit["clear_at_least"]["value"]:
            return 0
        self.body = {**self.body, "messages": [_cleared(message, old) for message in self._messages]}
        self.edits.append({"type": CLEARING, "cleared_tool_uses": len(old), "cleared_input_tokens": freed})
        return freed


def _cleared(message: dict[str, Any], old: dict[str, Block]) -> dict[str, Any]:
    blocks = [one | {"content": CLEARED} if one.get("tool_use_id") in old else one for one in message["content"]]
    return {**message, "content": blocks}


def _hashes(body: Body) -> list[str | None]:
    """For each message, and for one after them, a hash of what stands before it, back to the last summary.

    A message with a summary has none: its thoughts were had in a conversation that need not be sent again.
    """
    start = hashlib.sha256(json.dumps([body.get("tools"), body.get("system")]).encode())
    hashes: list[str | None] = []
    prefix = start.copy()
    for message in body["messages"]:
        is_summary = any(isinstance(one, dict) and one["type"] == "compaction" for one in message["content"])
        prefix = start.copy() if is_summary else prefix
        hashes.append(None if is_summary else prefix.hexdigest())
        prefix.update(json.dumps(message).encode())
    return [*hashes, prefix.hexdigest()]


def count_tokens(body: Body) -> int:
    """Tokens of a request, about as many as a real tokenizer finds."""
    fixed = tokens_of(body.get("tools")) + tokens_of(body.get("system"))
    return fixed + sum(tokens_of(one) for one in body["messages"])


def tokens_of(part: Any) -> int:
    """Tokens of a part of a request."""
    return len(json.dumps(part)) // CHARACTERS_A_TOKEN if part else 0
