"""A team lives on when its processes are killed, and does what it is asked from another terminal."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from rich.console import Console

from outlearn.countdown import Countdown
from outlearn.errors import NotFoundError, ServerUnreachableError
from outlearn.identity import TokenFile
from outlearn.locks import holder
from outlearn.registry import Registry
from outlearn.researcher import Stop
from outlearn.toolbox import open_toolbox, url_in
from outlearn.types import RunView
from outlearn_agents.report.at_rest import collect_at_rest
from outlearn_agents.report.summary import Summary
from outlearn_agents.run_folder import AgentSpec, RunFolder, RunnerSettings, SessionFile, TeamSpec
from outlearn_agents.spending.ledger import NANO, Cost, Ledger
from outlearn_agents.team import agents as crew_module
from outlearn_agents.team import runner as runner_module
from outlearn_agents.team.agents import AgentProcesses
from outlearn_agents.team.control import Control, change_control, read_control
from outlearn_agents.team.live import PlainLines
from outlearn_agents.team.pausing import Gate, GatedTools
from outlearn_agents.team.processes import SERVERS, Child, end_orphans
from outlearn_agents.team.restarts import Kept
from outlearn_agents.team.runner import ask_for_member, make_team, run_team
from outlearn_agents.team.servers import ServerProcesses
from outlearn_agents.team.session import Stops, TeamSession
from outlearn_agents.team.status import read_status, write_status
from outlearn_agents.team.watch import TeamView, Watcher
from outlearn_training.workers.slots import take_slot

LIMIT_SECONDS = 90


def sleeper(tmp_path: Path, code: str = "import time; time.sleep(100)") -> Child:
    return Child("child", [sys.executable, "-c", code], tmp_path / "child.log", os.environ)


async def ended(kept: Kept) -> int:
    with anyio.fail_after(LIMIT_SECONDS):
        while (code := kept.take_end()) is None:
            await anyio.sleep(0.01)
    return code


async def until(condition: Callable[[], object], what: str) -> None:
    with anyio.move_on_after(LIMIT_SECONDS):
        while not condition():
            await anyio.sleep(0.05)
        return
    pytest.fail(f"no sign of {what}")


async def looking_for_ever(servers: ServerProcesses) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while True:
            servers.look()
            await anyio.sleep(0.02)


async def test_what_dies_starts_again_later_each_time_and_not_for_ever(tmp_path: Path) -> None:
    now = 0.0
    kept = Kept(lambda: sleeper(tmp_path, "raise SystemExit(3)"), most=3, clock=lambda: now)
    pauses = []
    for _ in range(3):
        kept.start_if_due()
        assert await ended(kept) == 3
        pauses.append(kept.try_again())
        kept.start_if_due()
        assert kept.child is None, "its time has not come"
        now += 10
    assert pauses == [0.5, 1.0, 2.0]
    kept.start_if_due()
    assert await ended(kept) == 3
    assert kept.try_again() is None
    assert kept.is_over


async def test_deaths_of_more_than_an_hour_ago_are_forgotten(tmp_path: Path) -> None:
    now = 0.0
    kept = Kept(lambda: sleeper(tmp_path, ""), most=1, clock=lambda: now)
    for _ in range(3):
        assert kept.try_again() == 0.5
        now += 4000


@pytest.mark.parametrize("stubborn", [False, True])
async def test_what_a_killed_runner_left_behind_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    monkeypatch.setattr("outlearn_agents.team.processes.POLITE_SECONDS", 0.3)
    folder = RunFolder(tmp_path)
    code = f"""
import signal, time; from pathlib import Path; from outlearn.locks import holding
if {stubborn}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
with holding(Path({str(folder.held("agent-ada"))!r})): time.sleep(100)
"""
    orphan = sleeper(tmp_path, code)
    await until(lambda: holder(folder.held("agent-ada")), "the lock")
    assert end_orphans(folder) == ["agent-ada"]
    orphan.close()
    assert orphan.code == (-signal.SIGKILL if stubborn else -signal.SIGTERM)
    assert end_orphans(folder) == []


async def test_a_killed_server_comes_back_at_the_same_address(toy_home: Path) -> None:
    folder = RunFolder(toy_home)
    token = TokenFile(folder.tokens).issue("ada")
    servers = ServerProcesses(folder, {}, restarts=1)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(servers.start)
            await until(lambda: holder(folder.held("evaluation")), "a server that starts")
            os.kill(holder(folder.held("evaluation")) or 0, signal.SIGKILL)
        address = folder.ready("forum").read_bytes().split(b",")[0]
        urls = {name: url_in(folder.ready(name)) for name in SERVERS}
        first = holder(folder.held("forum"))
        assert first
        os.kill(first, signal.SIGKILL)
        with anyio.fail_after(LIMIT_SECONDS):
            while holder(folder.held("forum")) in (None, first):
                servers.look()
                await anyio.sleep(0.02)
        async with open_toolbox(urls, token=token) as tools:
            await tools.list()
            assert not (await tools.call("forum", "list_threads", {})).is_error
        assert folder.ready("forum").read_bytes().split(b",")[0] == address
        assert servers.restarts() == {"training": 0, "evaluation": 1, "forum": 1, "filesystem": 0}
        os.kill(holder(folder.held("forum")) or 0, signal.SIGKILL)
        with pytest.raises(ServerUnreachableError, match="forum server died 2 times"):
            await looking_for_ever(servers)
    finally:
        await servers.end()


@pytest.mark.parametrize(
    ("code", "restarts", "words"),
    [
        ("import os; os.abort()", 2, "given up after 2 restarts in an hour: died with exit code -6"),
        ("raise SystemExit(2)", 0, "died with exit code 2"),
        ("", 0, ""),
    ],
)
async def test_a_dead_agent_is_started_again_unless_that_is_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, restarts: int, words: str
) -> None:
    monkeypatch.setattr("outlearn_agents.team.restarts.FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(crew_module, "Child", lambda *_: sleeper(tmp_path, code))
    folder = RunFolder(tmp_path)
    crew = AgentProcesses(folder, RunnerSettings(restarts=2), Countdown(LIMIT_SECONDS))
    crew.add("ada", "token")
    with closing(Ledger(folder.spending)) as ledger:
        ledger.reserve("ada", Cost(NANO), last_turn=Cost(NANO))
    with anyio.fail_after(LIMIT_SECONDS):
        while crew.names:
            crew.look()
            await anyio.sleep(0.01)
    assert crew.restarts() == {"ada": restarts}
    status = read_status(folder, "ada")
    assert words in status.doing
    assert status.state == ("failed" if words else "running")
    with closing(Ledger(folder.spending)) as ledger:
        left = ledger.statement()
    assert (left.dollars, left.reserved_dollars) == (1, 0), "nobody waits for what it had set aside"


async def test_an_agent_that_was_asked_to_leave_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "Child", lambda *_: sleeper(tmp_path))
    folder = RunFolder(tmp_path)
    crew = AgentProcesses(folder, RunnerSettings(), Countdown(LIMIT_SECONDS))
    crew.add("ada", "token")
    crew.add("boole", "token", after=1000)
    crew.look()
    with closing(Ledger(folder.spending)) as ledger:
        ledger.settle(ledger.reserve("boole", Cost(NANO), last_turn=Cost(NANO)), Cost(NANO))
        crew.ask_to_stop("boole")
        assert ledger.statement().reserved_dollars == 0, "it has left already"
    assert crew.names == {"ada"}
    crew.ask_to_stop()
    with anyio.fail_after(LIMIT_SECONDS):
        while crew.names:
            crew.look()
            await anyio.sleep(0.01)
    status = read_status(folder, "ada")
    assert (status.state, status.doing) == ("finished", "stopped while it was starting")


async def test_a_paused_agent_waits_at_its_next_call_and_finishes_when_told(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    change_control(folder, lambda now: now.model_copy(update={"paused": frozenset({"ada"})}))
    assert folder.control.stat().st_mode & 0o777 == 0o600
    stop, rests = Stop(LIMIT_SECONDS), list[bool]()
    async with open_toolbox({}) as tools:
        gated = GatedTools(tools, Gate(folder, "ada", stop, rests.append))

        async def call() -> None:
            with pytest.raises(NotFoundError, match="no server 'forum'"):
                await gated.call("forum", "list_threads", {})

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            group.start_soon(call)
            await until(lambda: read_status(folder, "ada").state == "paused", "the pause")
            assert read_status(folder, "ada").doing == "paused before forum.list_threads"
            change_control(folder, lambda _: Control())
        assert (status := read_status(folder, "ada")).state == "running", status
        assert rests == [True, False]
        change_control(folder, lambda now: now.model_copy(update={"paused": frozenset({"ada"})}))
        stop.ask()
        await call()


class OneLook(AgentProcesses):
    """Agents that leave 25 seconds after the first look at them."""

    def __init__(self, folder: RunFolder) -> None:
        self.now = 0.0
        super().__init__(folder, RunnerSettings(), Countdown(60, lambda: self.now))

    @property
    def names(self) -> frozenset[str]:
        return frozenset() if self.now else frozenset({"ada"})


@pytest.mark.parametrize("full", [False, True])
async def test_a_session_counts_to_its_end_and_ends_where_nothing_can_be_written(
    full: bool, toy_home: Path, open_session: Any
) -> None:
    folder, spec = RunFolder(toy_home), TeamSpec(task="toy", agents=())
    crew, servers, stops = OneLook(folder), ServerProcesses(folder, {}, restarts=0, names=()), Stops()

    def observe(_: TeamView) -> None:
        if full:
            folder.session.unlink()
            folder.session.mkdir()
            stops.ask()
        else:
            crew.now = 25.0

    async with open_session("operator") as operator:
        watcher = Watcher(spec, folder, operator.tools)
        session = TeamSession(folder, spec, servers, crew, watcher, stops)
        if full:
            with pytest.raises(IsADirectoryError):
                await session.work(observe)
        else:
            await session.work(observe)
            assert folder.read_spec().seconds_worked == 25


class FirstRun(Watcher):
    """Sees a run that waits for a worker twice, and then at work."""

    seen = 0

    async def look(self, seconds_left: float) -> TeamView:
        self.seen += 1
        run = RunView(
            run_id="run-000001", agent="ada", task="toy", method="vanilla", params={}, kind="full", seeds_done=0,
            status="queued" if self.seen <= 2 else "running", seeds_total=5, progress=0, message="",
            submitted_at=datetime.now(UTC),
        )  # fmt: skip
        return TeamView(task="toy", agents=(), runs=(run,), seconds_left=seconds_left)


async def test_where_it_is_wanted_time_begins_with_the_first_worker(
    toy_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("outlearn_agents.team.session.LOOK_SECONDS", 0.3)
    folder, spec, lines = RunFolder(toy_home), TeamSpec(task="toy", agents=()), PlainLines(Console())
    crew, servers = OneLook(folder), ServerProcesses(folder, {}, restarts=0, names=())
    stood: list[bool] = []

    def observe(view: TeamView) -> None:
        lines(view)
        stood.append(crew.countdown.is_paused)
        crew.now = 25.0 if watcher.seen > 2 and not stood[-1] else 0.0

    async with open_toolbox({}) as tools:
        settings, watcher = RunnerSettings(warm_up_seconds=60), FirstRun(spec, folder, tools)
        with anyio.fail_after(LIMIT_SECONDS):
            await TeamSession(folder, spec, servers, crew, watcher, Stops(), settings).work(observe)
    assert (stood[1], stood[-2]) == (True, False), "the last look is at a team that has left"
    assert capsys.readouterr().out.count("workers are starting (loading PyTorch)") == 1


def test_an_agent_is_asked_for_with_the_next_name_direction_and_seed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    agents = (AgentSpec(name="ada", direction="# x", seed=7), AgentSpec(name="boole", direction="# y", seed=8))
    folder.write_spec(TeamSpec(task="toy", agents=agents))
    made = [ask_for_member(folder), ask_for_member(folder, direction="trust")]
    assert [(one.name, one.seed, one.researcher) for one in made] == [("curie", 9, "offline"), ("dirac", 10, "offline")]
    assert read_control(folder).added == tuple(made)
    assert "labels to trust" in made[1].direction


def test_an_agent_that_is_taken_in_while_another_is_asked_for_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path)
    folder.write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# x"),)))
    first = ask_for_member(folder)
    load = Registry.load

    def load_slowly(*given: Any) -> Any:
        folder.write_spec(folder.read_spec().with_member(first))
        change_control(folder, lambda now: now.model_copy(update={"added": ()}))
        return load(*given)

    monkeypatch.setattr(Registry, "load", load_slowly)
    assert (first.name, ask_for_member(folder).name) == ("boole", "curie")


@pytest.fixture
def untrained(toy_home: Path) -> Iterator[None]:
    """Runs wait: a worker would import torch, for a model that is not there."""
    slot = take_slot(toy_home, 0)
    assert slot
    with slot:
        yield


@pytest.mark.usefixtures("untrained")
async def test_a_team_outlives_kills_and_is_led_from_another_terminal(
    toy_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(toy_home)
    spec = make_team("toy", ["# Trust\n\nFind labels."] * 2).with_server_options("training", ["--workers", "1"])
    found: list[Summary | None] = []

    def pid(name: str) -> int:
        return holder(folder.held(name)) or 0

    def note() -> SessionFile:
        found = folder.read_session()
        assert found
        return found

    async def work() -> None:
        found.append(await run_team(folder, spec, 600, lambda _: None, RunnerSettings(stagger_seconds=0)))

    async def collect(*given: Any) -> Summary:
        assert not any(pid(name) for name in SERVERS), "what becomes of runs is known when the servers have ended"
        return await collect_at_rest(*given)

    monkeypatch.setattr(runner_module, "collect_at_rest", collect)
    write_status(folder, "ada", "from an earlier session", "finished")
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await until(lambda: pid("agent-ada") and pid("agent-boole"), "both agents")
        killed = {name: pid(name) for name in ("agent-ada", "forum", "training")}
        for one in killed.values():
            os.kill(one, signal.SIGKILL)
        await until(lambda: all(pid(name) not in (0, one) for name, one in killed.items()), "all are back")
        await until(lambda: note().restarts.get("ada") == 1, "a note of it")
        assert folder.is_at_work
        change_control(folder, lambda now: now.model_copy(update={"paused": frozenset({"boole"})}))
        await until(lambda: read_status(folder, "boole").state == "paused", "a pause")
        assert note().paused_at is None, "ada is at work"
        change_control(folder, lambda now: now.model_copy(update={"paused": frozenset({"ada", "boole"})}))
        await until(lambda: note().paused_at and read_status(folder, "ada").state == "paused", "a pause of all")
        left = note().seconds_left
        os.kill(first := pid("agent-ada"), signal.SIGKILL)
        await until(lambda: pid("agent-ada") not in (0, first), "ada is back")
        await until(lambda: read_status(folder, "ada").doing == "paused before it began", "its pause")
        assert note().seconds_left == pytest.approx(left, abs=1e-3)
        change_control(folder, lambda now: now.model_copy(update={"paused": frozenset()}))
        await until(lambda: read_status(folder, "boole").state == "running", "its end")
        await until(lambda: note().paused_at is None, "the end of the session's pause")
        ask_for_member(folder)
        await until(lambda: pid("agent-curie"), "the new agent")
        change_control(folder, lambda now: now.model_copy(update={"stop": True}))
    assert found[0] is not None
    assert [agent.name for agent in found[0].agents] == ["ada", "boole", "curie"]
    assert [agent.name for agent in folder.read_spec().agents] == ["ada", "boole", "curie"]
    assert folder.read_spec().seconds_worked > 0
    assert read_control(folder).added == ()
    assert not folder.is_at_work
