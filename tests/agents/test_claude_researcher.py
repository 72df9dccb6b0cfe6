"""The Claude researcher against a local Messages API over HTTP, and the four real servers."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_peer import POST, Serve, calls, says
from messages_api import Failure
from typer.testing import CliRunner

from outlearn.errors import ConfigError
from outlearn.researcher import Session, Stop, ToolAnswer
from outlearn.types import FindingList
from outlearn_agents import cli
from outlearn_agents.claude import ClaudeResearcher
from outlearn_agents.claude.transcript import Transcript
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec


async def test_it_calls_tools_of_all_servers_and_their_errors_reach_the_model(open_session: Any, serve: Serve) -> None:
    api = serve(
        calls(
            ("training__list_methods", {}), ("evaluation__evaluate", {"run_id": "run-000000"}), ("forum__nothing", {})
        ),
        calls(POST),
    )
    async with open_session("ada") as session:
        await api.researcher().research(session)
        posts = (await session.ask(FindingList, "forum", "list_threads")).findings
    assert [post.title for post in posts] == ["A thought"]
    first = api.requests[0]
    names = [tool["name"] for tool in first["tools"]]
    assert names == sorted(names)
    assert {"forum__post_finding", "training__submit_run", "evaluation__evaluate", "filesystem__write_file"} <= {*names}
    assert "Find the labels to trust." in first["system"][0]["text"]
    assert first["cache_control"] == first["system"][0]["cache_control"] == {"type": "ephemeral"}
    listed, evaluated, unknown = api.last_results(1)
    assert "vanilla" in listed["content"]
    assert "is_error" not in listed
    assert evaluated["is_error"]
    assert "has no receipts" in evaluated["content"]
    assert unknown["is_error"]
    assert "no tool 'forum__nothing'" in unknown["content"]


async def test_calls_of_one_turn_run_at_the_same_time(open_session: Any, serve: Serve) -> None:
    api = serve(calls(("training__list_methods", {}), ("forum__list_threads", {})))
    async with open_session("ada") as session:
        call = session.tools.call
        arrived = {"training": anyio.Event(), "forum": anyio.Event()}

        async def meet(server: str, tool: str, arguments: Any) -> ToolAnswer:
            arrived[server].set()
            for event in arrived.values():
                with anyio.fail_after(10):
                    await event.wait()
            answer: ToolAnswer = await call(server, tool, arguments)
            return answer

        session.tools.call = meet
        await api.researcher().research(session)
    assert [result["tool_use_id"] for result in api.last_results(1)] == [
        "toolu_0_training__list_methods",
        "toolu_1_forum__list_threads",
    ]


async def test_the_transcript_has_a_call_before_it_takes_effect(open_session: Any, serve: Serve) -> None:
    api = serve(calls(POST))
    async with open_session("ada") as session:
        call, seen = session.tools.call, []

        async def look(server: str, tool: str, arguments: Any) -> ToolAnswer:
            seen.append((session.folder / "transcript.jsonl").read_text())
            answer: ToolAnswer = await call(server, tool, arguments)
            return answer

        session.tools.call = look
        await api.researcher().research(session)
        entries = [json.loads(line) for line in (session.folder / "transcript.jsonl").read_text().splitlines()]
    assert "forum__post_finding" in seen[0].splitlines()[-1]
    assert {entry["type"] for entry in entries} == {"message", "usage"}
    assert all("at" in entry for entry in entries)


async def test_killed_between_call_and_answer_it_repeats_calls_without_harm(open_session: Any, serve: Serve) -> None:
    asked = calls(POST, ("training__list_methods", {}), ("filesystem__save_snapshot", {"message": "x"}))
    async with open_session("ada") as session:
        transcript = Transcript(session.folder / "transcript.jsonl")
        transcript.say("user", [{"type": "text", "text": "Begin."}])
        transcript.say("assistant", asked.content)
        # the post took effect before the process was killed, in the middle of writing the next line
        arguments = {**POST[1], "request_id": "toolu_0_forum__post_finding"}
        await session.tools.call("forum", "post_finding", arguments)
        with (session.folder / "transcript.jsonl").open("a") as file:
            file.write('{"type": "message", "role": "us')
        api = serve()
        await api.researcher().research(session)
        posts = (await session.ask(FindingList, "forum", "list_threads")).findings
    assert len(posts) == 1
    posted, listed, saved = api.last_results(0)
    assert posts[0].finding_id in posted["content"]
    assert "vanilla" in listed["content"]
    assert "snap-" in saved["content"]


async def test_request_ids_are_the_desks_business_not_the_models(open_session: Any, serve: Serve) -> None:
    api = serve()
    async with open_session("ada") as session:
        await api.researcher().research(session)
    tools = {tool["name"]: tool["input_schema"]["properties"] for tool in api.requests[0]["tools"]}
    assert "request_id" not in tools["training__submit_run"]
    assert "title" in tools["forum__post_finding"]


async def test_it_waits_while_the_api_is_overloaded(open_session: Any, serve: Serve) -> None:
    said: list[str] = []
    api = serve(Failure(529, "Overloaded"), Failure(429, "Slow down"), Failure(500, "Oops"), calls(POST))
    async with open_session("ada") as session:
        await api.researcher().research(dataclasses.replace(session, on_status=said.append))
        assert (await session.ask(FindingList, "forum", "list_threads")).findings
    assert sum("does not answer" in text for text in said) == 3
    assert api.requests[0] == api.requests[3]


async def test_a_refusal_is_left_out_of_the_conversation(open_session: Any, serve: Serve) -> None:
    api = serve(says("I cannot", "refusal"), calls(POST))
    async with open_session("ada") as session:
        await api.researcher().research(session)
        assert (await session.ask(FindingList, "forum", "list_threads")).findings
        transcript = (session.folder / "transcript.jsonl").read_text()
    assert "I cannot" not in json.dumps(api.requests[1]["messages"])
    assert "withheld by a safety filter" in api.requests[1]["messages"][-1]["content"][0]["text"]
    assert "I cannot" in transcript


async def test_it_ends_when_the_model_has_nothing_left_to_do(open_session: Any, serve: Serve) -> None:
    api = serve()
    async with open_session("ada") as session:
        await api.researcher().research(session)
    assert len(api.requests) == 3
    assert "Go on with your research" in api.requests[1]["messages"][-1]["content"][0]["text"]


async def test_a_call_that_was_cut_off_is_not_made(open_session: Any, serve: Serve) -> None:
    api = serve(calls(POST, stop_reason="max_tokens"))
    async with open_session("ada") as session:
        await api.researcher().research(session)
        assert not (await session.ask(FindingList, "forum", "list_threads")).findings
    (result,) = api.last_results(1)
    assert result["is_error"]
    assert "cut off at its token limit" in result["content"]


@pytest.mark.parametrize(
    "full",
    [
        says("", "model_context_window_exceeded"),
        Failure(400, "prompt is too long: 1000001 tokens"),
        Failure(413, "Request exceeds the maximum size"),
    ],
)
async def test_a_full_context_begins_a_new_conversation_from_the_notebook(
    open_session: Any, serve: Serve, full: Any
) -> None:
    api = serve(calls(("training__list_methods", {})), full, calls(POST, first=5))
    async with open_session("ada") as session:
        await api.researcher().research(session)
        assert (await session.ask(FindingList, "forum", "list_threads")).findings
    (fresh,) = api.requests[2]["messages"]
    assert "notebook.md" in fresh["content"][0]["text"]


@pytest.mark.parametrize(
    ("status", "words"), [(401, "invalid x-api-key"), (404, "model: claude-nothing"), (400, "max_tokens: too large")]
)
async def test_a_wrong_key_or_model_ends_with_what_the_api_said(
    open_session: Any, serve: Serve, status: int, words: str
) -> None:
    api = serve(*[Failure(status, words)] * 4)
    async with open_session("ada") as session:
        with pytest.raises(ConfigError, match=words):
            await api.researcher(model="claude-nothing", price="none").research(session)


async def test_used_up_turns_leave_one_to_finish(open_session: Any, serve: Serve) -> None:
    api = serve(*[calls(("training__list_methods", {}), first=turn) for turn in range(9)])
    async with open_session("ada") as session:
        await api.researcher(max_turns="2").research(session)
    assert len(api.requests) == 3
    assert "nominate your best two runs" in json.dumps(api.requests[-1]["messages"][-1])


async def test_asked_to_stop_it_gives_up_waiting_and_takes_one_turn_to_finish(open_session: Any, serve: Serve) -> None:
    async with open_session("ada", accuracy=lambda _: 0.7) as session:
        call, stop = session.tools.call, session.stop

        async def wait_forever(server: str, tool: str, arguments: Any) -> ToolAnswer:
            if tool == "get_run":
                stop.ask()
                await anyio.sleep_forever()
            answer: ToolAnswer = await call(server, tool, arguments)
            return answer

        session.tools.call = wait_forever
        api = serve(calls(("training__get_run", {"run_id": "run-000000", "wait_seconds": 50})), calls(POST, first=3))
        await api.researcher().research(session)
        assert (await session.ask(FindingList, "forum", "list_threads")).findings
    assert len(api.requests) == 2
    assert "nearly over" in json.dumps(api.requests[1]["messages"])
    assert "given up" in json.dumps(api.requests[1]["messages"])


async def test_without_time_it_only_finishes(open_session: Any, serve: Serve) -> None:
    api = serve()
    async with open_session("ada", seconds=0) as session:
        await api.researcher().research(session)
    assert len(api.requests) == 1


async def test_long_answers_are_cut_with_a_note(open_session: Any, serve: Serve) -> None:
    api = serve(calls(("filesystem__read_file", {"path": "long.txt"})))
    async with open_session("ada") as session:
        call = session.tools.call

        async def verbose(server: str, tool: str, arguments: Any) -> ToolAnswer:
            if tool == "read_file":
                return ToolAnswer(text="x" * 100_000)
            answer: ToolAnswer = await call(server, tool, arguments)
            return answer

        session.tools.call = verbose
        await api.researcher().research(session)
    (result,) = api.last_results(1)
    assert len(result["content"]) < 41_000
    assert "100000 characters in all" in result["content"]


@pytest.mark.parametrize("config", [{}, {"ANTHROPIC_PROFILE": "missing"}])
def test_without_a_key_the_error_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, toy_home: Path, config: dict[str, str]
) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in config.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"set ANTHROPIC_API_KEY .* or use `--researcher offline`"):
        ClaudeResearcher()
    RunFolder(toy_home).write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# x"),)))
    asked = CliRunner().invoke(cli.app, ["inspect", str(toy_home), "--claude"])
    assert isinstance(asked.exception, ConfigError)
    assert "or leave --claude out" in str(asked.exception)


@pytest.mark.parametrize("options", [{"modle": "x"}, {"max_turns": "many"}, {"answer_tokens": "5"}])
def test_wrong_options_are_named(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ClaudeResearcher(options)


def test_sessions_and_stops_need_no_event_loop() -> None:
    assert Stop(5).seconds_left > 4
    assert Session.__dataclass_params__.frozen  # type: ignore[attr-defined]
