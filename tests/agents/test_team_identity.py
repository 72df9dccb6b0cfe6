"""The four servers of a team, as processes: who they take a caller for, and what they never write down."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from outlearn.errors import ServerUnreachableError
from outlearn.identity import TokenFile
from outlearn.settings import ServerSettings
from outlearn.toolbox import Toolbox, open_toolbox
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.team.processes import SERVERS, start_server, stop_children, wait_ready
from outlearn_training.prepare import prepare

API_KEY = "sk-ant-api03-canary0000000000000000"
PASSWORD = "canary-of-the-database"
NAMING = {"agent", "agents", "author", "caller", "identity", "member", "name", "owner", "role", "team", "token", "user"}
FILTERS = {
    ("forum", "list_threads", "author"),
    ("forum", "search", "author"),
    ("filesystem", "list_snapshots", "agent"),
}


class Team:
    """Four servers at work, with a token for everybody."""

    def __init__(self, folder: RunFolder, urls: dict[str, str]) -> None:
        self.folder = folder
        self.urls = urls
        self.tokens = TokenFile(folder.tokens)
        self.made: list[str] = []

    @contextlib.asynccontextmanager
    async def as_(self, name: str, role: Any = "agent") -> AsyncIterator[Toolbox]:
        """The tools with a new token of `name`."""
        self.made.append(self.tokens.issue(name, role))
        async with open_toolbox(self.urls, token=self.made[-1]) as tools:
            yield tools


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    prepare(folder.root, "math")
    TokenFile(folder.tokens).issue("nobody")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTHROPIC_API_KEY", API_KEY)
        patch.setenv("OUTLEARN_TOKEN", "outlearn_" + "c" * 43)
        children = [start_server(folder, name, ["--log-level", "debug"]) for name in SERVERS]
    try:
        yield Team(folder, anyio.run(wait_ready, folder, SERVERS, lambda: None))
    finally:
        anyio.run(stop_children, children)


def properties(schema: Any) -> set[str]:
    """The names of all properties in a JSON schema, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(properties, schema))
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})) | set().union(*map(properties, schema.values()))


# identity


async def test_no_argument_of_any_tool_says_who_calls(team: Team) -> None:
    async with team.as_("ada") as tools:
        found = await tools.list()
    naming = {(one.server, one.name, word) for one in found for word in properties(one.input_schema) & NAMING}
    assert naming == FILTERS
    assert all(one.read_only for one in found if any((one.server, one.name) == named[:2] for named in FILTERS))


async def test_a_name_that_is_passed_all_the_same_is_refused(team: Team) -> None:
    bob = dict.fromkeys(NAMING, "bob")
    async with team.as_("ada") as ada, team.as_("bob") as of_bob:
        refused = [
            await ada.call("filesystem", "write_file", {"path": "note.txt", "text": "ada's", **bob}),
            await ada.call("forum", "post_finding", {"title": "t", "text": "x", "kind": "insight", **bob}),
            await ada.call("evaluation", "get_budget", bob),
        ]
        assert all(one.is_error and "takes no 'agent'" in one.text for one in refused)
        assert "note.txt" not in (await of_bob.call("filesystem", "list_directory", {})).text
        assert not (await of_bob.call("forum", "list_threads", {})).content.get("findings")
    assert not (team.folder.root / "workspaces" / "ada" / "note.txt").exists()


async def test_agents_and_the_operator_see_the_same_tools_and_other_runs(team: Team) -> None:
    run = {"method": "vanilla", "kind": "pilot"}
    async with team.as_("ada") as ada, team.as_("bob") as bob, team.as_("chief", "operator") as chief:
        assert await ada.list() == await chief.list(), "what is the operator's alone is no tool"
        run_id = (await ada.call("training", "submit_run", run)).content["run_id"]
        await ada.call("training", "cancel_run", {"run_id": run_id})
        seen = [(await one.call("training", "list_runs", {})).text for one in (ada, bob, chief)]
        answers = [await one.call("training", "get_run", {"run_id": run_id}) for one in (bob, chief)]
        unknown = await bob.call("training", "get_run", {"run_id": "run-0000000000"})
        missing = [await one.call("evaluation", "finalize", {}) for one in (bob, chief)]
    assert [run_id in text for text in seen] == [True, False, True]
    assert [answer.is_error for answer in answers] == [True, False]
    assert answers[0].text.replace(run_id, "") == unknown.text.replace("run-0000000000", "")
    assert missing[0] == missing[1]
    assert missing[0].is_error


async def test_revoking_shuts_an_agent_out_of_all_servers_at_once(team: Team) -> None:
    calls = {
        "training": "list_methods",
        "evaluation": "get_budget",
        "forum": "list_threads",
        "filesystem": "list_snapshots",
    }
    async with team.as_("eve") as eve:
        for server, tool in calls.items():
            assert not (await eve.call(server, tool, {})).is_error
        team.tokens.revoke("eve")
        for server, tool in calls.items():
            with pytest.raises(ServerUnreachableError, match="check the token"):
                await eve.call(server, tool, {})


# secrets


def test_a_database_password_is_not_told_where_it_is_refused(tmp_path: Path) -> None:
    environment = {**os.environ, "OUTLEARN_DATABASE_URL": f"sqlite://ada:{PASSWORD}@db.example/x"}
    command = [sys.executable, "-m", "outlearn_forum", "--home", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "sqlite://ada:***@db.example" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def fail_as_an_agent(team: Team) -> None:
    """An agent's process whose API is out of reach: it has its key and its token at hand."""
    agent = AgentSpec(name="ada", researcher="claude", direction="# x")
    team.folder.write_spec(TeamSpec(task="math", agents=(agent,)))
    team.made.append(team.tokens.issue("ada"))
    environment = os.environ | {
        "ANTHROPIC_API_KEY": API_KEY,
        "ANTHROPIC_BASE_URL": f"http://ada:{PASSWORD}@127.0.0.1:9",
        "OUTLEARN_TOKEN": team.made[-1],
    }
    command = [sys.executable, "-m", "outlearn_agents.team.agent", "--agent", "ada", "--seconds", "2"]
    log = team.folder.log("agent-ada")
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--run", str(team.folder.root)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
        )
        assert API_KEY not in Path(f"/proc/{process.pid}/cmdline").read_text()
        while process.poll() is None:  # once it has said what it has to say, the second signal ends it
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            if log.stat().st_size:
                process.terminate()
    process.communicate()
    assert log.read_text()


async def test_no_secret_is_written_down_or_shown(team: Team) -> None:
    async with team.as_("ada") as tools:
        await tools.call("filesystem", "read_file", {"path": "../../tokens.json"})
        await tools.call("training", "submit_run", {"file": "none.py"})
    token = team.made[-1]
    for url in team.urls.values():
        odd = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Origin": f"http://{token}"}
        httpx2.post(f"{url}?token={token}", headers=odd, content=b"{")
        httpx2.post(url, headers=odd | {"Host": token}, content=b"{")
    await anyio.to_thread.run_sync(fail_as_an_agent, team)

    secrets = [API_KEY, PASSWORD, *team.made]
    written = {path: path.read_bytes() for path in team.folder.root.rglob("*") if path.is_file()}
    assert b"outlearn_***" in written[team.folder.log("forum")], "the test must have brought one to be blotted out"
    leaks = [(str(path), one) for path, data in written.items() for one in secrets if one.encode() in data]
    assert leaks == []
    for name in SERVERS:
        process = Path("/proc", str(json.loads(team.folder.ready(name).read_bytes())["pid"]))
        shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        assert not [one for one in [*secrets, "outlearn_ccc"] if one.encode() in shown], name
    away = ServerSettings(home=team.folder.root, database_url=f"postgresql://ada:{PASSWORD}@db/x")
    assert away.database("forum").startswith(f"postgresql://ada:{PASSWORD}@db/x?outlearn_schema=outlearn_")
