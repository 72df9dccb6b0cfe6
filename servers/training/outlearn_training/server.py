"""The training server: describe the task, submit runs, follow them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult
from pydantic import Field

from outlearn import ADDS, CHANGES, READ_ONLY, ToolServer, make_server, run
from outlearn.database import working_until_end
from outlearn.requests import RequestId
from outlearn.server import Lifespan, keeps_turn, told
from outlearn.serving import step_aside
from outlearn.tasks import prepared_names, task_names
from outlearn.types import (
    FINISHED,
    ItemPage,
    LogPage,
    MethodList,
    RunKind,
    RunList,
    RunStatus,
    RunView,
    TaskDescription,
)
from outlearn_training.catalogue import infos_text, methods
from outlearn_training.prepare import prepare
from outlearn_training.queue.run_queue import Glance
from outlearn_training.queue.waiting import RunWatch
from outlearn_training.service import TrainingService
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import Executor, LocalExecutor

POLL_SECONDS = 0.2
SUPERVISE_SECONDS = 2.0
INSTRUCTIONS = """Train students with weak-to-strong methods. Start with describe_task and list_methods. A method is a \
Python file with `def method(lab, seed)` that returns what `lab.fit` returned; write yours in your workspace and pass \
its path as `file`. A pilot runs one seed and is not scored; a full run uses the server's seeds, and the evaluation \
server scores it. submit_run returns at once; follow the run with get_run and wait_seconds."""

TaskArg = Annotated[str, Field(description="Task name; empty for the only or newest one.", max_length=64)]
RunArg = Annotated[str, Field(description="Such as run-0123456789.", max_length=64)]


def build(settings: TrainingSettings, executor: Executor | None = None) -> ToolServer:
    """The training server on `settings.home`, which gets the tiny math task if it has none."""
    if not (task_names(settings.home) or prepared_names(settings.home)):
        prepare(settings.home)
    executor = executor or LocalExecutor(settings)
    service = TrainingService(settings, executor)
    methods()  # not in the first calls, which all agents of a team make at the same moment
    # over stdio, runs go on when the client leaves
    lifespan = _keeping_workers(service, executor if settings.transport == "http" else None)
    server = make_server("outlearn-training", settings, instructions=INSTRUCTIONS, lifespan=lifespan)
    _add_tasks(server, service)
    _add_runs(server, service)
    _add_following(server, service, RunWatch(service.glances, POLL_SECONDS))
    return server


def _add_tasks(server: ToolServer, service: TrainingService) -> None:
    @server.tool(annotations=READ_ONLY)
    def describe_task(task: TaskArg = "") -> TaskDescription:
        """What the task asks, its prompt and label words, the student and teacher, sizes, seeds and weak labels."""
        return service.describe_task(task)

    @server.tool(annotations=READ_ONLY)
    def sample_items(
        task: TaskArg = "",
        count: Annotated[int, Field(ge=1, le=50)] = 5,
        seed: Annotated[int, Field(ge=0, description="Another seed shows other items.")] = 0,
    ) -> ItemPage:
        """Random items of the unlabelled pool, each with the weak labels of every seed's teacher."""
        return service.sample_items(task, count, seed)

    @server.tool(annotations=READ_ONLY)
    def list_methods(
        method: Annotated[str, Field(description="Show this one with its source.", max_length=64)] = "",
    ) -> Annotated[CallToolResult, MethodList]:
        """The registered methods and their parameters; with `method`, its source too: an example to start from."""
        found = service.list_methods(method)
        return told(found, infos_text(found.methods))


def _add_runs(server: ToolServer, service: TrainingService) -> None:
    @server.tool(annotations=ADDS)
    def submit_run(
        method: Annotated[str | None, Field(description="A name from list_methods.", max_length=64)] = None,
        file: Annotated[str | None, Field(description="Or a Python file in your workspace.", max_length=300)] = None,
        params: Annotated[dict[str, Any] | None, Field(description="Keyword arguments of the method.")] = None,
        kind: Annotated[RunKind, Field(description="pilot: one seed, not scored. full: all seeds, scored.")] = "pilot",
        task: TaskArg = "",
        request_id: RequestId = None,
    ) -> RunView:
        """Queue a run of a registered method, or of your file as it is now; later edits do not change the run."""
        return service.submit(
            server.caller(), method=method, file=file, params=params or {}, kind=kind, task=task, request_id=request_id
        )

    @server.tool(annotations=CHANGES)
    def cancel_run(run_id: RunArg) -> RunView:
        """Cancel a queued or running run. A finished run stays as it is."""
        return service.cancel(server.caller(), run_id)


def _add_following(server: ToolServer, service: TrainingService, watch: RunWatch) -> None:
    @server.tool(annotations=READ_ONLY)
    @keeps_turn
    async def get_run(
        run_id: RunArg,
        ctx: Context[Any, Any],
        wait_seconds: Annotated[float, Field(ge=0, le=50, description="Wait up to this long for its end.")] = 0,
    ) -> RunView:
        """A run's status, progress, logged metrics and, where it failed, why. Its score comes from `evaluate`."""
        caller, deadline = server.caller(), time.monotonic() + wait_seconds
        view = await watch.ask(lambda: service.view(caller, run_id))
        known, waited = Glance(view.status, view.progress, view.message), False
        if wait_seconds:
            step_aside()
        while known.status not in FINISHED and time.monotonic() < deadline:
            seen, known, waited = known, await watch.glance(run_id) or known, True
            if known[1:] != seen[1:]:
                await ctx.report_progress(known.progress, 1.0, known.message)
        return await watch.ask(lambda: service.view(caller, run_id)) if waited else view

    @server.tool(annotations=READ_ONLY)
    def list_runs(
        status: RunStatus | None = None,
        limit: Annotated[int, Field(ge=1, le=50)] = 20,
        cursor: Annotated[str | None, Field(description="next_cursor of the last page.", max_length=64)] = None,
    ) -> RunList:
        """Your runs, newest first."""
        return service.list_runs(server.caller(), status, limit, cursor)

    @server.tool(annotations=READ_ONLY)
    def read_run_log(
        run_id: RunArg,
        offset: Annotated[int, Field(ge=0, description="Byte to begin at.")] = 0,
        max_bytes: Annotated[int, Field(ge=1, le=50_000)] = 20_000,
    ) -> LogPage:
        """What a run printed and logged, seed by seed, tracebacks included."""
        return service.read_log(server.caller(), run_id, offset, max_bytes)


def _keeping_workers(service: TrainingService, ends_with_it: Executor | None) -> Lifespan:
    """A `lifespan` that replaces workers that died, and in the end stops those that end with the server."""

    @asynccontextmanager
    async def lifespan(running: object) -> AsyncIterator[None]:
        async with working_until_end(service.engine, lambda _: _supervise(service))(running):
            yield
        if ends_with_it:
            await anyio.to_thread.run_sync(ends_with_it.stop)

    return lifespan


async def _supervise(service: TrainingService) -> None:
    """Replace workers that died, while there is work."""
    while True:
        await anyio.to_thread.run_sync(service.keep_working)
        await anyio.sleep(SUPERVISE_SECONDS)


def main() -> None:
    """Run the training server."""
    run(build, TrainingSettings, "outlearn-training")
