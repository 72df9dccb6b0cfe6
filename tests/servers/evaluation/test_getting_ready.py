"""Finished runs are checked before anybody asks, and nothing that changes since then goes unnoticed."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from forging import turn_around

from outlearn.audit import AuditLog
from outlearn.database import writing
from outlearn.errors import IntegrityError, NotFoundError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.receipts import ReceiptBook
from outlearn.testing import connect
from outlearn.transactions import BusyError
from outlearn_evaluation.server import build
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

FileRun = Callable[..., None]
Start = Callable[..., EvaluationService]
ADA, BOB = Caller(agent="ada"), Caller(agent="bob")
RUN, OTHER = "run-000001", "run-000002"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs whose receipts are read from now on."""
    read, found = ReceiptBook.read, list[str]()

    def reading(book: ReceiptBook, run_id: str) -> object:
        found.append(run_id)
        return read(book, run_id)

    monkeypatch.setattr(ReceiptBook, "read", reading)
    return found


def test_a_run_that_is_ready_is_answered_as_any_other(
    service: EvaluationService, file_run: FileRun, start: Start, reads: list[str]
) -> None:
    file_run(RUN)
    service.get_ready()
    assert reads == [RUN]
    ready = service.evaluate(ADA, RUN, None)
    assert (ready.pgr, ready.charged, reads) == (0.5, True, [RUN])
    assert start().evaluate(ADA, RUN, None) == ready.model_copy(update={"charged": False})


def test_a_run_is_read_once_for_each_change_of_its_receipts(
    service: EvaluationService, file_run: FileRun, reads: list[str]
) -> None:
    file_run(RUN, right=(75, 75))
    for _ in range(3):
        service.get_ready()
    assert reads == [RUN]
    with pytest.raises(IntegrityError, match="wait until"):
        service.evaluate(ADA, RUN, None)
    file_run(RUN)
    reads.clear()
    service.get_ready()
    assert service.evaluate(ADA, RUN, None).pgr == 0.5
    service.get_ready()
    assert reads == [RUN]


def test_a_receipt_that_is_changed_afterwards_is_seen(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    service.get_ready()
    path = ReceiptBook(toy_home / "vault").folder / RUN / "0.json"
    turn_around(path)
    with pytest.raises(IntegrityError, match="wrong signature"):
        service.evaluate(ADA, RUN, None)
    [record] = AuditLog(toy_home / "vault").records()
    assert (record.kind, record.action, record.agent) == ("forged receipt", "disqualify", "ada")


def test_a_forged_receipt_costs_whoever_asks_and_not_who_only_looks(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    path = ReceiptBook(toy_home / "vault").folder / RUN / "0.json"
    turn_around(path)
    service.get_ready()
    assert not AuditLog(toy_home / "vault").records()
    with pytest.raises(IntegrityError):
        service.evaluate(ADA, RUN, None)
    assert [one.action for one in AuditLog(toy_home / "vault").records()] == ["disqualify"]


def test_receipts_that_went_are_not_scored(service: EvaluationService, file_run: FileRun, toy_home: Path) -> None:
    file_run(RUN)
    service.get_ready()
    for path in (ReceiptBook(toy_home / "vault").folder / RUN).iterdir():
        path.unlink()
    with pytest.raises(NotFoundError, match="no receipts"):
        service.evaluate(ADA, RUN, None)
    assert service.budget(ADA).agent_left == 30


def test_a_run_that_is_ready_is_still_its_agents_alone(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUN)
    service.get_ready()
    with pytest.raises(PermissionDeniedError, match="another agent's"):
        service.evaluate(BOB, RUN, None)
    assert service.evaluate(ADA, RUN, None).charged


def test_a_seal_that_is_swapped_afterwards_is_seen(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    service.get_ready()
    [seal] = (toy_home / "vault" / "toy").glob("seal-*.json")
    seal.write_text(seal.read_text().replace('"dither":0.0', '"dither":0.5'))
    with pytest.raises(IntegrityError, match="not those committed to"):
        service.evaluate(ADA, RUN, None)


def test_an_answer_of_another_server_is_neither_charged_nor_changed(start: Start, file_run: FileRun) -> None:
    one, two = start(), start()
    file_run(RUN)
    two.get_ready()
    first = one.evaluate(ADA, RUN, None)
    again = two.evaluate(ADA, RUN, None)
    assert again == first.model_copy(update={"charged": False})


def test_the_newest_runs_are_ready_where_there_are_too_many(
    service: EvaluationService, file_run: FileRun, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlearn_evaluation.service.MOST_READY", 1)
    for run_id in (RUN, OTHER):
        file_run(run_id)
        service.get_ready()
    assert reads == [RUN, OTHER]
    service.evaluate(ADA, OTHER, None)
    assert reads == [RUN, OTHER]
    service.get_ready()
    service.evaluate(ADA, RUN, None)
    assert reads == [RUN, OTHER, RUN]


def test_trouble_with_looking_ahead_is_no_trouble_for_who_asks(
    service: EvaluationService, file_run: FileRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ValueError("unexpected")

    file_run(RUN)
    with monkeypatch.context() as patch:
        patch.setattr(ReceiptBook, "run_ids", fail)
        service.get_ready()
    assert service.evaluate(ADA, RUN, None).pgr == 0.5


async def test_a_server_gets_runs_ready_by_itself(
    toy_home: Path, file_run: FileRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, get_ready = Event(), EvaluationService.get_ready

    def getting_ready(service: EvaluationService) -> None:
        get_ready(service)
        looked.set()

    file_run(RUN)
    monkeypatch.setattr(EvaluationService, "get_ready", getting_ready)
    async with connect(build(EvaluationSettings(home=toy_home, agent="ada"))) as client:
        assert await asyncio.to_thread(looked.wait, 60)
        monkeypatch.setattr(ReceiptBook, "read", lambda *_: pytest.fail("it was read before"))
        assert (await client.call("evaluate", run_id=RUN))["pgr"] == 0.5


def test_an_answer_that_is_not_to_wait_comes_at_once_or_not_at_all(
    service: EvaluationService, file_run: FileRun, start: Start, reads: list[str]
) -> None:
    file_run(RUN)
    for _ in range(2):
        with pytest.raises(BusyError):
            service.evaluate(ADA, RUN, None, wait=False)
    assert reads == []
    service.get_ready()
    with writing(start().engine), pytest.raises(BusyError):
        service.evaluate(ADA, RUN, None, wait=False)
    assert service.budget(ADA, wait=False).agent_left == 30
    assert service.evaluate(ADA, RUN, None, wait=False).charged
    assert not service.evaluate(ADA, RUN, None, wait=False).charged
    assert [row.run_id for row in service.leaderboard("", 9, wait=False).rows] == [RUN]


async def test_whoever_waits_for_the_ledger_keeps_nobody_else_waiting(toy_home: Path, file_run: FileRun) -> None:
    file_run(RUN)
    ledger = EvaluationService(EvaluationSettings(home=toy_home)).engine
    async with connect(build(EvaluationSettings(home=toy_home, agent="ada"))) as client:
        with writing(ledger):  # as another process does
            waiting = asyncio.create_task(client.call("evaluate", run_id=RUN))
            for _ in range(3):
                assert (await client.call("get_budget"))["agent_left"] == 30
                assert (await client.call("leaderboard"))["rows"] == []
            assert not waiting.done()
        assert (await waiting)["charged"]
        assert (await client.call("get_budget"))["agent_left"] == 29
    ledger.dispose()
