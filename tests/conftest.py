"""Fixtures for all tests: a toy task whose files are real and whose numbers are known."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads; tiny models gain nothing from threads
gc.disable()  # until all tests are collected: what is imported stays, and looking through it took 5 s in each process

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_once import make_once
from postgresql_server import PostgreSQL, is_installed, running

from outlearn.tasks import (
    Baselines,
    FineTuning,
    Item,
    LabelledItem,
    SecretTask,
    SeedBaseline,
    TaskCard,
    fingerprint,
    split_in_halves,
    write_task,
)

SEEDS = (0, 1, 2, 3, 4)
POOL, TEST = 48, 200
MARK = "STARTED_BY_TESTS"


def pytest_collection_finish() -> None:
    """Garbage is collected again, and never looked for in what was imported."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the environment of whoever runs the tests must not change them."""
    for name in [name for name in os.environ if name.startswith("OUTLEARN_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """Ends what the tests started and left running, also where they are killed."""
    mark = f"outlearn-tests-{os.getpid()}-{time.time_ns()}"
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("sweeper.py")), mark]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        os.environ[MARK] = mark
        yield


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    """Schemas of tools and trusted certificates are made once, not for each test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        make_once(monkeypatch)
        yield


def write_toy_task(home: Path, student: str = "toy/student", name: str = "toy") -> TaskCard:
    """A calibrated task: weak accuracy 0.6, ceiling 0.9 on each half of the test items."""
    pool = tuple(Item(id=f"p{i}", text=f"{i} is odd", group=f"g{i}") for i in range(POOL))
    labels = [i % 2 for i in range(TEST)]
    test = tuple(
        LabelledItem(id=f"t{i}", text=f"{i} is odd!", group=f"t{i}", label=1 if label else 0)
        for i, label in enumerate(labels)
    )
    secret = SecretTask(
        train=tuple(LabelledItem(id="a", text="1 is odd", group="a", label=1) for _ in range(1)),
        pool_labels=tuple(i % 2 for i in range(POOL)),
        test=test,
        public_half=split_in_halves(labels, 0),
    )
    tuning = FineTuning(epochs=1, lr=1e-3, batch_size=16)
    card = TaskCard(
        name=name,
        kind="math",
        question="Is the number odd?",
        template="{text}",
        label_words=(" no", " yes"),
        zero_shot_words=(" False", " True"),
        teacher=student,
        student=student,
        teacher_tuning=tuning,
        student_tuning=tuning,
        max_tokens=16,
        pool_size=POOL,
        test_size=TEST,
    )
    rng = np.random.default_rng(0)
    weak = {seed: rng.uniform(size=POOL).round(3) for seed in SEEDS}
    per_seed = tuple(
        SeedBaseline(seed=seed, weak=0.6, ceiling=0.9, weak_public=0.6, ceiling_public=0.9) for seed in SEEDS
    )
    baselines = Baselines(fingerprint=fingerprint(card, pool, secret), per_seed=per_seed)
    return write_task(home, card, pool, secret, weak, baselines)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, where one is installed."""
    if not is_installed():
        pytest.skip("no PostgreSQL server, or no psycopg")
    with running() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql: PostgreSQL) -> Iterator[str]:
    """An empty PostgreSQL database of the test's own."""
    with postgresql.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of the test's own, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def toy_home(tmp_path: Path) -> Path:
    """A home folder with the toy task, for servers that need no model."""
    write_toy_task(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture(scope="session")
def write_task_for() -> Callable[[Path, str], TaskCard]:
    """Writes the toy task with another student model."""
    return write_toy_task
