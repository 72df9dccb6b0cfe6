"""The Claude researcher and kill -9: no tool call takes effect twice, no message is lost, no dollar is forgotten."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_peer import LIST, POST, Serve, calls
from messages_api import Answer, Body

from outlearn.errors import ServerUnreachableError
from outlearn.researcher import ToolAnswer
from outlearn.types import FileText, FindingList, RunList, SnapshotList
from outlearn_agents.claude import tools as claude_tools
from outlearn_agents.spending.ledger import Ledger

AGENT = Path(__file__).parent / "agent_process.py"
METHOD = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"
TURN = calls(
    POST,
    ("training__submit_run", {"method": "vanilla"}),
    ("filesystem__write_file", {"path": "new.py", "text": METHOD}),
    ("filesystem__edit_file", {"path": "log.txt", "old": "a", "new": "ab"}),
    ("filesystem__save_snapshot", {"message": "so far"}),
)


class Agent:
    """Starts the agent's process on an endpoint, again and again; it ends killed, or by itself."""

    def __init__(self, processes: "subprocess.Popen[str]") -> None:
        self._processes, self._pid = processes, 0

    def start(self, deadly_tool: str = "") -> None:
        assert self._processes.stdin
        self._processes.stdin.write(f"{deadly_tool}\n")
        self._processes.stdin.flush()
        self._pid = self._said()

    def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)

    async def end(self) -> int:
        with anyio.fail_after(60):
            return await anyio.to_thread.run_sync(self._said)

    def _said(self) -> int:
        assert self._processes.stdout
        return int(self._processes.stdout.readline())


@contextmanager
def agents(home: Path, folder: Path, url: str) -> Iterator[Agent]:
    command = [sys.executable, str(AGENT), str(home), str(folder)]
    environment = {**os.environ, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "key"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as processes:  # type: ignore[call-overload]
        yield Agent(processes)


async def test_killed_at_any_point_it_does_everything_once(open_session: Any, serve: Serve, toy_home: Path) -> None:
    agent: Agent | None = None

    def die_in_the_call(_: Body) -> Answer:
        assert agent is not None
        agent.kill()
        return TURN

    api = serve(die_in_the_call, TURN)
    async with open_session("ada") as session:
        await session.tools.call("filesystem", "write_file", {"path": "log.txt", "text": "a"})
        ends = []
        with agents(toy_home, session.folder, api.url) as agent:
            for deadly_tool in ("", "post_finding", "edit_file", "save_snapshot", "submit_run", ""):
                agent.start(deadly_tool)
                ends.append(await agent.end())
        posts = (await session.ask(FindingList, "forum", "list_threads")).findings
        runs = (await session.ask(RunList, "training", "list_runs")).runs
        snapshots = (await session.ask(SnapshotList, "filesystem", "list_snapshots")).snapshots
        log = await session.ask(FileText, "filesystem", "read_file", path="log.txt")
        with closing(Ledger(session.folder / "spending.sqlite")) as ledger:
            paid = ledger.statement("ada")
    assert ends == [-signal.SIGKILL] * 5 + [0]
    assert (len(posts), len(runs), len(snapshots), log.text) == (1, 1, 1, "ab")
    results = [block for message in api.requests[-1]["messages"] for block in message["content"]]
    assert sum(block["type"] == "tool_result" and "is_error" not in block for block in results) == 5
    assert (paid.calls, paid.lost_calls) == (3, 1)
    entries = [json.loads(line) for line in (session.folder / "transcript.jsonl").read_text().splitlines()]
    assert [entry["role"] for entry in entries if entry["type"] == "message"][:3] == ["user", "assistant", "user"]


@pytest.mark.parametrize("cut", ['{"type": "mess', '{"at": "2026-11-24", "type": "message", "role": "user", "conte'])
async def test_a_torn_last_line_is_as_if_it_were_never_written(open_session: Any, serve: Serve, cut: str) -> None:
    api = serve(calls(LIST))
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
        path, asked = session.folder / "transcript.jsonl", len(api.requests)
        whole = path.read_bytes()
        path.write_bytes(whole + cut.encode())
        await api.researcher().research(session)
        assert path.read_bytes().startswith(whole)
    assert api.requests[asked]["messages"][: len(api.requests[0]["messages"])] == api.requests[0]["messages"]


async def test_killed_while_the_model_answers_it_asks_the_same_again(open_session: Any, serve: Serve) -> None:
    api = serve(calls(LIST))
    async with open_session("ada") as session:
        await api.researcher(max_turns="1").research(session)
        path = session.folder / "transcript.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:4]))  # begin, usage, calls, results: then the second call was lost
        again = serve()
        await again.researcher().research(session)
    assert again.requests[0]["messages"] == api.requests[1]["messages"][:3]


async def test_a_server_that_crashes_in_a_call_is_called_again_with_the_same_request(
    open_session: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claude_tools, "PAUSES", (0.01,))
    api = serve(calls(POST))
    async with open_session("ada") as session:
        call, made = session.tools.call, []

        async def crash_twice(server: str, tool: str, arguments: Any) -> ToolAnswer:
            answer: ToolAnswer = await call(server, tool, arguments)
            made.append(arguments)
            if tool == "post_finding" and len(made) <= 2:
                raise ServerUnreachableError("the forum server does not answer")
            return answer

        session.tools.call = crash_twice
        await api.researcher(max_turns="1").research(session)
        session.tools.call = call
        assert len((await session.ask(FindingList, "forum", "list_threads")).findings) == 1
    assert len(made) == 3
    assert {one["request_id"] for one in made} == {"toolu_0_forum__post_finding"}
    assert "is_error" not in api.told(1)


async def test_a_server_that_stays_away_becomes_an_error_that_the_model_can_act_on(
    open_session: Any, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claude_tools, "PATIENCE_SECONDS", 0.0)
    api = serve(calls(POST, LIST))
    async with open_session("ada") as session:

        async def gone(server: str, tool: str, arguments: Any) -> ToolAnswer:
            raise ServerUnreachableError(f"the {server} server does not answer")

        await session.tools.list()
        session.tools.call = gone
        await api.researcher(max_turns="1").research(session)
    results = [block for block in api.requests[1]["messages"][2]["content"] if block["type"] == "tool_result"]
    assert all(result["is_error"] for result in results)
    assert "may or may not have taken effect" in results[0]["content"]
    assert results[1]["content"] == "the training server does not answer"


async def test_every_tool_that_changes_something_can_be_repeated(open_session: Any) -> None:
    async with open_session("ada") as session:
        infos = await session.tools.list()
    by_request = {info.name for info in infos if info.takes_request_id}
    by_nature = {info.name for info in infos if not info.read_only and not info.takes_request_id}
    assert all(info.is_repeatable for info in infos)
    assert by_nature == {"evaluate", "nominate", "vote", "edit_post", "cancel_run"}
    assert {"submit_run", "post_finding", "reply", "write_file", "edit_file", "save_snapshot"} <= by_request
