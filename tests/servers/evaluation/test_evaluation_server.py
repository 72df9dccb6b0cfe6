"""The evaluation server: scores only receipts, charges once, never more than the budget, and ranks its own numbers."""

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forging import turn_around
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import ValidationError

import outlearn_evaluation.ledger
from outlearn.errors import BudgetError, IntegrityError, InvalidInputError, NotFoundError, PermissionDeniedError
from outlearn.identity import Caller, TokenFile
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.results import ResultBook, results_file
from outlearn.seal import Seal, read_seal, seal_task
from outlearn.signing import canonical_json
from outlearn.tasks import SeedBaseline, TaskCard, fingerprint, load_baselines, load_public, load_secret, write_task
from outlearn.testing import connect, connect_http, connect_stdio, http_server
from outlearn.types import Evaluation
from outlearn_evaluation.commitment import Opened, open_task, read_opened, verify
from outlearn_evaluation.ledger import Ledger
from outlearn_evaluation.scoring import Votes, differing, make_judge, read_answers, unary
from outlearn_evaluation.server import build
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

FileRun = Callable[..., None]
Start = Callable[..., EvaluationService]
ADA, BOB, CHIEF = Caller(agent="ada"), Caller(agent="bob"), Caller(agent="chief", role="operator")
RUNS = [f"run-{number:010d}" for number in range(40)]
RUN = RUNS[0]


def left(service: EvaluationService, caller: Caller = ADA) -> tuple[int, int, int]:
    budget = service.budget(caller)
    return budget.agent_left, budget.agent_today_left, budget.team_left


def untouched(service: EvaluationService) -> bool:
    return left(service) == (30, 6, 200) and not service.leaderboard("", 100).rows


# scores


@pytest.mark.parametrize(
    ("right", "pgr", "at_most"),
    [
        ((75,) * 5, 0.5, False),
        ((60,) * 5, 0.1, True),
        ((63, 63, 63, 63, 64), 0.1, True),
        ((64, 64, 65, 65, 65), 0.15, False),
        ((90,) * 5, 1.0, False),
        ((100,) * 5, 1.35, False),
        ((0,) * 5, 0.1, True),
        ((70, 72, 74, 76, 83), 0.5, False),
    ],
)
def test_pgr_is_what_a_hand_calculation_gives_on_a_grid(
    service: EvaluationService, file_run: FileRun, right: tuple[int, ...], pgr: float, at_most: bool
) -> None:
    file_run(RUN, right=right)
    answer = service.evaluate(ADA, RUN, None)
    assert (answer.pgr, answer.at_most) == (pgr, at_most)
    assert (answer.seeds, answer.task, answer.method, answer.verdict) == (5, "toy", "vanilla", None)


def test_what_is_told_of_the_error_depends_on_no_label(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    """Other labels, split and noise that lead to the same PGR lead to the same error."""
    file_run(RUN, right=(70, 72, 74, 76, 83))
    told = service.evaluate(ADA, RUN, None)
    opened = open_task(toy_home, "toy")
    answers = read_answers(ReceiptBook(toy_home / "vault").read(RUN), opened.secret, opened.baselines)
    votes = Votes(answers[:, opened.secret.public_mask()])
    judge = make_judge(opened.weights, opened.baselines, opened.secret, opened.seal)
    rng = np.random.default_rng(0)
    for _ in range(200):
        weights = np.sign(rng.normal(size=100)) + rng.normal(size=100)
        weights += (np.mean(votes.mean * opened.weights) - np.mean(votes.mean * weights)) / np.mean(votes.mean)
        assert replace(judge, weights=weights).grade(votes) == judge.grade(votes)
    assert judge.grade(votes).pgr_se == told.pgr_se > 0


def test_the_private_half_does_not_count(service: EvaluationService, file_run: FileRun, toy_home: Path) -> None:
    file_run(RUNS[0])
    secret = load_secret(toy_home, "toy")
    [*known] = ReceiptBook(toy_home / "vault").read(RUNS[0])
    mask = secret.public_mask()
    for receipt in known:
        inverted = np.where(mask, receipt.predictions, 1 - np.array(receipt.predictions))
        changes = {"run_id": RUNS[1], "predictions": tuple(inverted.tolist())}
        ReceiptBook(toy_home / "vault").issue(receipt.model_copy(update=changes))
    one, other = (service.evaluate(ADA, run_id, None) for run_id in RUNS[:2])
    assert (one.pgr, one.pgr_se) == (other.pgr, other.pgr_se)


def test_an_answer_tells_nothing_of_labels_counts_or_seeds(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUN)
    answer = service.evaluate(ADA, RUN, None)
    assert set(answer.model_dump()) == {
        "run_id", "task", "method", "pgr", "at_most", "pgr_se", "seeds", "same_as", "against", "verdict", "charged",
        "budget",
    }  # fmt: skip


@pytest.mark.parametrize(("right", "verdict"), [(85, "better"), (75, "no clear difference"), (60, "worse")])
def test_a_comparison_gives_a_verdict(service: EvaluationService, file_run: FileRun, right: int, verdict: str) -> None:
    file_run(RUNS[0], right=(75, 74, 76, 75, 75))
    file_run(RUNS[1], right=(right,) * 5)
    service.evaluate(ADA, RUNS[0], None)
    answer = service.evaluate(ADA, RUNS[1], RUNS[0])
    assert (answer.against, answer.verdict) == (RUNS[0], verdict)


def test_a_comparison_may_be_with_another_agents_evaluated_run(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUNS[0], agent="bob", right=(90,) * 5)
    file_run(RUNS[1])
    with pytest.raises(NotFoundError, match="was never evaluated; compare with a run on the leaderboard"):
        service.evaluate(ADA, RUNS[1], RUNS[0])
    service.evaluate(BOB, RUNS[0], None)
    assert service.evaluate(ADA, RUNS[1], RUNS[0]).verdict == "worse"


def test_a_run_is_not_compared_with_itself(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUN)
    service.evaluate(ADA, RUN, None)
    with pytest.raises(InvalidInputError, match="take another run of its task"):
        service.evaluate(ADA, RUN, RUN)
    assert left(service) == (29, 5, 199)


def test_runs_of_two_tasks_are_not_compared(service: EvaluationService, file_run: FileRun, toy_home: Path) -> None:
    second_task(toy_home)
    file_run(RUNS[0], task="toy2")
    file_run(RUNS[1])
    service.evaluate(ADA, RUNS[0], None)
    with pytest.raises(InvalidInputError, match=f"'{RUNS[1]}' cannot be compared with '{RUNS[0]}'"):
        service.evaluate(ADA, RUNS[1], RUNS[0])


def second_task(home: Path) -> None:
    public, secret, baselines = load_public(home, "toy"), load_secret(home, "toy"), load_baselines(home, "toy")
    card = public.card.model_copy(update={"name": "toy2"})
    weak = {seed: public.weak_labels(seed) for seed in card.seeds}
    moved = baselines.model_copy(update={"fingerprint": fingerprint(card, public.pool, secret)})
    write_task(home, card, public.pool, secret, weak, moved)


# what is charged


def test_the_same_question_again_is_free_and_gets_the_same_answer(
    service: EvaluationService, file_run: FileRun
) -> None:
    file_run(RUN)
    first = service.evaluate(ADA, RUN, None)
    again = service.evaluate(ADA, RUN, None)
    empty = service.evaluate(ADA, RUN, "")
    assert (first.charged, again.charged, empty.charged) == (True, False, False)
    assert again == empty == first.model_copy(update={"charged": False})
    assert left(service) == (29, 5, 199)


def test_a_comparison_is_a_question_of_its_own(service: EvaluationService, file_run: FileRun) -> None:
    for run_id in RUNS[:2]:
        file_run(run_id)
        service.evaluate(ADA, run_id, None)
    assert service.evaluate(ADA, RUNS[1], RUNS[0]).charged
    assert not service.evaluate(ADA, RUNS[1], RUNS[0]).charged
    assert left(service) == (27, 3, 197)


def test_each_budget_ends_with_its_own_explanation(start: Start, file_run: FileRun) -> None:
    for run_id in RUNS[:4]:
        file_run(run_id)
    for run_id in RUNS[4:8]:
        file_run(run_id, agent="bob")
    service = start(agent_evaluations=2, daily_evaluations=3, team_evaluations=3)
    for run_id in RUNS[:2]:
        service.evaluate(ADA, run_id, None)
    with pytest.raises(BudgetError, match=r"all your evaluations are used.*Nothing was charged"):
        service.evaluate(ADA, RUNS[2], None)
    service.evaluate(BOB, RUNS[4], None)
    with pytest.raises(BudgetError, match="the team's evaluations are used"):
        service.evaluate(BOB, RUNS[5], None)
    assert left(service) == (0, 1, 0)
    assert service.evaluate(ADA, RUNS[0], None).pgr == pytest.approx(0.5)
    assert len(service.leaderboard("", 100).rows) == 3


def test_a_day_brings_new_evaluations_but_not_more_in_all(
    start: Start, file_run: FileRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = datetime(2026, 1, 31, 23, 59)
    monkeypatch.setattr(outlearn_evaluation.ledger, "utc_now", lambda: today)
    for run_id in RUNS[:6]:
        file_run(run_id)
    service = start(agent_evaluations=5, daily_evaluations=2)
    asked = iter(RUNS)
    for day, budgets in enumerate([[(4, 1), (3, 0)], [(2, 1), (1, 0)], [(0, 1)]]):
        today = datetime(2026, 2, 1 + day, 0, 0)
        for budget in budgets:
            service.evaluate(ADA, next(asked), None)
            assert left(service)[:2] == budget
        with pytest.raises(BudgetError, match="midnight UTC" if day < 2 else "all your evaluations"):
            service.evaluate(ADA, RUNS[5], None)


def test_an_operator_may_evaluate_any_run_and_is_not_charged(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUN)
    assert not service.evaluate(CHIEF, RUN, None).charged
    assert left(service) == (30, 6, 200)
    assert [row.agent for row in service.leaderboard("", 10).rows] == ["ada"]
    assert not service.evaluate(ADA, RUN, None).charged


ASKER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from outlearn.errors import BudgetError
from outlearn.identity import Caller
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

service = EvaluationService(EvaluationSettings(home=Path(sys.argv[1]), daily_evaluations=7))
print("ready", flush=True)
sys.stdin.readline()

def ask(run_id):
    try:
        return f"{run_id} {service.evaluate(Caller(agent='ada'), run_id, None).charged}"
    except BudgetError:
        return f"{run_id} refused"

with ThreadPoolExecutor(10) as pool:
    print(*pool.map(ask, sys.argv[2:]), sep="\\n")
"""


def ask_at_once(home: Path, *questions: list[str]) -> list[str]:
    """Each list of runs is evaluated by a process of its own, ten threads each. Returns what happened, sorted."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER, str(home), *runs], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for runs in questions
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return sorted(line for process in processes for line in process.communicate(timeout=120)[0].split("\n") if line)


def test_a_run_that_two_processes_evaluate_at_once_is_charged_once_and_the_budget_holds(
    toy_home: Path, start: Start, file_run: FileRun
) -> None:
    for run_id in RUNS[:11]:
        file_run(run_id)
    same = [RUNS[10]] * 4
    said = ask_at_once(toy_home, same + RUNS[:10], same + RUNS[:10])
    by_run = {run_id: [line.split()[1] for line in said if line.startswith(run_id)] for run_id in RUNS[:11]}
    assert len(said) == 28
    charged = [run_id for run_id, outcomes in by_run.items() if "True" in outcomes]
    assert len(charged) == 7
    for run_id, outcomes in by_run.items():
        assert sorted(set(outcomes)) == (["False", "True"] if run_id in charged else ["refused"])
        assert outcomes.count("True") <= 1
    service = start(daily_evaluations=7)
    assert left(service) == (23, 0, 193)
    assert sorted(row.run_id for row in service.leaderboard("", 100).rows) == sorted(charged)


# nearly equal runs


def file_near(home: Path, run_id: str, like: str, changed: int, agent: str = "ada", share: int = 5) -> None:
    """Files a run like another, but with the first `changed` public answers of `share` seeds inverted."""
    public = list(load_secret(home, "toy").public_half)[:changed]
    for place, receipt in enumerate(ReceiptBook(home / "vault").read(like)):
        answers = np.array(receipt.predictions)
        if place < share:
            answers[public] = 1 - answers[public]
        fields = {"run_id": run_id, "agent": agent, "predictions": tuple(answers.tolist())}
        ReceiptBook(home / "vault").issue(receipt.model_copy(update=fields))


def test_a_nearly_equal_run_gets_the_earlier_answer_and_is_charged(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUNS[0])
    file_near(toy_home, RUNS[1], RUNS[0], 2, agent="bob")
    file_near(toy_home, RUNS[2], RUNS[0], 20)
    first, near, other = (
        service.evaluate(Caller(agent=agent), run_id, None)
        for agent, run_id in zip(("ada", "bob", "ada"), RUNS, strict=False)
    )
    assert (near.pgr, near.pgr_se, near.same_as, near.charged) == (first.pgr, first.pgr_se, RUNS[0], True)
    assert (first.same_as, other.same_as) == (None, None)
    assert left(service) == (28, 4, 197)
    assert not service.evaluate(BOB, RUNS[1], None).charged


def test_a_verdict_about_nearly_equal_runs_is_that_of_the_earlier_ones(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUNS[0])
    file_run(RUNS[1], right=(90,) * 5)
    file_near(toy_home, RUNS[2], RUNS[0], 2)
    for run_id in RUNS[:2]:
        service.evaluate(ADA, run_id, None)
    assert service.evaluate(ADA, RUNS[2], RUNS[0]).verdict == "no clear difference"
    assert service.evaluate(ADA, RUNS[2], RUNS[1]).verdict == service.evaluate(ADA, RUNS[0], RUNS[1]).verdict == "worse"


def test_seeds_that_change_places_do_not_make_a_run_another_one(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUNS[0], right=(60, 70, 75, 80, 90))
    service.evaluate(ADA, RUNS[0], None)
    receipts = ReceiptBook(toy_home / "vault").read(RUNS[0])
    for one, other in zip(receipts, reversed(receipts), strict=True):
        fields = {"run_id": RUNS[1], "predictions": other.predictions}
        ReceiptBook(toy_home / "vault").issue(one.model_copy(update=fields))
    assert service.evaluate(ADA, RUNS[1], None).same_as == RUNS[0]


@given(st.integers(1, 6), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_runs_are_no_further_apart_than_their_hamming_distance_nor_than_their_sums_say(
    seeds: int, items: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    one, other = (Votes(rng.random((seeds, items)) < 0.5) for _ in range(2))
    apart = differing(unary(one.counts, seeds), unary(other.counts, seeds)) / one.positive.size
    sums = abs(int(one.positive.sum()) - int(other.positive.sum())) / one.positive.size
    assert sums - 1e-12 <= apart <= (one.positive != other.positive).mean() + 1e-12


def test_nearly_equal_runs_that_are_evaluated_at_once_get_one_answer_and_a_charge_each(
    toy_home: Path, start: Start, file_run: FileRun
) -> None:
    file_run(RUNS[0])
    for run_id in RUNS[1:4]:
        file_near(toy_home, run_id, RUNS[0], 1)
    said = ask_at_once(toy_home, RUNS[:4], RUNS[:4])
    assert [line.split()[1] for line in said].count("True") == 4
    service = start(daily_evaluations=7)
    assert left(service) == (26, 3, 196)
    assert len({service.evaluate(ADA, run_id, None).same_as or run_id for run_id in RUNS[:4]}) == 1


def test_a_refused_question_files_nothing(start: Start, file_run: FileRun, toy_home: Path) -> None:
    file_run(RUNS[0])
    file_near(toy_home, RUNS[1], RUNS[0], 1)
    with pytest.raises(BudgetError):
        start(agent_evaluations=0).evaluate(ADA, RUNS[0], None)
    assert start().evaluate(ADA, RUNS[1], None).same_as is None


# what is refused, without a charge


def test_a_run_without_receipts_is_explained(service: EvaluationService, file_run: FileRun) -> None:
    for run_id in (RUN, "run-nosuchrun"):
        with pytest.raises(NotFoundError, match="has no receipts: pilots get none, a full run gets them when it is"):
            service.evaluate(ADA, run_id, None)
    for run_id in ("", "../../etc", "RUN-1", "latest"):
        with pytest.raises(NotFoundError, match="is not a run id"):
            service.evaluate(ADA, run_id, None)
    assert untouched(service)


def test_another_agents_run_is_refused(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUN, agent="bob")
    with pytest.raises(PermissionDeniedError, match="is another agent's; evaluate your own"):
        service.evaluate(ADA, RUN, None)
    assert untouched(service)


def test_a_run_that_lacks_a_seed_is_refused(service: EvaluationService, file_run: FileRun) -> None:
    file_run(RUN, right=(75, 75, 75))
    with pytest.raises(
        IntegrityError, match=r"for the seeds \(0, 1, 2\), not .*; wait until `get_run` says it is done"
    ):
        service.evaluate(ADA, RUN, None)
    assert untouched(service)


def test_a_seed_that_the_server_did_not_choose_is_refused(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    [first, *_] = ReceiptBook(toy_home / "vault").read(RUN)
    ReceiptBook(toy_home / "vault").issue(first.model_copy(update={"seed": 77}))
    with pytest.raises(IntegrityError, match="77"):
        service.evaluate(ADA, RUN, None)
    (ReceiptBook(toy_home / "vault").folder / RUN / "4.json").unlink()
    with pytest.raises(IntegrityError, match="77"):
        service.evaluate(ADA, RUN, None)
    assert untouched(service)


@pytest.mark.parametrize("fields", [{"task_fingerprint": "0" * 64}, {"predictions": (0.5,) * 199}, {"predictions": ()}])
def test_receipts_for_other_data_are_refused(
    service: EvaluationService, file_run: FileRun, fields: dict[str, Any]
) -> None:
    file_run(RUN, **fields)
    with pytest.raises(IntegrityError, match="is for another version of task 'toy'; run it again"):
        service.evaluate(ADA, RUN, None)
    assert untouched(service)


def edited_receipt(home: Path) -> None:
    turn_around(ReceiptBook(home / "vault").folder / RUN / "2.json")


def forged_receipt(home: Path) -> None:
    forger = ReceiptBook(home.parent / "forger")
    for receipt in ReceiptBook(home / "vault").read(RUN):
        forger.issue(receipt)
    forged = ReceiptBook(home.parent / "forger").folder
    shutil.copytree(forged, ReceiptBook(home / "vault").folder, dirs_exist_ok=True)


def damaged_receipt(home: Path) -> None:
    (ReceiptBook(home / "vault").folder / RUN / "2.json").write_bytes(b"{")


@pytest.mark.parametrize("tamper", [edited_receipt, forged_receipt, damaged_receipt])
def test_receipts_that_somebody_touched_are_refused(
    service: EvaluationService, file_run: FileRun, toy_home: Path, tamper: Callable[[Path], None]
) -> None:
    file_run(RUN)
    tamper(toy_home)
    with pytest.raises(IntegrityError):
        service.evaluate(ADA, RUN, None)
    assert untouched(service)


def test_another_runs_receipts_are_not_scored_again_under_a_new_name(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    shutil.copytree(ReceiptBook(toy_home / "vault").folder / RUN, ReceiptBook(toy_home / "vault").folder / RUNS[1])
    with pytest.raises(IntegrityError, match=f"filed under '{RUNS[1]}' are of '{RUN}'"):
        service.evaluate(ADA, RUNS[1], None)
    assert untouched(service)


def test_editing_the_public_card_buys_nothing(service: EvaluationService, file_run: FileRun, toy_home: Path) -> None:
    file_run(RUN, right=(100, 100))
    path = toy_home / "data" / "toy" / "card.json"
    for changes in ({"seeds": [0, 1]}, {"fingerprint": "0" * 64}, {"test_size": 1}):
        original = path.read_bytes()
        path.write_text(json.dumps(json.loads(original) | changes))
        with pytest.raises(IntegrityError):
            service.evaluate(ADA, RUN, None)
        path.write_bytes(original)
    assert untouched(service)


def test_without_a_significant_gap_nothing_is_scored_or_charged(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    path = toy_home / "vault" / "toy" / "baselines.json"
    flat = tuple(SeedBaseline(seed=s, weak=0.6, ceiling=0.62, weak_public=0.6, ceiling_public=0.62) for s in range(5))
    path.write_text(load_baselines(toy_home, "toy").model_copy(update={"per_seed": flat}).model_dump_json())
    with pytest.raises(InvalidInputError, match=r"2\.0 points above the teacher, which is not significant"):
        service.evaluate(ADA, RUN, None)
    assert untouched(service)


# publication


def test_the_published_result_is_the_answer(service: EvaluationService, file_run: FileRun, toy_home: Path) -> None:
    file_run(RUN)
    answer = service.evaluate(ADA, RUN, None)
    published = ResultBook(toy_home).lookup(RUN)
    assert published is not None
    same = {"run_id", "task", "method", "pgr", "pgr_se", "seeds"}
    assert published.model_dump(include=same) == answer.model_dump(include=same)
    assert published.agent == "ada"


def test_a_crash_between_charge_and_publication_heals_at_the_next_call(
    service: EvaluationService,
    start: Start,
    file_run: FileRun,
    toy_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: ResultBook, line: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file_run(RUN)
    monkeypatch.setattr(ResultBook, "file", full)
    with pytest.raises(OSError, match="No space"):
        service.evaluate(ADA, RUN, None)
    monkeypatch.undo()
    assert left(service) == (29, 5, 199)
    assert ResultBook(toy_home).lookup(RUN) is None
    answer = start().evaluate(ADA, RUN, None)
    assert not answer.charged
    assert left(service) == (29, 5, 199)
    assert ResultBook(toy_home).lookup(RUN) is not None


def test_a_forged_publication_is_replaced_and_does_not_stop_an_evaluation(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    results_file(toy_home).parent.mkdir()
    results_file(toy_home).write_text(json.dumps({"run_id": RUN, "pgr": 0.99}) + "\n")
    answer = service.evaluate(ADA, RUN, None)
    published = ResultBook(toy_home).lookup(RUN)
    assert published is not None
    assert published.pgr == answer.pgr


# leaderboard and nominations


def test_the_leaderboard_has_each_run_once_best_first(service: EvaluationService, file_run: FileRun) -> None:
    for run_id, agent, right in zip(RUNS, ("ada", "bob", "ada", "bob"), (70, 90, 80, 80), strict=False):
        file_run(run_id, agent=agent, right=(right,) * 5)
        service.evaluate(Caller(agent=agent), run_id, None)
    service.evaluate(ADA, RUNS[2], RUNS[1])
    rows = service.leaderboard("toy", 100).rows
    assert [(row.rank, row.run_id, row.agent) for row in rows] == [
        (1, RUNS[1], "bob"),
        (2, RUNS[2], "ada"),
        (3, RUNS[3], "bob"),
        (4, RUNS[0], "ada"),
    ]
    assert [row.pgr for row in rows] == sorted((row.pgr for row in rows), reverse=True)
    assert rows[0].evaluated_at.tzinfo is not None
    assert [row.run_id for row in service.leaderboard("", 2).rows] == [RUNS[1], RUNS[2]]
    with pytest.raises(NotFoundError, match="no task 'nosuch'; there are: toy"):
        service.leaderboard("nosuch", 5)


def test_without_any_task_the_leaderboard_says_how_to_make_one(start: Start, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="`outlearn prepare`"):
        start(home=tmp_path).leaderboard("", 5)


def test_nominations_are_few_own_evaluated_and_replaceable(service: EvaluationService, file_run: FileRun) -> None:
    for run_id, agent in zip(RUNS[:5], ("ada", "ada", "ada", "bob", "ada"), strict=True):
        file_run(run_id, agent=agent)
    for run_id in RUNS[:3]:
        service.evaluate(ADA, run_id, None)
    service.evaluate(BOB, RUNS[3], None)
    assert service.nominate(ADA, (RUNS[0], RUNS[0], RUNS[1], RUNS[0])).run_ids == (RUNS[0], RUNS[1])
    for run_ids, error in (
        (RUNS[:3], BudgetError),
        ([RUNS[3]], InvalidInputError),
        ([RUNS[4]], InvalidInputError),
        ([RUNS[0], "run-nosuchrun"], InvalidInputError),
    ):
        with pytest.raises(error):
            service.nominate(ADA, tuple(run_ids))
    nominated = {row.run_id for row in service.leaderboard("", 10).rows if row.nominated}
    assert nominated == {RUNS[0], RUNS[1]}
    assert service.nominate(ADA, (RUNS[2],)).nominations_left == 1
    assert service.nominate(ADA, ()).nominations_left == 2
    assert not any(row.nominated for row in service.leaderboard("", 10).rows)


@pytest.mark.parametrize("name", ["\0", "run-\0aaaaaa", "run-0000000001\n", "\ud800", "x" * 64, "'; --"])
def test_what_is_no_runs_name_was_never_evaluated_on_any_database(
    start: Start, file_run: FileRun, database_url: str, name: str
) -> None:
    service = start(database_url=database_url)
    for run_id in RUNS[:2]:
        file_run(run_id)
    service.evaluate(ADA, RUNS[0], None)
    for run_id in RUNS[:2]:
        with pytest.raises(NotFoundError, match="was never evaluated; compare with"):
            service.evaluate(ADA, run_id, name)
    with pytest.raises(InvalidInputError, match="is not an evaluated run of yours"):
        service.nominate(ADA, (name,))


def test_nominations_of_a_final_take_none_from_other_tasks(
    start: Start,
    file_run: FileRun,
    toy_home: Path,
    database_url: str,
    write_task_for: Callable[[Path, str, str], TaskCard],
) -> None:
    write_task_for(toy_home, "toy/student", "other")
    service = start(database_url=database_url)
    for number, run_id in enumerate(RUNS[:4]):
        file_run(run_id, right=(60 + 10 * number,) * 5, task="toy" if number < 2 else "other")
        service.evaluate(ADA, run_id, None)
    assert service.nominate(ADA, tuple(RUNS[:2])).nominations_left == 0
    ledger = Ledger(service._settings)
    ledger.close("toy")
    assert service.budget(ADA).nominations_left == 2
    assert service.nominate(ADA, (RUNS[2],)).nominations_left == 1
    assert service.nominate(ADA, tuple(RUNS[2:4])).nominations_left == 0
    assert service.nominate(ADA, (RUNS[3],)).nominations_left == 1
    assert [one.run_id for one in ledger.close("toy")[1]] == RUNS[:2]
    ledger.engine.dispose()


# the commitment


def test_a_vault_that_was_swapped_after_its_commitment_was_published_is_refused(
    service: EvaluationService, file_run: FileRun, start: Start, toy_home: Path
) -> None:
    first = service.commitments()
    assert list(first) == ["toy"]
    assert start().commitments() == first
    file_run(RUN)
    path = toy_home / "vault" / "toy" / "secret.json"
    original = path.read_bytes()
    secret = json.loads(original)
    for change in (
        {"public_half": [0, *secret["public_half"][:-1]]},
        {"test": [secret["test"][0] | {"label": 1 - secret["test"][0]["label"]}, *secret["test"][1:]]},
    ):
        path.write_text(json.dumps(secret | change))
        for one in (service, start()):
            with pytest.raises(IntegrityError, match="not those committed to"):
                one.commitments()
            with pytest.raises(IntegrityError, match="Put the vault's own files back"):
                one.evaluate(ADA, RUN, None)
    path.write_bytes(original)
    assert start().commitments() == service.commitments() == first
    assert service.evaluate(ADA, RUN, None).charged


def test_an_evaluation_is_by_what_was_committed_to_though_nobody_asked_for_the_commitment(
    service: EvaluationService, file_run: FileRun, start: Start, toy_home: Path
) -> None:
    for run_id in RUNS[:2]:
        file_run(run_id)
    service.evaluate(ADA, RUNS[0], None)
    [seal] = (toy_home / "vault" / "toy").glob("seal-*.json")
    seal.write_text(json.dumps(json.loads(seal.read_text()) | {"nonce": "0" * 64}))
    with pytest.raises(IntegrityError, match="not those committed to"):
        start().evaluate(ADA, RUNS[1], None)


def test_the_commitment_can_be_opened_and_not_be_guessed_from_what_it_stands_for(
    service: EvaluationService, toy_home: Path, tmp_path: Path
) -> None:
    published = service.commitments()["toy"]
    revealed = tmp_path / "revealed.json"
    revealed.write_text(open_task(toy_home, "toy").model_dump_json())
    opened = read_opened(revealed)
    verify(opened, published)
    fields = json.loads(revealed.read_text())
    nonce = bytes.fromhex(fields["seal"].pop("nonce"))
    assert sha256(nonce + canonical_json(fields)).hexdigest() == published
    assert sha256(canonical_json(fields)).hexdigest() != published
    [seal] = (toy_home / "vault" / "toy").glob("seal-*.json")
    assert seal.stat().st_mode & 0o777 == 0o600


def test_a_commitment_covers_labels_split_noise_and_baselines(service: EvaluationService, toy_home: Path) -> None:
    opened, published = open_task(toy_home, "toy"), service.commitments()["toy"]
    test = opened.secret.test
    other_label = (test[0].model_copy(update={"label": 1 - test[0].label}), *test[1:])
    for changed in (
        {"secret": opened.secret.model_copy(update={"test": other_label})},
        {"secret": opened.secret.model_copy(update={"public_half": opened.secret.public_half[1:]})},
        {"seal": opened.seal.model_copy(update={"noise": (0.1, *opened.seal.noise[1:])})},
        {"baselines": opened.baselines.model_copy(update={"design_effect": 2.0})},
    ):
        with pytest.raises(IntegrityError, match="others than those committed to"):
            verify(Opened(**({name: getattr(opened, name) for name in Opened.model_fields} | changed)), published)
    with pytest.raises(IntegrityError, match="not 'latest'"):
        verify(opened, "latest")


def test_what_is_no_revealed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="`outlearn reveal TASK"):
        read_opened(tmp_path / "nothing.json")
    (tmp_path / "damaged.json").write_text("{}")
    with pytest.raises(IntegrityError, match="is not what `outlearn reveal` writes"):
        read_opened(tmp_path / "damaged.json")


def test_the_seal_is_drawn_when_the_task_is_written(toy_home: Path) -> None:
    [path] = (toy_home / "vault" / "toy").glob("seal-*.json")
    assert len(Seal.model_validate_json(path.read_bytes()).noise) == 100


def test_of_all_who_seal_a_task_at_once_one_draws(tmp_path: Path) -> None:
    def draw(_: int) -> Seal:
        seal_task(tmp_path, "f" * 64, 100)
        return read_seal(tmp_path, "f" * 64)

    with ThreadPoolExecutor(16) as pool:
        [drawn] = set(pool.map(draw, range(32)))
    assert np.std(drawn.noise) == pytest.approx(1, abs=0.4)


def test_without_its_seal_no_task_is_evaluated_and_no_other_one_is_drawn(
    service: EvaluationService, file_run: FileRun, toy_home: Path
) -> None:
    file_run(RUN)
    [path] = (toy_home / "vault" / "toy").glob("seal-*.json")
    path.unlink()
    with pytest.raises(IntegrityError, match="is missing; put the vault's own back"):
        service.evaluate(ADA, RUN, None)
    assert not path.exists()


@pytest.mark.parametrize("text", ["{", '{"nonce": "00", "noise": [0.5]}'])
def test_a_damaged_seal_stops_evaluations(
    service: EvaluationService, file_run: FileRun, toy_home: Path, text: str
) -> None:
    file_run(RUN)
    [path] = (toy_home / "vault" / "toy").glob("seal-*.json")
    path.write_text(text)
    with pytest.raises(IntegrityError, match="is damaged; put the vault's own back"):
        service.evaluate(ADA, RUN, None)


# through MCP


async def test_the_tools_and_resources_say_what_there_is(settings: EvaluationSettings, file_run: FileRun) -> None:
    file_run(RUN)
    async with connect(build(settings)) as client:
        assert await client.tools() == ["evaluate", "get_budget", "leaderboard", "nominate"]
        Evaluation.model_validate(await client.call("evaluate", run_id=RUN))
        assert (await client.call("get_budget"))["agent_left"] == 29
        assert len((await client.call("leaderboard"))["rows"]) == 1
        text = (await client.client.call_tool("leaderboard", {})).content[0].text
        assert text.splitlines()[1].endswith(f"5 seeds: {RUN} of ada, vanilla"), text
        assert (await client.call("nominate", run_ids=[RUN]))["run_ids"] == [RUN]
        rules = await client.client.read_resource("outlearn://rules")
        assert "You have 30 evaluations in all, 6 a day (UTC); the team has 200." in rules.contents[0].text
        commitment = await client.client.read_resource("outlearn://commitment")
        assert list(json.loads(commitment.contents[0].text)) == ["toy"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"run_id": 7},
        {"run_id": None},
        {"run_id": "x" * 65},
        {"run_id": RUN, "against": ["a"]},
        {"run_id": RUN, "against": "run-nosuchrun"},
        {"run_id": "run-nosuchrun"},
    ],
)
async def test_bad_input_gets_an_error_and_costs_nothing(
    settings: EvaluationSettings, file_run: FileRun, arguments: dict[str, Any]
) -> None:
    file_run(RUN)
    async with connect(build(settings)) as client:
        with pytest.raises(ToolError):
            await client.call("evaluate", **arguments)
        assert (await client.call("get_budget"))["agent_left"] == 30


async def test_no_argument_makes_an_agent_somebody_else(settings: EvaluationSettings, file_run: FileRun) -> None:
    file_run(RUN, agent="bob")
    async with connect(build(settings)) as client:
        for name in ("agent", "role", "caller"):
            with pytest.raises(ToolError, match=f"evaluate takes no '{name}'"):
                await client.call("evaluate", run_id=RUN, **{name: "bob"})


async def test_stdio_round_trip_of_the_evaluation_server(toy_home: Path, file_run: FileRun) -> None:
    file_run(RUN)
    async with connect_stdio("outlearn_evaluation", "--home", str(toy_home), "--agent", "ada") as client:
        assert (await client.call("evaluate", run_id=RUN))["pgr"] == pytest.approx(0.5)
        with pytest.raises(ToolError, match="pilots get none"):
            await client.call("evaluate", run_id=RUNS[1])


@pytest.fixture
def url(toy_home: Path) -> Iterator[str]:
    TokenFile(toy_home / "tokens.json").issue("nobody")
    with http_server("outlearn_evaluation", "--home", str(toy_home), "--tokens", str(toy_home / "tokens.json")) as url:
        yield url


async def test_http_round_trip_with_two_agents_and_an_operator(url: str, toy_home: Path, file_run: FileRun) -> None:
    for run_id, agent in zip(RUNS, ("ada", "bob", "ada"), strict=False):
        file_run(run_id, agent=agent)
    tokens = TokenFile(toy_home / "tokens.json")
    ada, bob, chief = tokens.issue("ada"), tokens.issue("bob"), tokens.issue("chief", "operator")
    async with connect_http(url, ada) as one, connect_http(url, bob) as two, connect_http(url, chief) as boss:
        assert (await one.call("evaluate", run_id=RUNS[0]))["charged"]
        with pytest.raises(ToolError, match="is another agent's"):
            await two.call("evaluate", run_id=RUNS[0])
        assert (await two.call("evaluate", run_id=RUNS[1]))["budget"]["team_left"] == 198
        assert not (await boss.call("evaluate", run_id=RUNS[2]))["charged"]
        left = [(await client.call("get_budget"))["agent_left"] for client in (one, two, boss)]
        assert left == [29, 29, 30]
        agents = [row["agent"] for row in (await two.call("leaderboard"))["rows"]]
        assert sorted(agents) == ["ada", "ada", "bob"]


def test_a_receipt_needs_a_run_id_and_an_agent_that_could_exist() -> None:
    for changes in ({"run_id": "x"}, {"agent": "../ada"}):
        fields = {"run_id": RUN, "agent": "ada"} | changes
        with pytest.raises(ValidationError):
            Receipt(
                **fields, method="m", method_sha256="", task="toy", task_fingerprint="", seed=0,
                weights_sha256=(), predictions=(),
            )  # fmt: skip
