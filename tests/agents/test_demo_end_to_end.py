"""The main job with real training: a team on the tiny testbed, from the command line, with Ctrl-C and kill -9."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outlearn.results import ResultBook, results_file
from outlearn_agents.report.summary import Summary

pytest.importorskip("torch")
pytest.importorskip("transformers")

LIMIT_SECONDS = 300
OUTLEARN = [sys.executable, "-c", "from outlearn_agents.cli import main; main()"]


def outlearn(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*OUTLEARN, *arguments], capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)


@contextmanager
def running(*arguments: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen([*OUTLEARN, *arguments], stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def left_behind(run: Path) -> list[str]:
    """Command lines of processes that were started for the run folder or have a file in it open."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(run) in line or any(name.startswith(str(run)) for name in opened):
            lines.append(line)
    return lines


def results(run: Path) -> list[bytes]:
    return results_file(run).read_bytes().splitlines() if results_file(run).exists() else []


def numbers(summary: dict[str, Any]) -> list[tuple[str, float, float]]:
    return [(one["run_id"], one["pgr"], one["pgr_se"]) for one in summary["runs"]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_team_researches_stops_cleanly_resumes_and_cannot_be_lied_to(tmp_path: Path) -> None:
    run = tmp_path / "run"
    log = tmp_path / "log"
    with running("demo", "--run", str(run), "--agents", "2", "--seconds", "900", log=log) as team:
        until(lambda: len(results(run)) >= 2 or team.poll() is not None, "two evaluated runs")
        team.send_signal(signal.SIGINT)
        assert team.wait(LIMIT_SECONDS) == 0, log.read_text()
    assert left_behind(run) == []
    summary = json.loads((run / "summary.json").read_text())
    assert len(summary["runs"]) >= 2
    assert "running" not in summary["submitted"], "the team has ended"
    book = ResultBook(run)
    for run_id, pgr, pgr_se in numbers(summary):
        published = book.lookup(run_id)
        assert published is not None
        assert (published.pgr, published.pgr_se) == (pgr, pgr_se)
    assert summary["weak_acc"] < summary["ceiling_acc"]
    assert summary["runs"][0]["seeds"] == 5
    assert "<svg" in (run / "report.html").read_text()
    assert {finding["kind"] for finding in summary["findings"]} >= {"hypothesis", "result"}

    with sqlite3.connect(run / "forum.sqlite") as forum:
        changed = forum.execute("update posts set text = 'PGR 9.99', title = 'PGR 9.99' where run_id is not null")
        assert changed.rowcount >= 2
    forum.close()
    again = outlearn("report", str(run), "--json")
    assert again.returncode == 0, again.stderr
    assert numbers(json.loads(again.stdout)) == numbers(summary)
    assert "9.99" in again.stdout

    before = len(results(run))
    with running("team", str(run), "--minutes", "15", log=log) as team:
        until(lambda: len(results(run)) > before or team.poll() is not None, "another evaluated run")
        team.kill()
        team.wait(LIMIT_SECONDS)
    until(lambda: not left_behind(run), "the end of servers, agents and workers")
    after = Summary.model_validate_json(outlearn("report", str(run), "--json").stdout)
    assert len(after.runs) > before
    assert set(numbers(summary)) <= {(one.run_id, one.pgr, one.pgr_se) for one in after.runs}
    assert len({one.run_id for one in after.runs}) == len(after.runs)
