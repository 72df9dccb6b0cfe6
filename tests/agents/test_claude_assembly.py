"""Streamed messages are put together as they were sent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages_api import events

from outlearn_agents.claude.assembly import Assembly, Reply

TEXTS = st.text(max_size=200)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda one: st.lists(one, max_size=3))
BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXTS, "signature": TEXTS}),
    st.fixed_dictionaries(
        {
            "type": st.just("tool_use"),
            "id": TEXTS,
            "name": TEXTS,
            "input": st.dictionaries(TEXTS, VALUES, max_size=4),
        }
    ),
    st.fixed_dictionaries({"type": st.just("compaction"), "content": TEXTS}),
    st.fixed_dictionaries({"type": st.just("something_new"), "data": TEXTS}),
)


def message(content: list[dict[str, Any]], stop_reason: str = "tool_use") -> dict[str, Any]:
    usage = {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": None}
    return {"content": content, "stop_reason": stop_reason, "usage": usage}


def put_together(sent: dict[str, Any]) -> Reply:
    assembly = Assembly()
    for event in events(sent):
        assert not assembly.is_whole
        assembly.add(event)
    assert assembly.is_whole
    return assembly.reply()


@given(st.lists(BLOCKS, max_size=5))
def test_blocks_arrive_as_they_were_sent_also_those_of_a_kind_that_is_new(content: list[dict[str, Any]]) -> None:
    reply = put_together(message(content))
    assert reply.content == content
    assert reply.stop_reason == "tool_use"
    assert (reply.usage["input_tokens"], reply.usage["output_tokens"]) == (7, 5)


def test_an_input_that_was_cut_off_is_empty_and_one_that_is_no_json_is_an_error() -> None:
    block = {"type": "tool_use", "id": "1", "name": "x", "input": {"a": "long"}, "cut": 5}
    for why in ("max_tokens", "refusal", "model_context_window_exceeded"):
        assert put_together(message([block], why)).content[0]["input"] == {}
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        put_together(message([block]))


def test_a_part_of_a_block_that_did_not_begin_is_an_error() -> None:
    with pytest.raises(ValueError, match="block 3"):
        Assembly().add({"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "x"}})
