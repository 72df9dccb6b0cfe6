"""Who was seen probing gets no new answers until the operator has looked: at once, on every server of a home."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from forging import turn_around
from refusing import is_answered, the_quarantine
from typer.testing import CliRunner

from outlearn.audit import AuditKind, AuditLog
from outlearn.errors import BudgetError, IntegrityError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.receipts import ReceiptBook
from outlearn.tasks import load_secret
from outlearn.testing import connect
from outlearn_agents.cli import app
from outlearn_evaluation.server import build
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.withheld import PROBING, withheld

FileRun = Callable[..., None]
Start = Callable[..., EvaluationService]
ADA, BOB, CHIEF = Caller(agent="ada"), Caller(agent="bob"), Caller(agent="chief", role="operator")
RUNS = [f"run-{number:010d}" for number in range(32)]


@pytest.fixture
def log(toy_home: Path) -> AuditLog:
    return AuditLog(toy_home / "vault")


@pytest.fixture
def service(start: Start) -> EvaluationService:
    return start(daily_evaluations=30)


@pytest.fixture
def file_masks(toy_home: Path, file_run: FileRun) -> Callable[..., None]:
    """Files runs that turn another 30 % of one student's answers each, in all seeds."""

    def file(*run_ids: str, agent: str = "ada") -> None:
        items = len(load_secret(toy_home, "toy").test)
        student = np.random.default_rng(0).random(items) < 0.5
        for run_id in run_ids:
            turned = np.random.default_rng(7 + RUNS.index(run_id)).random(items) < 0.3
            file_run(run_id, agent=agent, predictions=tuple(np.where(student ^ turned, 0.75, 0.25).tolist()))

    return file


def answered(service: EvaluationService, caller: Caller, *run_ids: str) -> list[str]:
    """Those of the runs that get an answer."""
    return [run_id for run_id in run_ids if is_answered(service, caller, run_id)]


def test_masks_get_few_answers_and_then_none(
    service: EvaluationService, file_masks: Callable[..., None], file_run: FileRun, log: AuditLog
) -> None:
    file_masks(*RUNS[:20])
    got = answered(service, ADA, *RUNS[:20])
    assert len(got) <= 5
    found = the_quarantine(service, log)
    assert (found.kind, found.agent) == ("random masks", "ada")
    assert found.run_id not in got
    assert service.budget(ADA).agent_left == 30 - len(got)
    file_run(RUNS[30], agent="ada")
    file_run(RUNS[31], agent="bob")
    with pytest.raises(PermissionDeniedError, match=rf"{found.run_id}.*reviewed.*Nothing was charged"):
        service.evaluate(ADA, RUNS[30], None)
    with pytest.raises(PermissionDeniedError):
        service.evaluate(ADA, got[0], got[1])
    assert service.evaluate(BOB, RUNS[31], None).charged


def test_old_answers_are_repeated_and_rank(service: EvaluationService, file_run: FileRun, log: AuditLog) -> None:
    file_run(RUNS[0])
    first = service.evaluate(ADA, RUNS[0], None)
    log.append("canary", "disqualify", agent="ada", run_id=RUNS[1])
    again = service.evaluate(ADA, RUNS[0], None)
    assert (again.pgr, again.charged) == (first.pgr, False)
    assert [row.run_id for row in service.leaderboard("toy", 5).rows] == [RUNS[0]]
    assert service.nominate(ADA, (RUNS[0],)).run_ids == (RUNS[0],)


@pytest.mark.parametrize(("kind", "action"), [(AuditKind.CANARY, "disqualify"), (AuditKind.VAULT, "quarantine")])
def test_a_method_that_was_seen_at_secrets_costs_its_agent_the_answers(
    kind: str, action: str, service: EvaluationService, file_run: FileRun, log: AuditLog, start: Start
) -> None:
    log.append(kind, action, agent="ada", run_id=RUNS[1])  # type: ignore[arg-type]
    file_run(RUNS[0])
    for server in (service, start(), service):
        with pytest.raises(PermissionDeniedError, match=PROBING[kind]):
            server.evaluate(ADA, RUNS[0], None)
    [_, refused] = log.records()
    assert (refused.kind, refused.action, refused.agent, refused.run_id) == ("refused", "note", "ada", RUNS[0])
    assert not withheld(log.records()).covers(RUNS[0], "ada")


@pytest.mark.parametrize("kind", [AuditKind.DYNAMIC_CODE, AuditKind.TEACHER_DEPENDENCE, AuditKind.OPERATOR])
def test_what_is_no_probing_costs_a_run_its_rank_only(
    kind: str, service: EvaluationService, file_run: FileRun, log: AuditLog
) -> None:
    log.append(kind, "quarantine", agent="ada", run_id=RUNS[1])
    file_run(RUNS[0])
    assert service.evaluate(ADA, RUNS[0], None).charged


def test_whoever_asks_with_a_forged_receipt_gets_no_answers(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUNS[0])
    file_run(RUNS[1])
    path = ReceiptBook(toy_home / "vault").folder / RUNS[0] / "0.json"
    turn_around(path)
    with pytest.raises(IntegrityError):
        service.evaluate(ADA, RUNS[0], None)
    with pytest.raises(PermissionDeniedError, match=PROBING["forged receipt"]):
        service.evaluate(ADA, RUNS[1], None)


def review(home: Path, decision: str, subject: str) -> None:
    assert CliRunner().invoke(app, ["review", str(home), decision, subject]).exit_code == 0


@pytest.mark.parametrize("subject", ["run", "agent"])
def test_the_operator_lifts_it_by_releasing_the_run_or_the_agent(
    subject: str,
    service: EvaluationService,
    file_masks: Callable[..., None],
    file_run: FileRun,
    log: AuditLog,
    toy_home: Path,
) -> None:
    file_masks(*RUNS[:10])
    answered(service, ADA, *RUNS[:10])
    [seen] = [one.run_id for one in log.records() if one.action == "quarantine"]
    review(toy_home, "release", seen if subject == "run" else "ada")
    assert service.evaluate(ADA, seen, None).charged
    assert (seen in [row.run_id for row in service.leaderboard("toy", 20).rows]) == (subject == "run")
    file_masks(*RUNS[10:30])
    assert len(answered(service, ADA, *RUNS[10:30])) <= 2  # what was let go is not counted again, what is new is


def test_an_agent_that_the_operator_withholds_gets_no_answers(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUNS[0])
    (toy_home / "workspaces" / "ada").mkdir(parents=True)
    review(toy_home, "quarantine", "ada")
    with pytest.raises(PermissionDeniedError, match="the operator withholds"):
        service.evaluate(ADA, RUNS[0], None)
    assert not service.evaluate(CHIEF, RUNS[0], None).charged
    review(toy_home, "release", "ada")
    assert service.evaluate(ADA, RUNS[0], None).pgr == 0.5


def test_a_used_up_budget_is_told_before_anything_is_looked_at(
    start: Start, file_masks: Callable[..., None], log: AuditLog
) -> None:
    file_masks(*RUNS[:10])
    service = start(agent_evaluations=0)
    for run_id in RUNS[:10]:
        with pytest.raises(BudgetError):
            service.evaluate(ADA, run_id, None)
    assert not log.records()


def test_masks_get_few_answers_where_the_log_cannot_be_written(
    service: EvaluationService, file_masks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "no space left")

    file_masks(*RUNS[:20])
    monkeypatch.setattr(AuditLog, "append", full)
    got = answered(service, ADA, *RUNS[:20])
    assert len(got) <= 12  # a mask that looks like research by chance, of so few items, is answered: no record bars it


ASKER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from outlearn.errors import PermissionDeniedError
from outlearn.identity import Caller
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

service = EvaluationService(EvaluationSettings(home=Path(sys.argv[1]), daily_evaluations=30))
print("ready", flush=True)
sys.stdin.readline()

def ask(run_id):
    try:
        return service.evaluate(Caller(agent='ada'), run_id, None).charged
    except PermissionDeniedError:
        return False

with ThreadPoolExecutor(15) as pool:
    print(sum(pool.map(ask, sys.argv[2:])))
"""


def test_thirty_questions_at_once_on_two_servers_get_no_more_than_one_by_one(
    toy_home: Path, file_masks: Callable[..., None], log: AuditLog
) -> None:
    file_masks(*RUNS[:30])
    command = [sys.executable, "-c", ASKER, str(toy_home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    servers = [subprocess.Popen([*command, *runs], **pipes) for runs in (RUNS[:15], RUNS[15:30])]  # type: ignore[call-overload]
    for server in servers:
        assert server.stdout.readline() == "ready\n"
    for server in servers:
        server.stdin.write("go\n")
        server.stdin.flush()
    given = sum(int(server.communicate(timeout=120)[0]) for server in servers)
    assert 1 <= given < 10  # how many depends on the order in which they came
    service = EvaluationService(EvaluationSettings(home=toy_home))
    assert the_quarantine(service, log).kind == "random masks"
    assert len({one.run_id for one in log.records() if one.kind == "refused"}) == 30 - given - 1


async def test_the_rules_and_the_refusal_say_who_can_lift_it(toy_home: Path, file_run: FileRun, log: AuditLog) -> None:
    log.append("canary", "disqualify", agent="ada", run_id=RUNS[1])
    file_run(RUNS[0])
    async with connect(build(EvaluationSettings(home=toy_home, agent="ada"))) as client:
        rules = str(await client.client.read_resource("outlearn://rules"))
        assert "no new answers until the operator" in rules
        with pytest.raises(Exception, match="operator has reviewed"):
            await client.call("evaluate", run_id=RUNS[0])


def test_thirty_threads_on_one_server_get_no_more_than_one_by_one(
    service: EvaluationService, file_masks: Callable[..., None], log: AuditLog
) -> None:
    file_masks(*RUNS[:30])
    with ThreadPoolExecutor(30) as pool:
        assert 1 <= sum(len(got) for got in pool.map(lambda run_id: answered(service, ADA, run_id), RUNS[:30])) < 10
    the_quarantine(service, log)


def test_forty_new_questions_at_once_are_all_answered(start: Start, toy_home: Path, file_run: FileRun) -> None:
    service = start(team_evaluations=1000)
    items, names = len(load_secret(toy_home, "toy").test), [f"run-{number:010d}" for number in range(40)]
    hard = np.random.default_rng(0).normal(size=items)
    for number, name in enumerate(names):
        sure = hard + 0.4 * np.random.default_rng(number).normal(size=items)
        file_run(name, agent=f"agent{number}", predictions=tuple((1 / (1 + np.exp(-3 * sure))).tolist()))
    with ThreadPoolExecutor(40) as pool:
        told = pool.map(lambda name: service.evaluate(Caller(agent=f"agent{int(name[4:])}"), name, None), names)
        assert all(one.charged for one in told)
