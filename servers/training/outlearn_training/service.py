"""What the training server does, without MCP: tasks, methods and runs, for a caller."""

import ast
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import structlog
from sqlalchemy import Engine

from outlearn.artifacts import LocalArtifactStore
from outlearn.confined import read_confined
from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.identity import Caller
from outlearn.tasks import PublicTask, default_task, load_card, load_public, task_names
from outlearn.types import (
    FINISHED,
    ItemPage,
    LogPage,
    MethodList,
    RunKind,
    RunList,
    RunStatus,
    RunView,
    SampledItem,
    TaskDescription,
)
from outlearn_training.catalogue import find_method, list_infos
from outlearn_training.queue.device_budget import DeviceBudget
from outlearn_training.queue.run_queue import Glance, RunQueue
from outlearn_training.queue.tables import Submission
from outlearn_training.run_logs import read_page
from outlearn_training.sandbox.mechanisms import check_confinement, describe_mechanisms, find_mechanisms
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.executor import Executor

log = structlog.get_logger("outlearn.training")
MAX_SOURCE_BYTES = 64_000
MAX_PARAMS_BYTES = 10_000
MAX_PARAMS_DEPTH = 20
"""What pydantic writes it may refuse to read again, 200 deep: a list of runs, or the release of a final."""


class TrainingService:
    """Tasks, methods and runs of one home folder."""

    def __init__(self, settings: TrainingSettings, executor: Executor) -> None:
        self._settings = settings
        self._executor = executor
        self._queue = RunQueue(settings.database("training"))
        self._artifacts = LocalArtifactStore(settings.home / "artifacts")
        self._device_budget = DeviceBudget(settings.agent_device_seconds, settings.team_device_seconds)
        self._mechanisms = find_mechanisms(settings)
        log.info("sandbox", sandbox=describe_mechanisms(self._mechanisms))

    @property
    def engine(self) -> Engine:
        """The queue's database, to be closed in the end."""
        return self._queue.engine

    def describe_task(self, task: str) -> TaskDescription:
        """The task's card, and statistics of its weak labels."""
        public = self._task(task)
        weak = np.stack([public.weak_labels(seed) for seed in public.card.seeds])
        return TaskDescription(
            card=public.card,
            other_tasks=tuple(name for name in task_names(self._settings.home) if name != public.card.name),
            weak_label_mean=round(float(weak.mean()), 4),
            weak_label_sharpness=round(float(np.abs(2 * weak - 1).mean()), 4),
            sandbox=describe_mechanisms(self._mechanisms),
        )

    def sample_items(self, task: str, count: int, seed: int) -> ItemPage:
        """Random pool items with the weak labels that each teacher gave them."""
        public = self._task(task)
        weak = [public.weak_labels(one) for one in public.card.seeds]
        rows = np.random.default_rng(seed).permutation(len(public.pool))[:count]
        return ItemPage(
            items=tuple(
                SampledItem(
                    **public.pool[row].model_dump(), weak_labels=tuple(round(float(labels[row]), 3) for labels in weak)
                )
                for row in rows
            )
        )

    def list_methods(self, name: str = "") -> MethodList:
        """All registered methods, or one with its source. Raises NotFoundError."""
        return MethodList(methods=list_infos(name))

    def submit(
        self,
        caller: Caller,
        *,
        method: str | None,
        file: str | None,
        params: dict[str, Any],
        kind: RunKind,
        task: str,
        request_id: str | None,
    ) -> RunView:
        """Queue a run of a registered method, or of a file in the caller's workspace as it is now."""
        card = load_card(self._settings.home, task or default_task(self._settings.home))
        if (method is None) == (file is None):
            raise InvalidInputError(
                "give `method` (a name from `list_methods`) or `file` (in your workspace), not both"
            )
        if method is not None:
            found = find_method(method)
            name, source, checked = method, found.info.source, _check_json(found.check_params(params))
        else:
            check_confinement(self._settings, self._mechanisms)
            name, checked = str(file), _check_json(params)
            source = self._read_source(caller, name, checked)
        data = source.encode()
        submission = Submission(
            agent=caller.agent,
            task=card.name,
            method=name[:300],
            source_sha256=hashlib.sha256(data).hexdigest(),
            source_bytes=len(data),
            params=checked,
            kind=kind,
            seeds=card.seeds if kind == "full" else card.seeds[:1],
            request_id=request_id,
        )
        view = self._queue.submit(
            submission,
            max_waiting=self._settings.max_waiting,
            max_runs=self._settings.max_runs,
            max_source_bytes=int(self._settings.source_mb * 2**20),
            budget=self._device_budget,
            store=lambda: self._artifacts.put(data),
        )
        self._executor.ensure()
        return view

    def view(self, caller: Caller, run_id: str) -> RunView:
        """One run. Raises NotFoundError."""
        return self._queue.view(run_id, caller)

    def glances(self, run_ids: Iterable[str]) -> dict[str, Glance]:
        """How runs are, whoever's they are, for callers that wait for those that they may see."""
        return self._queue.glances(run_ids)

    def list_runs(self, caller: Caller, status: RunStatus | None, limit: int, cursor: str | None) -> RunList:
        """Runs, newest first."""
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise InvalidInputError(f"cursor {cursor[:80]!r} is not one that `list_runs` gave")
        before = int(cursor) if cursor else None
        views, following = self._queue.page(caller, status=status, limit=limit, before=before)
        return RunList(runs=tuple(views), next_cursor=str(following) if following else None)

    def read_log(self, caller: Caller, run_id: str, offset: int, max_bytes: int) -> LogPage:
        """A part of a run's output, cut at a character. Raises NotFoundError, also where there is no log."""
        view = self._queue.view(run_id, caller)
        try:
            return read_page(self._settings.run_log(view.run_id), offset, max_bytes)
        except FileNotFoundError:
            if view.status == "queued":
                raise NotFoundError(
                    f"run {view.run_id!r} has not started, and has no log yet; {view.queue_position} runs are ahead of "
                    "it in the queue; `get_run` with `wait_seconds` waits for it"
                ) from None
            if view.status in FINISHED and not view.started_at:
                raise NotFoundError(f"run {view.run_id!r} ended before it started, and has no log") from None
            if view.status in FINISHED:
                raise NotFoundError(
                    f"the log of run {view.run_id!r} made room for newer ones (--keep-logs-mb of outlearn-training); "
                    "`get_run` still has its message and metrics, and to see its output, submit it again"
                ) from None
            return LogPage(text="", offset=0, next_offset=None, size=0)

    def cancel(self, caller: Caller, run_id: str) -> RunView:
        """Cancel a run that is not finished."""
        return self._queue.cancel(run_id, caller)

    def keep_working(self) -> None:
        """Have workers for what is in the queue, and device budgets kept; called from time to time."""
        if self._queue.waiting():
            self._queue.end_overspent(self._device_budget)
            self._executor.ensure()

    def _task(self, name: str) -> PublicTask:
        return load_public(self._settings.home, name or default_task(self._settings.home))

    def _read_source(self, caller: Caller, file: str, params: Iterable[str]) -> str:
        if not file.endswith(".py") or not file.isprintable():
            raise InvalidInputError(
                f"{file[:200]!r} must be a Python file with a plain name, such as 'methods/mine.py'"
            )
        workspace = self._settings.workspaces / caller.agent
        if not workspace.is_dir():
            raise NotFoundError(f"your workspace is empty: write {file!r} with the filesystem server first")
        data = read_confined(workspace, file, max_bytes=MAX_SOURCE_BYTES)
        try:
            source = data.decode("utf-8-sig")
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InvalidInputError(f"{file!r} is not Python that parses: {error}") from error
        methods = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "method"]
        if not methods:
            raise InvalidInputError(f"{file!r} has no function `method(lab, seed)` at its top level")
        _check_names(file, methods[-1], params)
        return source


def _check_names(file: str, method: ast.FunctionDef, params: Iterable[str]) -> None:
    """Raises InvalidInputError for parameters that a method does not take; a decorated one may take others."""
    given = method.args
    names = [one.arg for one in (*given.args[max(0, 2 - len(given.posonlyargs)) :], *given.kwonlyargs)]
    unknown = sorted(set(params) - set(names))
    if unknown and not (given.kwarg or method.decorator_list):
        raise InvalidInputError(
            f"`method` in {file!r} takes no {', '.join(map(repr, unknown))}; its params are: "
            f"{', '.join(names) or 'none'}"
        )


def _check_json(params: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(params, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"params must be plain JSON: {error}") from error
    if size > MAX_PARAMS_BYTES:
        raise InvalidInputError(f"params are {size:,} bytes of JSON; the limit is {MAX_PARAMS_BYTES:,}")
    if _is_deeper(params, MAX_PARAMS_DEPTH):
        raise InvalidInputError(f"params are nested more than {MAX_PARAMS_DEPTH} deep; make them flatter")
    return params


def _is_deeper(value: object, levels: int) -> bool:
    """Whether objects and lists stand in each other in more than so many levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
    return inside is not None and (levels == 0 or any(_is_deeper(one, levels - 1) for one in inside))
