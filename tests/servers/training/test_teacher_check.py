"""A run done again on inverted weak labels and on a changed pool, with real training of a toy model."""

import json
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from typer.testing import CliRunner

from outlearn.tasks import load_public, load_secret
from outlearn_agents.cli import app

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


async def train(home: Path, source: str) -> str:
    """A full run of a method."""
    settings = settings_for(home)
    async with serving(settings) as client:
        run = await client.call("submit_run", file=write_method(settings, source, "mine.py"), kind="full")
        assert (await finish(client, run["run_id"]))["status"] == "done"
    return str(run["run_id"])


def check(home: Path, source: str) -> dict[str, Any]:
    """What the check files about a method."""
    run_id = anyio.run(train, home, source)
    result = CliRunner().invoke(app, ["audit", str(home), "--check-teacher", run_id, "--json"])
    assert result.exit_code == 0, result.output
    [record] = [one for one in json.loads(result.stdout) if one["kind"] == "teacher dependence"]
    assert record["run_id"] == run_id
    return dict(record)


def test_a_method_that_never_looks_at_the_teacher_is_quarantined(home: Path) -> None:
    record = check(home, NO_TEACHER)
    assert (record["action"], record["evidence"]["d"]) == ("quarantine", 0)


def test_a_method_that_brings_labels_for_the_pool_is_seen_on_another_pool(home: Path) -> None:
    record = check(home, OWN_LABELS)
    assert record["action"] in ("flag", "quarantine")
    assert record["evidence"]["moved_run"] == "failed"
    ours, theirs = load_public(home, "toy"), load_public(home / "vault" / "toy" / "moved", "toy")
    rows = [ours.pool.index(item) for item in theirs.pool]
    assert (len(rows), rows != sorted(rows)) == (round(0.8 * len(ours.pool)), True)
    assert np.array_equal(theirs.weak_labels(1), ours.weak_labels(1)[rows])
    truths = [load_secret(one, "toy").pool_labels for one in (home, home / "vault" / "toy" / "moved")]
    assert truths[1] == tuple(truths[0][row] for row in rows)
