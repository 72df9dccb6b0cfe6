"""Runs with chosen accuracies, as the trusted predictor would have signed them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outlearn.receipts import Receipt, ReceiptBook
from outlearn.seal import Seal
from outlearn.tasks import load_public, load_secret
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

FileRun = Callable[..., None]
Start = Callable[..., EvaluationService]


def predictions(home: Path, task: str, right: int, seed: int) -> tuple[float, ...]:
    """P(label = 1) of a student that is right on `right` of the 100 public items and wrong on all private ones."""
    secret = load_secret(home, task)
    public = np.random.default_rng(seed).permutation(secret.public_half)
    correct = np.zeros(len(secret.test), dtype=bool)
    correct[public[:right]] = True
    return tuple(np.where(correct == secret.test_labels, 0.75, 0.25).tolist())


@pytest.fixture(autouse=True)
def silence(toy_home: Path) -> None:
    """Takes all noise out of the toy task's seal, so that answers can be worked out by hand."""
    [path] = (toy_home / "vault" / "toy").glob("seal-*.json")
    seal = Seal.model_validate_json(path.read_bytes())
    path.write_text(seal.model_copy(update={"noise": (0.0,) * len(seal.noise), "dither": 0.0}).model_dump_json())


@pytest.fixture
def file_run(toy_home: Path) -> FileRun:
    """Files receipts of a run: for each seed, how many of the 100 public items its student gets right."""

    def file(
        run_id: str, agent: str = "ada", right: Sequence[int] = (75,) * 5, task: str = "toy", **fields: Any
    ) -> None:
        card = load_public(toy_home, task).card
        for seed, count in zip(card.seeds, right, strict=False):
            values: dict[str, Any] = {
                "run_id": run_id,
                "agent": agent,
                "method": "vanilla",
                "method_sha256": "0" * 64,
                "task": task,
                "task_fingerprint": card.fingerprint,
                "seed": seed,
                "weights_sha256": ("1" * 64,),
                "predictions": predictions(toy_home, task, count, seed),
            }
            ReceiptBook(toy_home / "vault").issue(Receipt(**(values | fields)))

    return file


@pytest.fixture
def settings(toy_home: Path) -> EvaluationSettings:
    return EvaluationSettings(home=toy_home, agent="ada")


@pytest.fixture
def start(toy_home: Path) -> Iterator[Start]:
    """Starts an evaluation service on the toy home, with other limits where they are given."""
    services: list[EvaluationService] = []

    def start_one(**limits: Any) -> EvaluationService:
        services.append(EvaluationService(EvaluationSettings(**({"home": toy_home} | limits))))
        return services[-1]

    yield start_one
    for service in services:
        service.engine.dispose()


@pytest.fixture
def service(start: Start) -> EvaluationService:
    return start()
