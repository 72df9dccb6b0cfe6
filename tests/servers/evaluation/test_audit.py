"""From an evaluation to the audit log, to the leaderboard, to the operator's decision."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import turn_around
from typer.testing import CliRunner

from outlearn import ServerSettings
from outlearn.audit import AuditLog
from outlearn.errors import IntegrityError, InvalidInputError, NotFoundError, OutdatedError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.results import ResultBook, results_file
from outlearn.tasks import load_public, load_secret
from outlearn.testing import connect
from outlearn.types import RunView
from outlearn_agents.cli import app
from outlearn_evaluation import teacher_check
from outlearn_evaluation.detectors import Suspicion
from outlearn_evaluation.inspection import OF_PLACE, OF_STUDENTS
from outlearn_evaluation.server import build
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.teacher_check import Change, changed_pool, check_teacher
from outlearn_evaluation.withheld import withheld
from outlearn_forum.store import ForumStore

FileRun = Callable[..., None]
Start = Callable[..., EvaluationService]
ADA, BOB = Caller(agent="ada"), Caller(agent="bob")
RUN, OTHER = "run-000001", "run-000002"


@pytest.fixture
def log(toy_home: Path) -> AuditLog:
    return AuditLog(toy_home / "vault")


def kinds(log: AuditLog) -> list[tuple[str, str, str]]:
    return [(one.kind, one.action, one.run_id) for one in log.records()]


@pytest.fixture
def file_honest(toy_home: Path, file_run: FileRun) -> FileRun:
    """Files a run that is right on 75 in 100 items of either half, others for each seed and agent."""

    def file(run_id: str, agent: str = "ada") -> None:
        file_run(run_id, agent=agent)
        book, secret = ReceiptBook(toy_home / "vault"), load_secret(toy_home, "toy")
        for receipt in book.read(run_id):
            rng = np.random.default_rng([receipt.seed, *agent.encode()])
            right = np.zeros(len(secret.test), dtype=bool)
            for half in (np.flatnonzero(secret.public_mask()), np.flatnonzero(~secret.public_mask())):
                right[rng.permutation(half)[:75]] = True
            predicted = tuple(np.where(right == secret.test_labels, 0.75, 0.25).tolist())
            book.issue(receipt.model_copy(update={"predictions": predicted}))

    return file


def ranked(service: EvaluationService) -> list[str]:
    return [row.run_id for row in service.leaderboard("toy", 20).rows]


def packed(home: Path, seed: int) -> tuple[float, ...]:
    """One vector's answers, the same for all seeds of a run."""
    return tuple(np.random.default_rng(seed).uniform(size=len(load_secret(home, "toy").test)).round(3).tolist())


def test_an_honest_run_leaves_no_record(service: EvaluationService, file_honest: FileRun, log: AuditLog) -> None:
    file_honest(RUN)
    service.evaluate(ADA, RUN, None)
    assert kinds(log) == []


def test_what_detectors_find_is_filed_once_with_its_run(
    service: EvaluationService, file_run: FileRun, file_honest: FileRun, log: AuditLog, toy_home: Path, start: Start
) -> None:
    file_honest(OTHER, agent="bob")
    file_run(RUN, predictions=packed(toy_home, 1))
    service.evaluate(BOB, OTHER, None)
    service.evaluate(ADA, RUN, None)
    service.evaluate(ADA, RUN, OTHER)
    start().inspect_again()
    [record] = log.records()
    assert (record.kind, record.action, record.agent, record.run_id, record.task) == (
        "seeds alike",
        "flag",
        "ada",
        RUN,
        "toy",
    )
    assert set(ranked(service)) == {RUN, OTHER}


def quarantine_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (OF_STUDENTS, OF_PLACE):
        for name in list(table):
            monkeypatch.delitem(table, name)
    monkeypatch.setitem(OF_PLACE, "x", lambda place: Suspicion("random masks", "quarantine", {}))


def test_a_quarantined_run_is_withheld_until_it_is_released(
    service: EvaluationService, file_honest: FileRun, log: AuditLog, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    file_honest(RUN)
    file_honest(OTHER, agent="bob")
    service.evaluate(BOB, OTHER, None)
    quarantine_all(monkeypatch)
    answer = service.evaluate(ADA, RUN, None)
    assert answer.pgr == 0.5
    assert ranked(service) == [OTHER]
    with pytest.raises(PermissionDeniedError, match="withheld"):
        service.nominate(ADA, (RUN,))
    log.append("operator", "release", run_id=RUN)
    assert set(ranked(service)) == {RUN, OTHER}
    service.nominate(ADA, (RUN,))
    start().inspect_again()
    assert ranked(service) == [RUN]  # the other one is found now, and nobody released it


def test_published_results_say_that_a_run_is_withheld_as_long_as_it_is(
    service: EvaluationService, file_honest: FileRun, log: AuditLog, toy_home: Path, start: Start
) -> None:
    file_honest(RUN)
    file_honest(OTHER, agent="bob")
    service.evaluate(ADA, RUN, None)
    results = ResultBook(toy_home)

    def told(run_id: str) -> bool:
        result = results.lookup(run_id)
        assert result
        return result.withheld

    service.get_ready()
    assert not told(RUN)
    log.append("operator", "disqualify", agent="ada")
    service.get_ready()
    assert told(RUN)
    service.evaluate(BOB, OTHER, None)
    assert not told(OTHER)
    log.append("operator", "release", agent="ada")
    log.append("canary", "disqualify", run_id=OTHER)
    start().get_ready()
    assert (told(RUN), told(OTHER)) == (False, True)
    first = next(line for line in results_file(toy_home).read_bytes().splitlines(True) if OTHER.encode() in line)
    with results_file(toy_home).open("ab") as file:
        file.write(first)
    assert not told(OTHER)
    service.get_ready()  # which a server does each second
    assert told(OTHER)
    results_file(toy_home).unlink()
    assert not service.evaluate(BOB, OTHER, None).charged
    assert told(OTHER)


def test_a_release_outlasts_detectors_but_no_disqualification(log: AuditLog) -> None:
    log.append("operator", "release", run_id=RUN)
    log.append("random masks", "quarantine", run_id=RUN)
    assert not withheld(log.records()).covers(RUN, "ada")
    log.append("operator", "quarantine", run_id=RUN)
    assert withheld(log.records()).covers(RUN, "ada")
    log.append("operator", "release", run_id=RUN)
    log.append("canary", "disqualify", run_id=RUN)
    assert withheld(log.records()).covers(RUN, "ada")
    log.append("operator", "disqualify", agent="bob")
    assert withheld(log.records()).covers(OTHER, "bob")
    assert not withheld(log.records()).covers(OTHER, "eve")


def test_a_forged_receipt_disqualifies_its_run_and_is_filed_once(
    service: EvaluationService, file_run: FileRun, log: AuditLog, toy_home: Path
) -> None:
    file_run(RUN)
    path = ReceiptBook(toy_home / "vault").folder / RUN / "0.json"
    turn_around(path)
    for _ in range(3):
        with pytest.raises(IntegrityError):
            service.evaluate(ADA, RUN, None)
    [record] = log.records()
    assert (record.kind, record.action, record.run_id, record.evidence["asked_by"]) == (
        "forged receipt",
        "disqualify",
        RUN,
        "ada",
    )


def label_as_old(path: Path) -> None:
    path.write_text(path.read_text().replace('"schema_version":1', '"schema_version":0'))


def test_receipts_of_an_older_version_are_flagged_and_their_run_can_be_done_again(
    service: EvaluationService, file_run: FileRun, log: AuditLog, toy_home: Path
) -> None:
    file_run(RUN)
    for path in (ReceiptBook(toy_home / "vault").folder / RUN).iterdir():
        label_as_old(path)
    for _ in range(2):
        with pytest.raises(OutdatedError, match=r"older version of outlearn \(it has version 0\); run it again"):
            service.evaluate(ADA, RUN, None)
    assert kinds(log) == [("outdated receipt", "flag", RUN)]
    assert ranked(service) == []
    assert service.budget(ADA).agent_left == 30
    file_run(RUN)
    assert service.evaluate(ADA, RUN, None).pgr == 0.5
    assert ranked(service) == [RUN]


@pytest.mark.parametrize("flagged_first", [False, True])
def test_an_old_label_shields_no_forged_receipt_from_disqualification(
    service: EvaluationService, file_run: FileRun, log: AuditLog, toy_home: Path, flagged_first: bool
) -> None:
    file_run(RUN)
    old, forged = (ReceiptBook(toy_home / "vault").folder / RUN / name for name in ("0.json", "1.json"))
    label_as_old(old)
    if flagged_first:
        with pytest.raises(OutdatedError):
            service.evaluate(ADA, RUN, None)
    turn_around(forged)
    with pytest.raises(IntegrityError, match="wrong signature"):
        service.evaluate(ADA, RUN, None)
    assert kinds(log)[-1] == ("forged receipt", "disqualify", RUN)


def test_receipts_that_change_after_the_answer_are_flagged_for_review(
    service: EvaluationService, file_honest: FileRun, log: AuditLog, toy_home: Path
) -> None:
    file_honest(RUN)
    service.evaluate(ADA, RUN, None)
    path = ReceiptBook(toy_home / "vault").folder / RUN / "0.json"
    turn_around(path)
    service.inspect_again()
    assert kinds(log) == [("forged receipt", "flag", RUN)]
    assert ranked(service) == [RUN]


@pytest.mark.parametrize("where", ["the detectors", "the log"])
def test_an_answer_is_given_though_nobody_could_look_at_it(
    where: str, service: EvaluationService, file_run: FileRun, monkeypatch: pytest.MonkeyPatch, log: AuditLog
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if where == "the log":
        quarantine_all(monkeypatch)
        monkeypatch.setattr(AuditLog, "append", fail)
    else:
        monkeypatch.setattr("outlearn_evaluation.auditor.examine", fail)
    file_run(RUN)
    assert service.evaluate(ADA, RUN, None).pgr == 0.5
    monkeypatch.undo()
    service.inspect_again()
    assert ranked(service) == [RUN]


def test_a_crash_before_the_look_is_made_up_for(
    service: EvaluationService, file_run: FileRun, monkeypatch: pytest.MonkeyPatch, log: AuditLog, start: Start
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("outlearn_evaluation.auditor.Auditor.inspect", lambda *_: None)
        file_run(RUN)
        service.evaluate(ADA, RUN, None)
    quarantine_all(monkeypatch)
    start().inspect_again()
    assert kinds(log) == [("random masks", "quarantine", RUN)]


async def test_agents_see_that_runs_can_be_withheld_and_nothing_of_why(
    toy_home: Path, file_run: FileRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarantine_all(monkeypatch)
    file_run(RUN)
    async with connect(build(EvaluationSettings(home=toy_home, agent="ada"))) as client:
        told = await client.call("evaluate", run_id=RUN)
        assert "mask" not in json.dumps(told)
        assert not {name for name in await client.tools() if "audit" in name or "review" in name}
        rules = await client.client.read_resource("outlearn://rules")
        assert "withheld" in str(rules)


def outlearn(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_operator_reads_filters_and_checks_the_log(toy_home: Path, log: AuditLog) -> None:
    log.append("random masks", "quarantine", agent="ada", run_id=RUN, task="toy", evidence={"effect": 0.0123456})
    log.append("forum claim", "flag", agent="bob", run_id=OTHER, evidence={"title": "[red]PGR 0.99[/red] {}"})
    table = outlearn("audit", toy_home)
    assert "effect 0.01235" in table
    assert "[red]PGR 0.99[/red] {}" in table
    assert "2 records" in table
    for option, value in (("--kind", "forum claim"), ("--agent", "bob"), ("--run", OTHER)):
        [record] = json.loads(outlearn("audit", toy_home, option, value, "--json", "--no-scan"))
        assert record["kind"] == "forum claim"
    assert log.verify()[1] in outlearn("audit", toy_home, "--verify")
    assert json.loads(outlearn("audit", toy_home, "--verify", "--json")) == {"records": 2, "head": log.verify()[1]}
    log.path.write_text(log.path.read_text().replace("ada", "eve"))
    with pytest.raises(IntegrityError, match="was changed"):
        outlearn("audit", toy_home, "--verify")


def test_a_folder_without_a_vault_is_no_home(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no vault"):
        outlearn("audit", tmp_path)


def test_the_operator_decides_about_runs_and_agents(
    toy_home: Path, service: EvaluationService, file_honest: FileRun
) -> None:
    for run_id, agent, caller in ((RUN, "ada", ADA), (OTHER, "bob", BOB)):
        file_honest(run_id, agent=agent)
        service.evaluate(caller, run_id, None)
    outlearn("review", toy_home, "quarantine", RUN, "--because", "looks odd")
    assert ranked(service) == [OTHER]
    outlearn("review", toy_home, "disqualify", "bob")
    assert ranked(service) == []
    outlearn("review", toy_home, "release", RUN)
    outlearn("review", toy_home, "release", "bob")
    assert set(ranked(service)) == {RUN, OTHER}
    [first, *_] = json.loads(outlearn("audit", toy_home, "--json"))
    assert first["evidence"] == {"because": "looks odd"}


@pytest.mark.parametrize("subject", ["run-1", "Ada", "", "a b"])
def test_a_decision_is_about_a_run_or_an_agent(subject: str, toy_home: Path) -> None:
    with pytest.raises(InvalidInputError, match="neither a run"):
        outlearn("review", toy_home, "quarantine", subject)


@pytest.mark.parametrize("subject", ["run-0123456789", "zorro"])
def test_a_decision_is_about_somebody_who_was_here(subject: str, toy_home: Path) -> None:
    with pytest.raises(NotFoundError, match=subject):
        outlearn("review", toy_home, "quarantine", subject)


def test_a_scan_holds_what_findings_claim_against_the_record(
    toy_home: Path, service: EvaluationService, file_honest: FileRun, log: AuditLog
) -> None:
    file_honest(RUN)
    assert service.evaluate(ADA, RUN, None).pgr == 0.5
    store = ForumStore(ServerSettings(home=toy_home).database("forum"), ResultBook(toy_home))
    honest, false = (
        store.post_finding("ada", title=title, text="x" * 5_000 + f"\n{text}", kind="result", run_id=RUN)
        for title, text in (("A", "PGR 0.50"), ("B", "PGR 0.97!"))
    )
    store.engine.dispose()
    for _ in range(2):
        outlearn("audit", toy_home)
    [record] = log.records()
    assert (record.kind, record.action, record.agent, record.run_id) == ("forum claim", "flag", "ada", RUN)
    assert record.evidence["finding"] == false.post_id != honest.post_id


def trained_again(
    home: Path, inverted: Mapping[str, int], changed: Mapping[str, int], status: Mapping[str, str] | None = None
) -> tuple[list[object], object]:
    """Stands in for training: re-runs that are right on so many public items, and what was asked for."""
    asked: list[object] = []

    def rerun(
        task: str, run_ids: Sequence[str], into: Path, seeds: Sequence[int], change: Change | None
    ) -> dict[str, RunView]:
        asked.append((task, tuple(run_ids), into, tuple(seeds), change))
        right = inverted if change is None else changed
        card, secret = load_public(home, task).card, load_secret(home, task)
        views = {}
        for run_id in run_ids:
            for seed in seeds:
                wrong = np.array(secret.test_labels, dtype=float)
                wrong[list(secret.public_half)[right[run_id] :]] = 1 - wrong[list(secret.public_half)[right[run_id] :]]
                fields = {"run_id": run_id, "agent": "ada", "method": "m", "method_sha256": "0", "task": task}
                rest = {"task_fingerprint": card.fingerprint, "seed": seed, "weights_sha256": ()}
                ReceiptBook(into / "vault").issue(Receipt(**fields, **rest, predictions=tuple(wrong)))  # type: ignore[arg-type]
            views[run_id] = RunView(
                run_id=run_id,
                agent="ada",
                task=task,
                method="m",
                params={},
                kind="full",
                status=(status or {}).get(into.name, "done"),  # type: ignore[arg-type]
                seeds_done=2,
                seeds_total=2,
                progress=1.0,
                message="too bad",
                submitted_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
            )
        return views

    return asked, rerun


def checked(home: Path, *again: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """What the teacher check says of runs, by their ids."""
    _, rerun = trained_again(home, *again)
    found = check_teacher(home, list(again[0]), rerun)  # type: ignore[arg-type]
    return {receipt.run_id: (one.action, dict(one.evidence)) for receipt, one in found}


@pytest.fixture
def first_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeds that are done again are the first two, which the runs of a test are right in."""
    monkeypatch.setattr(teacher_check, "checked_seeds", lambda _vault, _task, seeds: seeds[:2])


def test_seeds_that_are_done_again_are_some_that_nobody_can_guess(toy_home: Path) -> None:
    vault, seeds, seen = toy_home / "vault", (3, 5, 7, 9, 11), set[tuple[int, ...]]()
    for _ in range(30):
        (vault / "signing.key").unlink(missing_ok=True)
        chosen = teacher_check.checked_seeds(vault, "task", seeds)
        assert chosen == teacher_check.checked_seeds(vault, "task", seeds)
        assert (len(set(chosen)), set(chosen) <= set(seeds)) == (2, True)
        seen.add(chosen)
    assert len(seen) > 3


@pytest.mark.usefixtures("first_seeds")
def test_a_run_that_is_as_good_without_its_teacher_does_not_rank(toy_home: Path, file_run: FileRun) -> None:
    file_run(RUN, right=(80, 70, 0, 0, 0))
    file_run(OTHER, right=(80, 70, 0, 0, 0))
    found = checked(toy_home, {RUN: 71, OTHER: 30}, {RUN: 75, OTHER: 75})
    assert {run: (action, evidence["d"]) for run, (action, evidence) in found.items()} == {
        RUN: ("quarantine", 0.04),
        OTHER: ("note", 0.45),
    }


@pytest.mark.usefixtures("first_seeds")
def test_a_run_that_loses_its_lead_when_items_stand_elsewhere_is_flagged(toy_home: Path, file_run: FileRun) -> None:
    file_run(RUN, right=(90, 90, 0, 0, 0))
    file_run(OTHER, right=(90, 90, 0, 0, 0))
    found = checked(toy_home, {RUN: 10, OTHER: 10}, {RUN: 54, OTHER: 84})
    assert {run: (action, evidence["lost"]) for run, (action, evidence) in found.items()} == {
        RUN: ("flag", 0.9),
        OTHER: ("note", 0.15),
    }


@pytest.mark.usefixtures("first_seeds")
def test_a_loss_that_may_be_chance_is_none(toy_home: Path, file_run: FileRun) -> None:
    file_run(RUN, right=(60, 60, 0, 0, 0))
    action, evidence = checked(toy_home, {RUN: 40}, {RUN: 57})[RUN]
    assert (action, evidence["lost"]) == ("note", 0.3)


def test_runs_are_done_again_on_most_of_the_pool_in_an_order_and_with_digits_that_nobody_can_guess(
    toy_home: Path, file_run: FileRun
) -> None:
    file_run(RUN)
    asked, rerun = trained_again(toy_home, {RUN: 30}, {RUN: 70})
    for _ in range(2):
        list(check_teacher(toy_home, [RUN], rerun))  # type: ignore[arg-type]
    card, vault = load_public(toy_home, "toy").card, toy_home / "vault"
    rows, digits = change = changed_pool(vault, card.fingerprint, card.pool_size)
    seeds = teacher_check.checked_seeds(vault, card.fingerprint, card.seeds)
    assert asked == 2 * [
        ("toy", (RUN,), vault / "toy" / "inverted", seeds, None),
        ("toy", (RUN,), vault / "toy" / "changed", seeds, change),
    ]
    assert len(set(rows)) == len(rows) == round(0.8 * card.pool_size)
    assert rows != sorted(rows)
    assert sorted(digits) == list("123456789")
    assert not any(one == other for one, other in zip(digits, "123456789", strict=True))
    (vault / "signing.key").unlink()
    assert changed_pool(vault, card.fingerprint, card.pool_size).rows != rows


@pytest.mark.parametrize(("status", "action"), [("failed", "flag"), ("cancelled", "note")])
@pytest.mark.parametrize("which", ["inverted", "changed"])
def test_a_run_that_fails_only_where_it_is_checked_is_flagged(
    toy_home: Path, file_run: FileRun, which: str, status: str, action: str
) -> None:
    file_run(RUN)
    found = checked(toy_home, {RUN: 30}, {RUN: 70}, {which: status})
    assert found[RUN][0] == action
    assert (found[RUN][1][f"{which}_run"], found[RUN][1][f"{which}_message"]) == (status, "too bad")


@pytest.mark.usefixtures("first_seeds")
def test_a_run_without_its_teacher_does_not_rank_wherever_else_it_fails(toy_home: Path, file_run: FileRun) -> None:
    file_run(RUN, right=(80, 70, 0, 0, 0))
    assert checked(toy_home, {RUN: 75}, {RUN: 75}, {"changed": "failed"})[RUN][0] == "quarantine"


def test_a_check_of_a_run_without_receipts_says_so(toy_home: Path) -> None:
    with pytest.raises(NotFoundError, match="no receipts"):
        checked(toy_home, {"run-999999": 0}, {})
