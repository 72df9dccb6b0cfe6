"""Processes of a team: they start, answer, end with the runner, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import httpx2
import pytest

from outlearn.errors import ConflictError, NotFoundError, PluginError, ServerUnreachableError
from outlearn.identity import OPERATOR, TokenFile
from outlearn.locks import holder
from outlearn.researcher import Stop
from outlearn.toolbox import open_toolbox, url_in
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec, agent_name, next_folder
from outlearn_agents.team import agent as agent_module
from outlearn_agents.team.agent import AgentSettings, make_session
from outlearn_agents.team.agent import main as agent_main
from outlearn_agents.team.agents import CANNOT_WORK
from outlearn_agents.team.control import Control, change_control
from outlearn_agents.team.pausing import Gate
from outlearn_agents.team.processes import SERVERS, Child, clean_environment, plugin_servers, stop_children, tail
from outlearn_agents.team.restarts import Kept
from outlearn_agents.team.runner import issue_tokens, make_team, run_team
from outlearn_agents.team.servers import ServerProcesses
from outlearn_agents.team.status import read_status, write_status

LIMIT_SECONDS = 60
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]).pid, flush=True)
time.sleep(100)
"""


def child(tmp_path: Path, *argv: str) -> Child:
    return Child("child", [sys.executable, *argv], tmp_path / "child.log", os.environ)


async def until_logged(one: Child) -> str:
    with anyio.fail_after(LIMIT_SECONDS):
        while not (text := tail(one.log)):
            await anyio.sleep(0.02)
    return text


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "Z (zombie)" not in status.read_text()


async def test_a_process_that_ignores_the_signal_is_ended_with_its_children(tmp_path: Path) -> None:
    one = child(tmp_path, "-c", STUBBORN)
    grandchild = int(await until_logged(one))
    await stop_children([one], 0.2)
    assert one.code == -signal.SIGKILL
    with anyio.fail_after(LIMIT_SECONDS):
        while is_alive(grandchild):
            await anyio.sleep(0.02)


async def test_a_polite_process_gets_the_time_to_end(tmp_path: Path) -> None:
    polite = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); "
        "print('up', flush=True); time.sleep(100)"
    )
    one = child(tmp_path, "-c", polite)
    await until_logged(one)
    await stop_children([one], LIMIT_SECONDS)
    assert one.code == 3


def ended(tmp_path: Path, code: str, log: str = "child.log") -> Kept:
    kept = Kept(lambda: Child("child", [sys.executable, "-c", code], tmp_path / log, os.environ), most=0)
    kept.start_if_due()
    assert kept.child
    kept.child._process.wait(LIMIT_SECONDS)
    assert kept.take_end() is not None
    return kept


def test_a_process_that_died_of_an_error_is_told_with_it(tmp_path: Path) -> None:
    raises = "raise {}OSError(28, 'No space left on device', 'status.json'){}"
    why = "exit code 1: OSError: [Errno 28] No space left on device: 'status.json'"
    assert ended(tmp_path, raises.format("", "")).ending == why
    assert ended(tmp_path, raises.format("ExceptionGroup('both', [", "])")).ending == why
    for code, words in (("raise SystemExit(3)", "exit code 3"), ("import os; os.abort()", "exit code -6")):
        assert ended(tmp_path, code).ending == words  # and not what another process said in the same log


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_process_that_could_not_write_its_log_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "full.log").symlink_to("/dev/full")
    why = f"it could not write to '{tmp_path}/full.log'; is the disk full?"
    assert ended(tmp_path, "print('finished')", "full.log").ending == f"exit code 120: {why}"


def test_a_process_that_left_no_word_on_a_full_disk_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn_agents.team.processes.FULL_BYTES", 2**80)  # as if no disk had any room
    assert "exit code 3: it could not write to " in ended(tmp_path, "raise SystemExit(3)").ending


def test_a_module_on_the_leash_ends_when_the_runner_is_gone(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import sys, time; print(sys.argv, flush=True); time.sleep(100)")
    argv = [
        sys.executable,
        "-m",
        "outlearn_agents.team.bound_child",
        str(tmp_path / "lock"),
        "sleeper",
        "--option",
        "7",
    ]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin
        assert process.stdout
        assert b"'--option', '7'" in process.stdout.readline()
        process.stdin.close()
        assert process.wait(LIMIT_SECONDS) == -signal.SIGTERM


async def test_the_four_servers_start_answer_and_end(toy_home: Path) -> None:
    folder = RunFolder(toy_home)
    token = TokenFile(folder.tokens).issue("ada")
    servers = ServerProcesses(folder, {}, restarts=0)
    urls = {name: url_in(folder.ready(name)) for name in SERVERS}
    try:
        await servers.start()
        for name, url in urls.items():
            health = httpx2.get(url().removesuffix("/mcp") + "/healthz").json()
            assert health["server"] == f"outlearn-{name}"
        async with open_toolbox(urls, token=token) as tools:
            assert {info.server for info in await tools.list()} == set(SERVERS)
            answer = await tools.call("training", "describe_task", {})
            assert answer.content["card"]["name"] == "toy"
            assert answer.content == (await tools.call("training", "describe_task", {"task": "toy"})).content
            assert (await tools.call("training", "describe_task", {"task": "nope"})).is_error
        async with open_toolbox(urls, token="wrong") as strangers:
            with pytest.raises(ServerUnreachableError, match="check the token"):
                await strangers.call("forum", "list_threads", {})
    finally:
        await servers.end()
    assert all(holder(folder.held(name)) is None for name in SERVERS)


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers a tool server as an installed package does."""

    def register(name: str, source: str) -> None:
        site = tmp_path / "site"
        info = site / "dice-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dice\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[outlearn.servers]\n{name} = dice_server:main\n")
        (site / "dice_server.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("PYTHONPATH", str(site))

    return register


DICE = """
from outlearn import READ_ONLY, ServerSettings, make_server, run

def build(settings):
    server = make_server("dice", settings, instructions="Rolls dice.")

    @server.tool(annotations=READ_ONLY)
    def roll() -> str:
        \"\"\"Roll a die.\"\"\"
        return f"{server.caller().agent} in {settings.home.name}: 4"

    return server

def main():
    run(build, ServerSettings, "dice")
"""


async def test_a_registered_server_is_started_beside_the_four_and_knows_its_callers(
    toy_home: Path, registered: Callable[..., None]
) -> None:
    assert plugin_servers() == ()
    registered("dice", DICE)
    assert plugin_servers() == ("dice",)
    folder = RunFolder(toy_home)
    token = TokenFile(folder.tokens).issue("ada")
    servers = ServerProcesses(folder, {}, restarts=0, names=plugin_servers())
    try:
        await servers.start()
        async with open_toolbox({"dice": url_in(folder.ready("dice"))}, token=token) as tools:
            assert (await tools.call("dice", "roll", {})).text == f"ada in {toy_home.name}: 4"
    finally:
        await servers.end()
    assert holder(folder.held("dice")) is None


async def test_a_registered_server_that_does_not_load_is_named(toy_home: Path, registered: Callable[..., None]) -> None:
    registered("dice", "import nothing_of_this_name")
    TokenFile(RunFolder(toy_home).tokens).issue("ada")
    servers = ServerProcesses(RunFolder(toy_home), {}, restarts=0, names=plugin_servers())
    try:
        with pytest.raises(ServerUnreachableError, match="from dice 1, fails to load"):
            await servers.start()
    finally:
        await servers.end()


def test_a_registered_server_has_a_name_that_tools_can_bear(registered: Callable[..., None]) -> None:
    registered("../dice", DICE)
    with pytest.raises(PluginError, match="must have a name like"):
        plugin_servers()


async def test_a_server_that_cannot_start_is_named_with_the_end_of_its_log(toy_home: Path) -> None:
    folder = RunFolder(toy_home)
    TokenFile(folder.tokens).issue("ada")
    servers = ServerProcesses(folder, {"forum": ["--database-url", "nonsense://"]}, restarts=5)
    try:
        with pytest.raises(ServerUnreachableError, match="forum server ended with"):
            await servers.start()
    finally:
        await servers.end()


async def test_a_server_that_is_gone_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn.toolbox.DIAL_SECONDS", (0.01,))
    async with open_toolbox({"forum": "http://127.0.0.1:9/mcp"}) as tools:
        with pytest.raises(ServerUnreachableError, match=r"the forum server .* does not answer"):
            await tools.call("forum", "list_threads", {})
        with pytest.raises(NotFoundError, match="no server 'chess'"):
            await tools.call("chess", "move", {})


def test_servers_do_not_see_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("OUTLEARN_TOKEN", "secret")
    monkeypatch.setenv("OUTLEARN_WORKERS", "3")
    environment = clean_environment()
    assert "secret" not in environment.values()
    assert environment["OUTLEARN_WORKERS"] == "3"


async def test_a_team_without_a_task_leaves_nothing_and_after_a_final_none_starts(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no task 'nope'"):
        await run_team(RunFolder(tmp_path / "new"), make_team("nope", ["why"]), 1, lambda _: None)
    assert not (tmp_path / "new").exists()
    seeds = tmp_path / "old" / "vault" / "math" / "final-seeds.json"
    seeds.parent.mkdir(parents=True)
    seeds.write_text("[]")
    with pytest.raises(ConflictError, match="the final of task 'math' has begun"):
        await run_team(RunFolder(tmp_path / "old"), make_team("math", ["why"]), 1, lambda _: None)


def test_one_team_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).lock(),
        pytest.raises(ConflictError, match=f"a team is at work in .* stop it: `outlearn team stop {tmp_path}`"),
        RunFolder(tmp_path).lock(),
    ):
        pass
    with RunFolder(tmp_path).lock():
        assert RunFolder(tmp_path).is_at_work


def test_a_final_at_work_is_told_from_a_team(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.lock_for_final():
        assert (folder.is_at_work, folder.is_final_at_work) == (False, True)
        with pytest.raises(ConflictError, match=f"a final is at work in .*`kill -INT {os.getpid()}`"), folder.lock():
            pass
    assert (folder.is_at_work, folder.is_final_at_work) == (False, False)


def test_a_session_ends_the_tokens_of_the_one_before_and_none_that_were_made_by_hand(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path), TokenFile(tmp_path / "tokens.json")
    spec = TeamSpec(task="math", agents=(AgentSpec(name="ada", direction="# x"),))
    guest, by_hand = file.issue("guest"), file.issue("ada")
    first = issue_tokens(folder, spec)
    rotated = file.rotate("operator")
    second = issue_tokens(folder, spec)
    assert [file.verify(one) is not None for one in first.values()] == [False, False]
    assert [file.verify(one) is not None for one in second.values()] == [True, True]
    assert all(file.verify(one) for one in (guest, by_hand, rotated))
    assert file.verify(second["operator"]) == OPERATOR


def test_folders_and_agents_get_names(tmp_path: Path) -> None:
    assert next_folder(tmp_path, "demo") == tmp_path / "demo"
    assert next_folder(tmp_path, "demo") == tmp_path / "demo-2"
    assert next_folder(tmp_path / "runs", "demo").is_dir()
    names = [agent_name(index) for index in range(40)]
    assert names[:3] == ["ada", "boole", "curie"]
    assert len(set(names)) == 40
    with pytest.raises(NotFoundError, match=r"no team\.json"):
        RunFolder(tmp_path).read_spec()


@pytest.mark.parametrize(("agent", "words"), [("ada", "needs a key"), ("zoe", "no agent 'zoe'")])
def test_an_agent_that_cannot_work_says_why_in_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], agent: str, words: str
) -> None:
    monkeypatch.setenv("OUTLEARN_TOKEN", "token")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
        monkeypatch.delenv(name)
    folder = RunFolder(tmp_path)
    folder.write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", researcher="claude", direction="# x"),)))
    with pytest.raises(SystemExit) as left:
        agent_main(["--run", str(tmp_path), "--agent", agent, "--seconds", "5"])
    assert left.value.code == CANNOT_WORK
    status = read_status(folder, agent)
    assert status.state == "failed"
    assert words in status.doing
    assert "OUTLEARN_TOKEN" not in os.environ
    assert time.time() - status.at.timestamp() < LIMIT_SECONDS


def test_the_last_words_of_an_agent_stay_in_its_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)

    async def work(_: AgentSettings) -> None:
        write_status(folder, "ada", "over: the team's budget has $0.10 left")

    monkeypatch.setenv("OUTLEARN_TOKEN", "token")
    monkeypatch.setattr(agent_module, "work", work)
    agent_main(["--run", str(tmp_path), "--agent", "ada", "--seconds", "5"])
    status = read_status(folder, "ada")
    assert (status.state, status.doing) == ("finished", "over: the team's budget has $0.10 left")


async def test_an_agent_that_waits_says_for_what_and_keeps_a_pause(tmp_path: Path) -> None:
    folder, spec, stop = RunFolder(tmp_path), AgentSpec(name="ada", direction="# x"), Stop(60)
    folder.write_spec(TeamSpec(task="toy", agents=(spec,)))
    rests: list[bool] = []
    async with open_toolbox({}) as tools, anyio.create_task_group() as group:
        session = make_session(folder, spec, tools, stop, Gate(folder, "ada", stop, rests.append))
        await session.wait("the API does not answer", 0)
        assert (status := read_status(folder, "ada")).state == "waiting", status
        assert status.doing == "the API does not answer"
        change_control(folder, lambda now: now.model_copy(update={"paused": frozenset({"ada"})}))
        group.start_soon(session.wait, "the API does not answer", 0)
        with anyio.fail_after(20):
            while read_status(folder, "ada").state != "paused":
                await anyio.sleep(0.01)
        change_control(folder, lambda _: Control())
    assert read_status(folder, "ada").state == "running"
    assert rests == [True, False], "a pause uses up no hours"
