"""One agent uses up what others need: the queue, budgets, the forum, searches, the database, the disk."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from homes import ADA, BOB, RUNS, evaluating, file_run, refused, toy_home
from mcp.server.mcpserver.exceptions import ToolError
from measure import Figure
from registry import Family

from outlearn.errors import BudgetError, NotFoundError
from outlearn.identity import Caller
from outlearn.results import ResultBook
from outlearn.testing import ToolClient, connect

attacks = Family()


class NoWorkers:
    """An executor that runs nothing."""

    def ensure(self) -> None: ...

    def stop(self) -> None: ...


@attacks
def the_queue(folder: Path) -> bool:
    """Ada queues all that she may, also under other names; bob's one run is next after the one at work."""
    from outlearn_training.queue.seed_claims import Claims
    from outlearn_training.service import TrainingService
    from outlearn_training.settings import TrainingSettings

    settings = TrainingSettings(home=toy_home(folder), max_waiting=5)
    service = TrainingService(settings, NoWorkers())

    def submit(caller: Caller, request_id: str | None = None) -> str:
        given = {"method": "vanilla", "file": None, "params": {}, "kind": "full", "task": ""}
        return service.submit(caller, **given, request_id=request_id).run_id  # type: ignore[arg-type]

    for number in range(5):
        submit(ADA, f"r{number}")
    over = refused(lambda: submit(ADA), BudgetError)
    again = submit(ADA, "r0") == submit(ADA, "r0")
    bobs = submit(BOB, "r0")  # the same request id is another agent's own
    claims = Claims(settings.database("training"))
    first, second = (claims.claim(slot, lambda _: True) for slot in (0, 1))
    return over and again and first is not None and second is not None and second.run.run_id == bobs


@attacks
def params_that_spoil_the_release_for_all(folder: Path) -> bool:
    """Nested so deep that a run takes them, and nobody can read a list of runs or a release with them in it."""
    from outlearn_training.service import TrainingService
    from outlearn_training.settings import TrainingSettings

    home = toy_home(folder)
    (home / "workspaces" / "ada").mkdir(parents=True)
    (home / "workspaces" / "ada" / "mine.py").write_text("def method(lab, seed, x): ...")
    service, params = TrainingService(TrainingSettings(home=home), NoWorkers()), dict[str, Any]()
    given: dict[str, Any] = {"method": None, "file": "mine.py", "kind": "full", "task": "", "request_id": None}
    held = []
    for depth in range(1, 260):
        params = {"x": params}
        if depth in (50, 195, 197, 198, 252):
            held.append(refused(lambda deep=params: service.submit(ADA, params=deep, **given)))
    return all(held)


@attacks
def the_only_device(folder: Path) -> Figure:
    """Runs of ada's that one worker does before bob's one run, while she keeps all queued that she may; the run at work
    is one. What bob is told of his place in the queue is true."""
    from outlearn_training.queue.seed_claims import Claims
    from outlearn_training.service import TrainingService
    from outlearn_training.settings import TrainingSettings

    settings = TrainingSettings(home=toy_home(folder))
    service, claims = TrainingService(settings, NoWorkers()), Claims(settings.database("training"))
    given: dict[str, Any] = {"method": "vanilla", "file": None, "params": {}, "kind": "pilot", "task": ""}

    def submit(caller: Caller) -> str:
        return service.submit(caller, **given, request_id=None).run_id

    while not refused(lambda: submit(ADA), BudgetError):
        pass
    at_work, before = claims.claim(0, lambda _: True), 1
    bobs = submit(BOB)
    told = service.view(BOB, bobs).queue_position
    while at_work is not None:
        claims.seed_done(at_work)
        submit(ADA)
        at_work = claims.claim(0, lambda _: True)
        if at_work is None or at_work.run.run_id == bobs:
            break
        before += 1
    claims.engine.dispose()
    return Figure("the_only_device", before if told == before - 1 else 99, 1)


@attacks
def the_evaluations_of_a_victim(folder: Path) -> bool:
    """Nobody is charged for what another asks, and no agent can use more than its own."""
    home = toy_home(folder)
    for number, run_id in enumerate(RUNS[:20]):
        file_run(home, run_id, agent="ada" if number < 12 else "bob", rng=number)
    with evaluating(home, agent_evaluations=10, daily_evaluations=10) as service:
        for run_id in RUNS[:10]:
            service.evaluate(ADA, run_id, None)
        over = refused(lambda: service.evaluate(ADA, RUNS[10], None), BudgetError)
        stolen = refused(lambda: service.evaluate(ADA, RUNS[12], None))
        service.evaluate(BOB, RUNS[12], RUNS[0])
        return over and stolen and service.budget(BOB).agent_left == 9 and service.budget(ADA).agent_left == 0


@attacks
def a_forum_full_of_one_agents_posts(folder: Path) -> bool:
    """Ada is stopped at 300 findings; then bob's is found by its author, by its words and by its votes, at once."""
    from outlearn_forum.server import build
    from outlearn_forum.settings import ForumSettings
    from outlearn_forum.store import ForumStore

    settings = ForumSettings(home=folder, agent="carol")
    store = ForumStore(settings.database("forum"), ResultBook(folder))
    bobs = store.post_finding("bob", title="What helps", text="Averaging over teachers helps.", kind="insight").post_id
    store.vote("carol", bobs, 1)

    def flood() -> None:
        for number in range(500):
            text = f"{number} " * 9 + "spam"
            store.post_finding("ada", title=f"Look {number}", text=text, kind="error", anyway=True)

    stopped = refused(flood, BudgetError)
    store.engine.dispose()

    async def look() -> list[bool]:
        async with connect(build(settings)) as client:
            seen = []
            for tool, given in (
                ("list_threads", {"author": "bob"}),
                ("search", {"query": "averaging teachers"}),
                ("list_threads", {"order": "top"}),
            ):
                start = time.monotonic()
                found = (await client.call(tool, **given))["findings"]
                seen.append(found[0]["finding_id"] == bobs and time.monotonic() - start < 2)
            return seen

    return stopped and all(anyio.run(look))


@attacks
def searches_that_never_end(folder: Path) -> Figure:
    """Seconds that bob waits for a file while ada runs 150 searches with patterns that explode."""
    from outlearn_filesystem.server import build
    from outlearn_filesystem.settings import FilesystemSettings

    settings = {name: FilesystemSettings(home=folder, agent=name, search_seconds=3) for name in ("ada", "bob")}

    async def race() -> float:
        async with connect(build(settings["ada"])) as ada, connect(build(settings["bob"])) as bob:
            await ada.call("write_file", path="a", text="a" * 60 + "!")
            await bob.call("write_file", path="b", text="mine")
            async with anyio.create_task_group() as group:
                for _ in range(150):
                    group.start_soon(_ignore, ada, "(a+)+$")
                await anyio.sleep(3)  # until many of them run
                start = time.monotonic()
                await bob.call("read_file", path="b")
                waited = time.monotonic() - start
                group.cancel_scope.cancel()
            return waited

    return Figure("searches_that_never_end", anyio.run(race), 2.0)


@attacks
def globs_over_many_deep_files(folder: Path) -> Figure:
    """Seconds that bob waits for a file while ada looks for names that are never there, as often as she can."""
    from outlearn_filesystem.server import build
    from outlearn_filesystem.settings import FilesystemSettings

    settings = {name: FilesystemSettings(home=folder, agent=name) for name in ("ada", "bob")}

    async def race() -> float:
        async with connect(build(settings["ada"])) as ada, connect(build(settings["bob"])) as bob:
            await ada.call("write_file", path="a/" * 60 + "f", text="x")
            await bob.call("write_file", path="b", text="mine")
            deep = folder / "workspaces" / "ada" / ("a/" * 60)
            for number in range(4_900):
                (deep / str(number)).touch()
            waited = 0.0
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(_ignore, ada, "", "**/a/" * 99 + "b")
                for _ in range(5):
                    start = time.monotonic()
                    await bob.call("read_file", path="b")
                    waited = max(waited, time.monotonic() - start)
                group.cancel_scope.cancel()
            return waited

    return Figure("globs_over_many_deep_files", anyio.run(race), 2.0)


async def _ignore(client: ToolClient, pattern: str, glob: str = "") -> None:
    with suppress(ToolError):
        await (client.call("find_files", glob=glob) if glob else client.call("grep", pattern=pattern))


@attacks
def a_held_lock(folder: Path) -> bool:
    """Ada's workspace being locked for long stops nobody else's writes."""
    from outlearn_filesystem.settings import FilesystemSettings
    from outlearn_filesystem.workspace import Workspace

    settings = FilesystemSettings(home=folder)
    ada, bob, done = Workspace(settings, "ada"), Workspace(settings, "bob"), threading.Event()

    def write() -> None:
        bob.write_file("a", "x")
        done.set()

    with ada.changing():
        threading.Thread(target=write).start()
        return done.wait(5)


@attacks
def names_that_are_somebody_elses(folder: Path) -> bool:
    """No name that an agent can have reaches another's folder, or the server's own ones."""
    odd = ("../bob", ".locks", ".staging", "", "Bob", "bob/", "b\0b", "bob\n", "ｂob", "-bob", "b" * 33)
    made: list[Callable[[], object]] = [lambda name=name: Caller(agent=name) for name in odd]
    return all(refused(one, ValueError) for one in made)


@attacks
def runs_of_others(folder: Path) -> bool:
    """Nobody sees, reads or cancels another's run."""
    from outlearn_training.service import TrainingService
    from outlearn_training.settings import TrainingSettings

    service = TrainingService(TrainingSettings(home=toy_home(folder)), NoWorkers())
    given = {"method": "vanilla", "file": None, "params": {}, "kind": "full", "task": "", "request_id": None}
    run = service.submit(BOB, **given).run_id  # type: ignore[arg-type]
    acts: list[Callable[[], object]] = [
        lambda: service.view(ADA, run),
        lambda: service.read_log(ADA, run, 0, 100),
        lambda: service.cancel(ADA, run),
    ]
    listed = service.list_runs(ADA, None, 50, None).runs
    return all(refused(act, NotFoundError) for act in acts) and not listed and service.view(BOB, run).status == "queued"


@attacks
def all_the_memory(_: Path) -> bool:
    """Where methods use up the machine's memory, the kernel ends one of them, and no server."""
    limit = "from outlearn_training.sandbox.limits import limit_resources; limit_resources(9, 9)"
    code = f"{limit}; print(open('/proc/self/oom_score_adj').read())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return said.strip() == "1000"
