"""A laboratory for agents' tests: the four real servers in memory, with an executor that needs no training."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import structlog
from claude_peer import Api, Serve

from outlearn import ServerSettings
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.researcher import Session, Stop
from outlearn.tasks import load_secret
from outlearn.toolbox import Toolbox, open_toolbox
from outlearn_evaluation.server import build as build_evaluation
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_filesystem.server import build as build_filesystem
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_forum.server import build as build_forum
from outlearn_training.queue.seed_claims import Claims
from outlearn_training.queue.tables import Run
from outlearn_training.server import build as build_training
from outlearn_training.settings import TrainingSettings

Accuracy = Callable[[Run], float]
OpenSession = Callable[..., AbstractAsyncContextManager[Session]]
SLOT = Lock()
"""One worker at a time: a second one would take the seeds of the first for those of a dead one."""


class InstantExecutor:
    """Finishes a queued run at once, with receipts of the accuracy that `accuracy(run)` says; NaN makes it fail."""

    def __init__(self, settings: TrainingSettings, accuracy: Accuracy) -> None:
        self._home = settings.home
        self._claims = Claims(settings.database("training"))
        self._accuracy = accuracy

    def ensure(self) -> None:
        with SLOT:
            self._work()

    def stop(self) -> None:
        pass

    def _work(self) -> None:
        while (claim := self._claims.claim(0, lambda _: False)) is not None:
            accuracy = self._accuracy(claim.run)
            if np.isnan(accuracy):
                self._claims.fail(claim.run.run_id, "ZeroDivisionError in line 3")
                continue
            if claim.run.kind == "full":
                self._sign(claim.run, claim.seed, accuracy)
            self._claims.seed_done(claim)

    def _sign(self, run: Run, seed: int, accuracy: float) -> None:
        secret = load_secret(self._home, run.task)
        right = np.random.default_rng([seed, 7]).permutation(len(secret.test)) < accuracy * len(secret.test)
        answers = np.where(right, secret.test_labels, 1 - secret.test_labels)
        ReceiptBook(self._home / "vault").issue(
            Receipt(
                run_id=run.run_id,
                agent=run.agent,
                method=run.method,
                method_sha256=run.source_sha256,
                task=run.task,
                task_fingerprint=self._fingerprint(run.task),
                seed=seed,
                weights_sha256=("0" * 64,),
                predictions=tuple(float(one) for one in answers),
            )
        )

    def _fingerprint(self, task: str) -> str:
        from outlearn.tasks import load_public

        return load_public(self._home, task).card.fingerprint


def good_parts(run: Run) -> float:
    """Accuracy of a student: looking at early students helps most, the confidence loss helps too."""
    return 0.68 + 0.14 * ("early" in run.method) + 0.06 * ("logconf" in run.method)


@asynccontextmanager
async def open_tools(home: Path, agent: str, accuracy: Accuracy, **evaluation: Any) -> AsyncIterator[Toolbox]:
    identity: dict[str, Any] = {"home": home, "agent": agent}
    if agent == "operator":
        identity["role"] = "operator"
    training = TrainingSettings(**identity)
    servers = {
        "training": build_training(training, InstantExecutor(training, accuracy)),
        "evaluation": build_evaluation(EvaluationSettings(**identity, **evaluation)),
        "forum": build_forum(ServerSettings(**identity)),
        "filesystem": build_filesystem(FilesystemSettings(**identity)),
    }
    async with open_toolbox(servers) as tools:
        yield tools


@pytest.fixture
def open_session(toy_home: Path, tmp_path: Path) -> OpenSession:
    """Opens an agent's session on the toy task. Keyword arguments: direction, seed, seconds, accuracy, budgets."""

    @asynccontextmanager
    async def open_one(
        agent: str,
        *,
        direction: str = "# Which labels to trust\n\nFind the labels to trust.",
        seed: int = 0,
        seconds: float = 60,
        accuracy: Accuracy = good_parts,
        **evaluation: Any,
    ) -> AsyncIterator[Session]:
        async with open_tools(toy_home, agent, accuracy, **evaluation) as tools:
            yield Session(
                agent=agent,
                direction=direction,
                task="toy",
                tools=tools,
                stop=Stop(seconds),
                log=structlog.get_logger("test"),
                folder=tmp_path / "private" / agent,
                seed=seed,
            )

    return open_one


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a Messages API that answers from a script."""
    with ExitStack() as stack:

        def start(*script: Any, **options: Any) -> Api:
            api = Api(*script, **options)
            stack.enter_context(api.serve())
            return api

        yield start
