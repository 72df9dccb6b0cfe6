"""Long sessions of the Claude researcher: the conversation stays as it was said, and on disk instead of in memory."""

import json
import secrets
import subprocess
import sys
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from claude_peer import LIST, POST, Serve, calls
from managed_context import BIND, CLEARING, Context
from messages_api import Answer, Body

from outlearn.errors import IntegrityError
from outlearn.researcher import ToolAnswer
from outlearn.types import FindingList
from outlearn_agents.claude.request import Body as SentBody
from outlearn_agents.claude.transcript import Transcript

TEXT = "Early students know more than their teacher: “weights” of 0.25. "
THOUGHT = {"type": "thinking", "thinking": "Which labels can be trusted?", "signature": BIND}


def thinks_and_reads(_: Body) -> Answer:
    call = {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": "filesystem__read_file"}
    return Answer([THOUGHT, {**call, "input": {"path": "log.txt"}}], "tool_use")


def long_answers(session: Any, characters: int = 30_000) -> None:
    """Have every file be long."""
    call = session.tools.call

    async def verbose(server: str, tool: str, arguments: Any) -> ToolAnswer:
        if tool == "read_file":
            return ToolAnswer(text=(TEXT * (characters // len(TEXT) + 1))[:characters])
        answer: ToolAnswer = await call(server, tool, arguments)
        return answer

    session.tools.call = verbose


def said(session: Any) -> list[dict[str, Any]]:
    """The conversation as the transcript has it."""
    lines = (session.folder / "transcript.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [{name: one[name] for name in ("role", "content")} for one in entries if one["type"] == "message"]


def sent(transcript: Transcript) -> list[dict[str, Any]]:
    return [json.loads(message) for message in transcript.messages()]


async def test_what_the_api_clears_is_still_sent_as_it_was_said_for_thoughts_are_bound_to_it(
    open_session: Any, serve: Serve
) -> None:
    api = serve(*[thinks_and_reads] * 18)
    async with open_session("ada") as session:
        long_answers(session)
        await api.researcher(max_turns="18", clear_at="20000").research(session)
        on_disk = said(session)
    (edit,) = Context(api.requests[-1]).edits
    assert edit["type"] == CLEARING
    assert edit["cleared_tool_uses"] >= 9
    conversations = [request["messages"] for request in api.requests]
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(conversations))
    assert on_disk[: len(conversations[-1])] == conversations[-1]
    assert {"content-length", "transfer-encoding"} & set(api.headers[-1]) == {"content-length"}
    assert api.headers[-1]["content-type"] == "application/json"
    assert len(api.usages) == len(api.requests) == 19


async def test_started_again_it_sends_the_same_conversation(open_session: Any, serve: Serve) -> None:
    api = serve(*[thinks_and_reads] * 3, *[thinks_and_reads] * 2)
    async with open_session("ada") as session:
        long_answers(session, 5_000)
        await api.researcher(max_turns="2").research(session)
        path, before = session.folder / "transcript.jsonl", len(api.requests)
        with path.open("a") as file:
            file.write('{"at": "2026-01-01", "type": "message", "role": "us')
        assert sent(Transcript(path)) == said(session)
        await api.researcher(max_turns="4").research(session)
        assert sent(Transcript(path)) == said(session)
    last, first = api.requests[before - 1]["messages"], api.requests[before]["messages"]
    assert first[: len(last)] == last
    assert len(api.usages) == len(api.requests)


async def test_where_the_brief_is_not_as_it_was_a_new_conversation_begins(open_session: Any, serve: Serve) -> None:
    """As after an update: thoughts of the old conversation are bound to it, and the API refuses them."""
    api = serve(thinks_and_reads, thinks_and_reads)
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
    before = len(api.requests)
    api.script = [calls(POST, first=7)]
    async with open_session("ada", direction="# Another\n\nLook elsewhere.") as session:
        await api.researcher().research(session)
        assert (await session.ask(FindingList, "forum", "list_threads")).findings
    assert len(api.requests[before]["messages"]) > 2
    (fresh,) = api.requests[before + 1]["messages"]
    assert "begins anew" in fresh["content"][0]["text"]


async def test_what_was_said_is_sent_from_disk_and_takes_no_memory(tmp_path: Path) -> None:
    transcript, length = Transcript(tmp_path / "transcript.jsonl"), 0
    result = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": TEXT * 300}]
    tracemalloc.start()
    try:
        for _ in range(300):
            transcript.say("user", result)
        async for part in SentBody({"model": "claude"}, transcript):
            length += len(part)
        reopened = Transcript(tmp_path / "transcript.jsonl")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(reopened) == 300
    assert peak < 0.1 * length


def test_an_agents_process_loads_nothing_that_only_servers_and_reports_compute_with() -> None:
    heavy = {"numpy", "torch", "scipy", "optuna", "jinja2", "typer", "outlearn.server", "outlearn.tasks"}
    code = f"import sys, outlearn_agents.team.agent, outlearn_agents.claude; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


async def test_a_body_is_as_long_as_it_says_and_can_be_sent_again(tmp_path: Path) -> None:
    transcript = Transcript(tmp_path / "transcript.jsonl")
    bodies = []
    for text in ("plain", "½ “quoted” \\ \n 🙂", "half a character: \ud83d"):
        transcript.say("user", [{"type": "text", "text": text}])
        body = SentBody({"model": "claude", "system": "\ud83d ü"}, transcript)
        bodies = [b"".join([part async for part in body]) for _ in range(2)]
        assert body.headers == {"Content-Length": str(len(bodies[0]))}
        assert bodies[0] == bodies[1]
    read = json.loads(bodies[0])
    assert read["system"] == "? ü"
    assert [message["content"][0]["text"] for message in read["messages"]][1:] == [
        "½ “quoted” \\ \n 🙂",
        "half a character: ?",
    ]


async def test_a_transcript_that_was_changed_meanwhile_ends_the_work(open_session: Any, serve: Serve) -> None:
    api = serve(calls(LIST), calls(LIST, first=3))
    async with open_session("ada") as session:
        call, path = session.tools.call, session.folder / "transcript.jsonl"

        async def meddle(server: str, tool: str, arguments: Any) -> ToolAnswer:
            path.unlink()
            answer: ToolAnswer = await call(server, tool, arguments)
            return answer

        session.tools.call = meddle
        with pytest.raises(IntegrityError, match="changed"):
            await api.researcher().research(session)
    assert len(api.requests) == 1
