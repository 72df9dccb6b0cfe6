"""A run done again on inverted weak labels, with real training of a toy model."""

import json
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from outlearn_agents.cli import app

from .test_training_server import finish, serving, settings_for, write_method

torch = pytest.importorskip("torch")

NO_TEACHER = """
def method(lab, seed):
    return lab.fit([float(i % 2) for i in range(len(lab.pool))])
"""


async def train(home: Path) -> str:
    """A full run of a method that makes up its labels."""
    settings = settings_for(home)
    async with serving(settings) as client:
        run = await client.call("submit_run", file=write_method(settings, NO_TEACHER, "alone.py"), kind="full")
        assert (await finish(client, run["run_id"]))["status"] == "done"
    return str(run["run_id"])


def test_a_method_that_never_looks_at_the_teacher_is_quarantined(home: Path) -> None:
    run_id = anyio.run(train, home)
    result = CliRunner().invoke(app, ["audit", str(home), "--check-teacher", run_id, "--json"])
    assert result.exit_code == 0, result.output
    [record] = json.loads(result.stdout)
    assert (record["kind"], record["action"], record["run_id"]) == ("teacher dependence", "quarantine", run_id)
    assert record["evidence"]["d"] == 0
