"""A leaderboard that is kept: the same as one made anew, whoever changed what it is made of."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from outlearn.audit import AuditLog
from outlearn.changes import Changes
from outlearn.identity import Caller
from outlearn.tasks import SanityLine, load_baselines
from outlearn.types import Leaderboard
from outlearn_evaluation import board
from outlearn_evaluation.ledger import Ledger
from outlearn_evaluation.service import EvaluationService

FileRun = Callable[..., None]
Start = Callable[..., EvaluationService]
ADA, BOB = Caller(agent="ada"), Caller(agent="bob")
RUNS = [f"run-{number:010d}" for number in range(4)]
RENAME = "import sqlite3, sys; base = sqlite3.connect(sys.argv[1]); base.execute({!r}); base.commit()"


def shown(service: EvaluationService) -> Leaderboard:
    return service.leaderboard("", 10)


def runs(service: EvaluationService) -> list[str]:
    return [row.run_id for row in shown(service).rows]


@pytest.fixture
def ranked(service: EvaluationService, file_run: FileRun) -> EvaluationService:
    """A service that has shown a board of two runs."""
    for run_id, agent, right in zip(RUNS, ("ada", "bob"), (90, 70), strict=False):
        file_run(run_id, agent=agent, right=(right,) * 5)
        service.evaluate(Caller(agent=agent), run_id, None)
    assert runs(service) == RUNS[:2]
    return service


def test_a_board_of_which_nothing_changed_is_not_made_again(
    ranked: EvaluationService, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shown(ranked)
    monkeypatch.delattr(Ledger, "board")
    assert shown(ranked) is before
    with pytest.raises(AttributeError):
        ranked.leaderboard("", 9)


def test_an_evaluation_by_this_or_another_server_shows_at_once(
    ranked: EvaluationService, file_run: FileRun, start: Start
) -> None:
    other = start()
    assert shown(other) == shown(ranked)
    for server, run_id, right in ((ranked, RUNS[2], 80), (other, RUNS[3], 85)):
        file_run(run_id, agent="ada", right=(right,) * 5)
        server.evaluate(ADA, run_id, None)
        assert runs(ranked) == runs(other)
        assert run_id in runs(ranked)


def test_what_another_process_writes_shows_at_once(ranked: EvaluationService, toy_home: Path) -> None:
    write = RENAME.format("UPDATE evaluations SET method = 'renamed'")
    subprocess.run([sys.executable, "-c", write, toy_home / "evaluation.sqlite"], check=True)
    assert {row.method for row in shown(ranked).rows} == {"renamed"}


def test_a_withheld_run_is_gone_at_once_and_comes_back_when_it_is_released(
    ranked: EvaluationService, toy_home: Path
) -> None:
    log = AuditLog(toy_home / "vault")
    log.append("operator", "quarantine", run_id=RUNS[0], agent="ada")
    assert runs(ranked) == [RUNS[1]]
    log.append("operator", "release", run_id=RUNS[0], agent="ada")
    assert runs(ranked) == RUNS[:2]
    log.append("operator", "disqualify", agent="bob")
    assert runs(ranked) == [RUNS[0]]


def test_a_nomination_shows_at_once(ranked: EvaluationService) -> None:
    ranked.nominate(BOB, (RUNS[1],))
    assert [row.nominated for row in shown(ranked).rows] == [False, True]
    ranked.nominate(BOB, ())
    assert not any(row.nominated for row in shown(ranked).rows)


def test_other_baselines_show_at_once(ranked: EvaluationService, toy_home: Path) -> None:
    path = toy_home / "vault" / "toy" / "baselines.json"
    line = SanityLine(name="length alone", accuracy=0.75)
    changed = load_baselines(toy_home, "toy").model_copy(update={"lines": (line,)})
    path.write_text(changed.model_dump_json())
    assert "length alone" in {line.name for line in shown(ranked).lines}


def test_a_board_outlives_no_closed_database(ranked: EvaluationService, start: Start, file_run: FileRun) -> None:
    """SQLite counts commits for each connection anew: the count of one says nothing about another's."""
    other = start()
    for run_id in RUNS[2:]:
        ranked.engine.dispose()
        file_run(run_id, agent="ada", right=(60,) * 5)
        other.evaluate(ADA, run_id, None)
        assert run_id in runs(ranked)


def test_few_boards_are_kept_however_many_are_asked_for(ranked: EvaluationService) -> None:
    for limit in range(1, 3 * board.MOST_KEPT):
        assert len(ranked.leaderboard("", limit).rows) == min(limit, 2)
    assert len(ranked._boards._kept) <= board.MOST_KEPT


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///file:nothing?uri=true"])
def test_what_is_no_file_has_no_version_and_no_board_of_it_is_kept(url: str) -> None:
    engine = create_engine(url)
    assert Changes(engine).last() is None
    engine.dispose()
