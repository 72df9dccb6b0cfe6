"""How the Claude researcher speaks with the Messages API: streams, thoughts, context management, errors, retries."""

import dataclasses
import json
import os
import socket
from typing import Any

import anyio
import pytest
from claude_peer import FAST, LIST, Serve, calls, says
from messages_api import Answer, Failure

from outlearn.errors import ConfigError
from outlearn_agents.claude import ClaudeResearcher, stream
from outlearn_agents.spending.ledger import Ledger, Statement

THOUGHT = {"type": "thinking", "thinking": "Which labels can be trusted?", "signature": "sig-0123"}
REDACTED = {"type": "redacted_thinking", "data": "b3BhcXVl"}
COMPACTION = {"type": "compaction", "content": "<summary>vanilla reaches 0.2</summary>"}


def spent(session: Any) -> Statement:
    ledger = Ledger(session.folder / "spending.sqlite")
    statement = ledger.statement(session.agent)
    ledger.close()
    return statement


def notes(session: Any) -> list[str]:
    lines = (session.folder / "transcript.jsonl").read_text().splitlines()
    return [entry["text"] for entry in map(json.loads, lines) if entry["type"] == "note"]


async def test_the_operator_sees_what_the_model_is_at(
    open_session: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SHOW_SECONDS", 0.0)
    seen: list[str] = []
    api = serve(Answer([THOUGHT, *calls(("filesystem__find_files", {"glob": "*.py"})).content], "tool_use"))
    async with open_session("ada") as session:
        await api.researcher().research(dataclasses.replace(session, on_status=seen.append))
    assert api.requests[0]["stream"] is True
    assert "thinking: 28 characters so far" in seen
    assert "writing filesystem.find_files: 16 characters so far" in seen


async def test_thoughts_go_back_with_the_tool_results_as_they_came(open_session: Any, serve: Serve) -> None:
    api = serve(Answer([THOUGHT, REDACTED, *calls(LIST).content], "tool_use"))
    async with open_session("ada") as session:
        await api.researcher(thinking="4000").research(session)
    assert api.requests[0]["thinking"] == {"type": "enabled", "budget_tokens": 4000}
    assert api.requests[1]["messages"][1]["content"][:2] == [THOUGHT, REDACTED]


async def test_a_thought_that_was_cut_off_is_not_sent_back(open_session: Any, serve: Serve) -> None:
    cut = {"type": "thinking", "thinking": "Which lab", "signature": ""}
    api = serve(Answer([cut], "max_tokens"))
    async with open_session("ada") as session:
        await api.researcher().research(session)
    assert [message["role"] for message in api.requests[1]["messages"]] == ["user", "user"]


@pytest.mark.parametrize("broken", [{"break_after": 0}, {"break_after": 4}, {"error_after": 4}])
async def test_a_stream_that_breaks_is_tried_again_and_counts_as_spent(
    open_session: Any, serve: Serve, broken: dict[str, int]
) -> None:
    whole = calls(LIST)
    api = serve(dataclasses.replace(whole, **broken), whole)
    async with open_session("ada") as session:
        await api.researcher(max_turns="1", answer_tokens="1000", finish_tokens="256").research(session)
        paid = spent(session)
        assert any("trying again" in note for note in notes(session))
    assert api.requests[0] == api.requests[1]
    assert paid.calls == 3
    sure = sum(usage["output_tokens"] for usage in api.usages[1:])
    assert paid.tokens >= sure + 1000
    assert paid.reserved_dollars == 0


async def test_an_answer_that_ends_too_early_is_no_answer(open_session: Any, serve: Serve) -> None:
    """As where a gateway closes a stream in good order, but before its end."""
    api = serve(Answer([{"type": "text", "text": "x"}], end_after=3), calls(LIST))
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
        assert any("ended too early" in note for note in notes(session))
    assert "tool_result" in json.dumps(api.requests[2])


async def test_a_refused_key_is_told_from_a_refused_model(open_session: Any, serve: Serve) -> None:
    for status, refused in ((401, r"the key \(ANTHROPIC_API_KEY\)"), (404, "model 'claude-opus-5-5'")):
        async with open_session("ada") as session:
            with pytest.raises(ConfigError, match=f"the API refuses {refused}: not this one$"):
                await serve(Failure(status, "not this one")).researcher().research(session)


def test_an_endpoint_that_is_no_address_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "local")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "localhost:8080")
    with pytest.raises(ConfigError, match=r"ANTHROPIC_BASE_URL 'localhost:8080/?' must begin with http:// or https://"):
        ClaudeResearcher({})


async def test_it_waits_as_long_as_the_api_asks(open_session: Any, serve: Serve) -> None:
    api = serve(Failure(429, "Slow down", retry_after="0.7"))
    async with open_session("ada") as session:
        await api.researcher().research(session)
        assert notes(session) == ["trying again in 0.7 s: rate_limit_error: Slow down"]
        assert spent(session).calls == 3


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_an_api_that_cannot_be_reached_costs_nothing_and_is_told_off(
    open_session: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlearn_agents.claude.researcher.LAST_CALL_SECONDS", 0.0)
    api, waits = serve(), list[str]()
    api.url = f"http://127.0.0.1:{closed_port()}"
    async with open_session("ada", seconds=3) as session:
        with pytest.raises(ConfigError, match="the API did not answer before the time was over: cannot be reached"):
            await api.researcher(retry_seconds="60").research(dataclasses.replace(session, on_wait=waits.append))
        assert spent(session).calls == 0
        assert "cannot be reached" in notes(session)[0]
    assert waits[0].startswith("the API does not answer (cannot be reached")


async def test_who_is_asked_to_stop_does_not_wait_for_an_api_for_long(
    open_session: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlearn_agents.claude.researcher.LAST_CALL_SECONDS", 0.1)
    api, waits = serve(model=lambda _: Failure(529, "Overloaded", retry_after="100")), list[str]()
    async with open_session("ada") as session:

        def stop(why: str) -> None:
            waits.append(why)
            session.stop.ask()

        with anyio.fail_after(30), pytest.raises(ConfigError, match=r"did not answer .*Overloaded"):
            await api.researcher().research(dataclasses.replace(session, on_wait=stop))
    assert len(waits) == len(api.requests) == 1


async def test_a_call_that_time_cuts_off_counts_as_spent(
    open_session: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlearn_agents.claude.researcher.LAST_CALL_SECONDS", 0.5)
    api = serve(dataclasses.replace(says("a long story " * 50), pause_seconds=0.3))
    async with open_session("ada", seconds=0) as session:
        await api.researcher(finish_tokens="500").research(session)
        assert spent(session).tokens >= 500
        assert spent(session).calls == 1


async def test_context_is_managed_by_the_api_where_it_can(open_session: Any, serve: Serve) -> None:
    api = serve(calls(LIST))
    async with open_session("ada") as session:
        await api.researcher(effort="high").research(session)
    body, betas = api.requests[0], api.headers[0]["anthropic-beta"]
    assert [edit["type"] for edit in body["context_management"]["edits"]] == [
        "clear_tool_uses_20250919",
        "compact_20260112",
    ]
    assert "context-management-2025-06-27" in betas
    assert "compact-2026-01-12" in betas
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": "high"}


@pytest.mark.parametrize(
    ("refuses", "left", "times"),
    [
        ({"compact-2026-01-12"}, {"thinking", "context_management"}, 1),
        ({"context_management"}, {"thinking"}, 2),
        ({"thinking"}, {"context_management"}, 1),
        ({"thinking", "context_management"}, set(), 3),
    ],
)
async def test_what_the_endpoint_refuses_is_left_out_from_then_on(
    open_session: Any, serve: Serve, refuses: set[str], left: set[str], times: int
) -> None:
    api = serve()
    api.refuses = refuses
    async with open_session("ada") as session:
        await api.researcher().research(session)
        given_up = [note for note in notes(session) if "going on without" in note]
    assert len(api.usages) == 3
    assert {"thinking", "context_management"} & set(api.requests[-1]) == left
    assert len(given_up) == times
    assert len(api.requests) == 3 + times


async def test_what_the_user_asked_for_is_not_left_out(open_session: Any, serve: Serve) -> None:
    api = serve()
    api.refuses = {"thinking"}
    async with open_session("ada") as session:
        with pytest.raises(ConfigError, match="thinking"):
            await api.researcher(thinking="adaptive", context="off").research(session)


async def test_a_compaction_stays_in_the_conversation_and_is_paid_for(open_session: Any, serve: Serve) -> None:
    iteration = {"type": "compaction", "input_tokens": 7000, "output_tokens": 900}
    iteration |= {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    api = serve(Answer([COMPACTION, *calls(LIST).content], "tool_use", usage={"iterations": [iteration]}))
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
        tokens = spent(session).tokens
    block = api.requests[1]["messages"][1]["content"][0]
    assert (block["type"], block["content"]) == ("compaction", COMPACTION["content"])
    plain = sum(
        usage[name] for usage in api.usages for name in usage if name.startswith(("input", "output", "cache_c"))
    )
    assert tokens == plain + 7900


async def test_what_was_summarized_is_not_sent_again(open_session: Any, serve: Serve) -> None:
    api = serve(calls(LIST), Answer([COMPACTION, *calls(LIST, first=3).content], "tool_use"))
    async with open_session("ada") as session:
        await api.researcher(max_turns="2").research(session)
    first, summary, *_ = api.requests[2]["messages"]
    assert first == api.requests[0]["messages"][0]
    assert summary["content"][0]["type"] == "compaction"


async def test_an_endpoint_that_cannot_read_a_summary_gets_a_new_conversation(open_session: Any, serve: Serve) -> None:
    api = serve(Answer([COMPACTION, *calls(LIST).content], "tool_use"))
    other = serve()
    other.refuses = {"compact-2026-01-12"}
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
        await other.researcher().research(session)
    assert "begins anew" in other.told(1)
    assert len(other.requests[1]["messages"]) == 1


async def test_a_paused_turn_goes_on(open_session: Any, serve: Serve) -> None:
    api = serve(says("Looking", "pause_turn"), calls(LIST))
    async with open_session("ada") as session:
        await api.researcher().research(session)
    assert api.requests[1]["messages"][-1]["role"] == "assistant"
    assert api.last_results(2)


async def test_empty_texts_are_not_sent_back(open_session: Any, serve: Serve) -> None:
    api = serve(Answer([{"type": "text", "text": " \n"}, *calls(LIST).content], "tool_use"))
    async with open_session("ada") as session:
        await api.researcher().research(session)
    assert [block["type"] for block in api.requests[1]["messages"][1]["content"]] == ["tool_use"]


async def test_another_model_begins_a_new_conversation(open_session: Any, serve: Serve) -> None:
    """Thoughts are bound to the model that had them, and counts of tokens to its tokenizer."""
    api = serve(calls(LIST))
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
        before = len(api.requests)
        await api.researcher(model="claude-sonnet-5-5").research(session)
    (fresh,) = api.requests[before]["messages"]
    assert "begins anew" in fresh["content"][0]["text"]


@pytest.mark.skipif(not os.environ.get("OUTLEARN_LIVE_TEST"), reason="set OUTLEARN_LIVE_TEST=1 and ANTHROPIC_API_KEY")
async def test_live_a_small_model_looks_around_and_posts(open_session: Any) -> None:
    options = {**FAST, "model": "claude-haiku-5-5", "max_turns": "4", "max_dollars": "0.50"}
    async with open_session("ada", direction="Call describe_task, then post one insight about it.") as session:
        await ClaudeResearcher(options).research(session)
        paid = spent(session)
    assert 0 < paid.dollars <= 0.5
    assert paid.calls >= 2
