"""The evaluation ledger on PostgreSQL: what SQLite's one writer gives for nothing."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from refusing import is_answered, the_quarantine

from outlearn.audit import AuditLog
from outlearn.errors import BudgetError, ConflictError, OutlearnError
from outlearn.identity import Caller
from outlearn.tasks import load_secret
from outlearn_evaluation.ledger import Ledger
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

FileRun = Callable[..., None]
ADA, BOB = Caller(agent="ada"), Caller(agent="bob")
RUNS = [f"run-{number:010d}" for number in range(32)]


@pytest.fixture
def settings(toy_home: Path, postgresql_url: str) -> EvaluationSettings:
    return EvaluationSettings(home=toy_home, database_url=postgresql_url, daily_evaluations=7)


@pytest.fixture
def servers(settings: EvaluationSettings) -> Iterator[tuple[EvaluationService, EvaluationService]]:
    """Two evaluation servers of one home."""
    one, two = EvaluationService(settings), EvaluationService(settings)
    yield one, two
    one.engine.dispose()
    two.engine.dispose()


def test_questions_at_once_are_charged_once_each_and_the_budget_holds(
    servers: tuple[EvaluationService, EvaluationService], file_run: FileRun
) -> None:
    for number in range(10):
        file_run(RUNS[number], right=(60 + 3 * number,) * 5)

    def ask(number: int) -> tuple[str, bool] | None:
        try:
            answer = servers[number % 2].evaluate(ADA, RUNS[number // 4], None)
        except BudgetError:
            return None
        return answer.run_id, answer.charged

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(40)))
    charged = [one[0] for one in answers if one and one[1]]
    assert len(charged) == len(set(charged)) == 7
    assert {one[0] for one in answers if one} == set(charged)
    assert servers[0].budget(ADA).agent_today_left == 0
    assert {row.run_id for row in servers[1].leaderboard("toy", 50).rows} == set(charged)


def test_masks_asked_about_at_once_get_few_answers(
    settings: EvaluationSettings, file_run: FileRun, toy_home: Path
) -> None:
    items = len(load_secret(toy_home, "toy").test)
    student = np.random.default_rng(0).random(items) < 0.5
    for number, run_id in enumerate(RUNS):
        turned = np.random.default_rng(number + 1).random(items) < 0.3
        file_run(run_id, predictions=tuple(np.where(student ^ turned, 0.75, 0.25).tolist()))
    service = EvaluationService(settings.model_copy(update={"daily_evaluations": 30}))

    with ThreadPoolExecutor(8) as pool:
        given = sum(pool.map(lambda run_id: is_answered(service, ADA, run_id), RUNS))
    assert 1 <= given < 20  # how many of 32 depends on the order in which they came
    the_quarantine(service, AuditLog(toy_home / "vault"))
    service.engine.dispose()


def test_nominations_close_while_others_nominate(
    servers: tuple[EvaluationService, EvaluationService], settings: EvaluationSettings, file_run: FileRun
) -> None:
    for number, agent in enumerate(("ada", "bob")):
        file_run(RUNS[number], agent=agent, right=(70 + 10 * number,) * 5)
        servers[number].evaluate(Caller(agent=agent), RUNS[number], None)
    servers[0].nominate(ADA, (RUNS[0],))
    ledger = Ledger(settings)
    _, nominated = ledger.close("toy")
    ledger.engine.dispose()
    assert [one.run_id for one in nominated] == [RUNS[0]]
    with pytest.raises(ConflictError, match="the final of task 'toy' began"):
        servers[1].nominate(BOB, (RUNS[1],))
    file_run(RUNS[2])
    with pytest.raises(OutlearnError, match="the final of task 'toy' began"):
        servers[1].evaluate(ADA, RUNS[2], None)
    assert not servers[1].evaluate(ADA, RUNS[0], None).charged
