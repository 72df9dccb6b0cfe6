"""A run done again on inverted weak labels and on a changed pool, with real training of a toy model."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from typer.testing import CliRunner

from outlearn.errors import ConflictError
from outlearn.tasks import (
    Item,
    LabelledItem,
    SecretTask,
    fingerprint,
    load_baselines,
    load_public,
    load_secret,
    split_in_halves,
    write_task,
)
from outlearn.types import RunView
from outlearn_agents.cli import app
from outlearn_evaluation import teacher_check
from outlearn_training.sandbox.disguise import Disguise, read_digits

from .test_training_server import finish, serving, settings_for, write_method

torch = pytest.importorskip("torch")

NO_TEACHER = """
def method(lab, seed):
    return lab.fit([float(i % 2) for i in range(len(lab.pool))])
"""

OWN_LABELS = """
import numpy as np
def method(lab, seed):
    own = np.array([float(i % 2) for i in range(48)])
    agrees = np.corrcoef(own, lab.weak_labels())[0, 1] > 0
    return lab.fit(own if agrees else 1 - own)
"""


WORKS_OUT = """
import numpy as np
def method(lab, seed):
    own = np.array([int(item.text.split()[0]) % 2 for item in lab.pool])
    agrees = np.corrcoef(own, lab.weak_labels())[0, 1] > 0
    return lab.fit(own if agrees else 1 - own, epochs=16, lr=0.005)
"""

LEARNS = """
def method(lab, seed):
    return lab.fit(lab.weak_labels(), epochs=16, lr=0.005)
"""


SIZE = 200
"""Of the pool of the task that the toy model learns, and as many test items."""


async def train(home: Path, *sources: str, task: str = "toy") -> list[str]:
    """Full runs of methods."""
    settings, run_ids = settings_for(home), list[str]()
    async with serving(settings) as client:
        for source in sources:
            file = write_method(settings, source, "mine.py")
            run_ids.append((await client.call("submit_run", task=task, file=file, kind="full"))["run_id"])
        assert {(await finish(client, run_id))["status"] for run_id in run_ids} == {"done"}
    return run_ids


def check(home: Path, *sources: str, task: str = "toy") -> list[dict[str, Any]]:
    """What the check files about methods."""
    run_ids = anyio.run(partial(train, home, *sources, task=task))
    options = [word for run_id in run_ids for word in ("--check-teacher", run_id)]
    result = CliRunner().invoke(app, ["audit", str(home), *options, "--json"])
    assert result.exit_code == 0, result.output
    records = {one["run_id"]: one for one in json.loads(result.stdout) if one["kind"] == "teacher dependence"}
    return [records[run_id] for run_id in run_ids]


def test_a_run_that_a_limit_ended_is_not_judged_and_tried_again_at_the_next_call(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [run_id] = anyio.run(train, home, NO_TEACHER)
    command = ["audit", str(home), "--check-teacher", run_id, "--json"]

    def records(*options: str) -> list[Any]:
        shown = CliRunner().invoke(app, ["audit", str(home), "--no-scan", "--json", *options])
        return [one["action"] for one in json.loads(shown.stdout) if one["kind"] == "teacher dependence"]

    monkeypatch.setenv("OUTLEARN_SEED_SECONDS", "0.001")
    limited = CliRunner().invoke(app, command)
    assert isinstance(limited.exception, ConflictError)
    assert "1 of 1 runs were not judged" in str(limited.exception)
    assert "took longer than the 0.001 seconds" in str(limited.exception)
    assert records() == []
    monkeypatch.delenv("OUTLEARN_SEED_SECONDS")
    assert CliRunner().invoke(app, command).exit_code == 0
    assert records() == ["quarantine"]


def test_an_operator_may_take_what_a_limit_ended_for_evidence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [run_id] = anyio.run(train, home, LEARNS)
    monkeypatch.setenv("OUTLEARN_SEED_SECONDS", "0.001")
    command = ["audit", str(home), "--check-teacher", run_id, "--json"]
    assert isinstance(CliRunner().invoke(app, command).exception, ConflictError)
    shown = CliRunner().invoke(app, [*command, "--accept-failed"])
    [record] = [one for one in json.loads(shown.stdout) if one["kind"] == "teacher dependence"]
    assert (record["action"], record["evidence"]["inverted_run"]) == ("flag", "failed")


@pytest.mark.parametrize(
    ("message", "judged"),
    [
        ("was killed by signal 9; it may have used too much memory or CPU time", False),
        ("the method's process host died, probably for want of memory; use less", False),
        ("its worker died 3 times while running it, probably for want of memory; use less", False),
        ("MemoryError: no room", False),
        ("OutOfMemoryError: CUDA out of memory", False),
        ("OSError: [Errno 28] No space left on device", False),
        ("ValueError: this pool is another", True),
        ("wrote more than 16 files", True),
    ],
)
def test_what_the_machine_ended_is_told_from_what_a_method_did(message: str, judged: bool) -> None:
    now = datetime.now(UTC)
    view = RunView(
        run_id="run-000001",
        agent="ada",
        task="t",
        method="m.py",
        params={},
        kind="full",
        status="failed",
        seeds_done=0,
        seeds_total=2,
        progress=0.0,
        message=message,
        submitted_at=now,
    )
    assert teacher_check.was_ended_by_the_machine(view) is not judged


def write_odd_task(home: Path) -> None:
    """Write a task that the toy model learns: is a number of three digits odd? Of weak labels, 5 % are wrong."""
    toy, rng, size = load_public(home, "toy").card, np.random.default_rng(0), SIZE
    numbers = rng.permutation(np.arange(100, 1000))[: 2 * size].tolist()
    items = [LabelledItem(id=f"i{n}", text=f"{n} is odd", group=f"g{n}", label=n % 2) for n in numbers]
    labels = np.array(numbers) % 2
    secret = SecretTask(
        train=tuple(items[:1]),
        pool_labels=tuple(labels[:size].tolist()),
        test=tuple(items[size:]),
        public_half=split_in_halves(labels[size:].tolist(), 0),
    )
    pool = tuple(Item(id=item.id, text=item.text, group=item.group) for item in items[:size])
    card = toy.model_copy(update={"name": "odd", "pool_size": size, "test_size": size, "seeds": ()})
    weak = {seed: np.abs(labels[:size] - (rng.uniform(size=size) < 0.05)) for seed in toy.seeds}
    scale = load_baselines(home, "toy").model_copy(update={"fingerprint": fingerprint(card, pool, secret)})
    write_task(home, card, pool, secret, weak, scale)


def test_a_method_that_never_looks_at_the_teacher_is_quarantined(home: Path) -> None:
    [record] = check(home, NO_TEACHER)
    assert (record["action"], record["evidence"]["d"]) == ("quarantine", 0)


def test_a_method_that_brings_labels_for_the_pool_is_seen_on_another_pool(home: Path) -> None:
    [record] = check(home, OWN_LABELS)
    assert record["action"] in ("flag", "quarantine")
    assert record["evidence"]["changed_run"] == "failed"
    changed = home / "vault" / "toy" / "changed"
    ours, theirs, digits = load_public(home, "toy"), load_public(changed, "toy"), read_digits(changed, "toy")
    assert digits
    shown = list(map(Disguise(digits).item, ours.pool))
    rows = [shown.index(item) for item in theirs.pool]
    assert (len(rows), rows != sorted(rows)) == (round(0.8 * len(ours.pool)), True)
    for seed in theirs.card.seeds:
        assert np.array_equal(theirs.weak_labels(seed), ours.weak_labels(seed)[rows])
    truths = [load_secret(one, "toy").pool_labels for one in (home, changed)]
    assert truths[1] == tuple(truths[0][row] for row in rows)


def test_a_method_that_works_answers_out_loses_them_with_other_digits_and_one_that_learns_loses_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).permutation(SIZE)[: round(0.8 * SIZE)].tolist()
    change = teacher_check.Change(rows, "359728461")  # four digits change their parity; of other draws none may
    monkeypatch.setattr(teacher_check, "changed_pool", lambda *_: change)
    write_odd_task(home)
    works_out, learns = check(home, WORKS_OUT, LEARNS, task="odd")
    assert works_out["action"] == "flag"
    assert works_out["evidence"]["d"] > 0.5
    assert works_out["evidence"]["lost"] > 0.5
    assert (learns["action"], learns["evidence"]["lost"] < 0.1) == ("note", True)
    assert read_digits(home, "odd") is None
