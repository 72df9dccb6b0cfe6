"""What attackers get to work on: homes with the toy task, servers, and runs of methods in the real sandbox."""

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

import numpy as np

from outlearn.errors import OutlearnError
from outlearn.identity import Caller
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.tasks import load_card, load_secret
from outlearn.testing import ToolClient, connect
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

TESTS = Path(__file__).parents[1]
if str(TESTS / "helpers") not in sys.path:
    sys.path.append(str(TESTS / "helpers"))  # where the conftests that are loaded below look, too
ADA, BOB, CHIEF = Caller(agent="ada"), Caller(agent="bob"), Caller(agent="chief", role="operator")
RUNS = [f"run-{number:010d}" for number in range(300)]
FINISHED = ("done", "failed", "cancelled")


def toy_home(folder: Path, task: str = "toy") -> Path:
    """A home with the toy task, for servers that need no model."""
    _load("conftest.py").write_toy_task(folder / "home", name=task)
    return folder / "home"


def toy_home_with_model(folder: Path) -> Path:
    """A home whose toy task has a real model of a few thousand parameters."""
    _load("conftest.py").write_toy_task(folder / "home", str(_toy_model()))
    return folder / "home"


@cache
def _toy_model() -> Path:
    return Path(_load("servers/training/conftest.py").write_toy_model(Path(mkdtemp()) / "toy"))


@cache
def _load(file: str) -> ModuleType:
    """A conftest, whichever way these modules were started."""
    name = "attacked_" + file.replace("/", "_").removesuffix(".py")
    spec = spec_from_file_location(name, TESTS / file)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def evaluating(home: Path, **limits: Any) -> Iterator[EvaluationService]:
    """An evaluation service of which a day is as good as all days."""
    service = EvaluationService(EvaluationSettings(**({"home": home, "daily_evaluations": 30} | limits)))
    try:
        yield service
    finally:
        service.engine.dispose()


def file_run(home: Path, run_id: str, agent: str = "ada", right: float = 0.75, rng: int = 0, **fields: Any) -> None:
    """File what the predictor would have signed: a run that is right on this share of the test items, the easy ones."""
    card, secret, book = load_card(home, "toy"), load_secret(home, "toy"), ReceiptBook(home / "vault")
    easy, method = (np.random.default_rng(one).normal(size=len(secret.test)) for one in (0, [1, rng]))
    for seed in card.seeds:
        sure = easy + 0.5 * method + 0.3 * np.random.default_rng([2, rng, seed]).normal(size=len(secret.test))
        correct = sure > np.quantile(sure, 1 - right)
        values: dict[str, Any] = {
            "run_id": run_id,
            "agent": agent,
            "method": "mine.py",
            "method_sha256": "0" * 64,
            "task": "toy",
            "task_fingerprint": card.fingerprint,
            "seed": seed,
            "weights_sha256": ("1" * 64,),
            "predictions": tuple(np.where(correct == secret.test_labels, 0.75, 0.25).tolist()),
        }
        book.issue(Receipt(**(values | fields)))


def refused(act: Callable[[], object], *kinds: type[Exception]) -> bool:
    """Whether it raises one of these errors (any that a caller can mend, where none is named)."""
    try:
        act()
    except Exception as error:
        if isinstance(error, kinds or OutlearnError):
            return True
        raise
    return False


class Stand:
    """An attacker's seat at a training server: runs methods and sees what the agent sees."""

    def __init__(self, home: Path, client: ToolClient, agent: str) -> None:
        self.home, self.client, self._agent = home, client, agent

    async def run(self, source: str, name: str = "mine.py", **options: Any) -> dict[str, Any]:
        """Submit a method and wait for its end."""
        folder = self.home / "workspaces" / self._agent
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source, encoding="utf-8")
        view: dict[str, Any] = await self.client.call("submit_run", file=name, **options)
        while view["status"] not in FINISHED:
            view = await self.client.call("get_run", run_id=view["run_id"], wait_seconds=20)
        return view

    async def log(self, run_id: str) -> str:
        """All that a run printed."""
        pages, offset = [], 0
        while offset is not None:
            page = await self.client.call("read_run_log", run_id=run_id, offset=offset, max_bytes=50_000)
            pages, offset = [*pages, page["text"]], page["next_offset"]
        return "".join(pages)

    async def said(self, source: str, mark: str = "SAID ") -> Any:
        """What a method printed as JSON after the mark; an assertion where it did not get so far."""
        view = await self.run(source)
        log = await self.log(view["run_id"])
        lines = [line.removeprefix(mark) for line in log.split("\n") if line.startswith(mark)]
        assert lines, (view, log)
        return json.loads(lines[-1])


@asynccontextmanager
async def training(home: Path, agent: str = "ada", **changes: Any) -> AsyncIterator[Stand]:
    """A training server with one worker, which ends with the attack."""
    from outlearn_training.server import build
    from outlearn_training.settings import TrainingSettings
    from outlearn_training.workers.executor import LocalExecutor

    settings = TrainingSettings(home=home, workers=1, agent=agent, worker_idle_seconds=30, **changes)
    try:
        async with connect(build(settings)) as client:
            yield Stand(home, client, agent)
    finally:
        LocalExecutor(settings).stop()


Waiting = Callable[..., Awaitable[Any]]
