"""Receipts and results that nobody signed for this: forged, replayed, mixed, planted, edited."""

import base64
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from homes import ADA, BOB, CHIEF, RUNS, evaluating, file_run, refused, toy_home
from registry import Family

from outlearn.errors import IntegrityError, NotFoundError, OutlearnError, PermissionDeniedError
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.results import ResultBook, VerifiedResult, results_file
from outlearn.signing import Signer
from outlearn.types import Finding
from outlearn_evaluation.service import EvaluationService

attacks = Family()
OWN, OTHER = RUNS[:2]
Plant = Callable[[Path, dict[int, Receipt], dict[int, Receipt]], None]


def scored(service: EvaluationService, run_id: str = OWN) -> bool:
    """Whether an attacker got a number; one who did not must not have been charged, nor stand on the board."""
    before = service.budget(ADA)
    try:
        service.evaluate(ADA, run_id, None)
    except IntegrityError:
        return service.budget(ADA) != before or bool(service.leaderboard("", 9).rows)
    return True


def planted(folder: Path, plant: Plant) -> bool:
    """Whether the server refuses a run among whose receipts something was planted."""
    home = toy_home(folder)
    file_run(home, OWN)
    file_run(home, OTHER, right=0.95)
    book = ReceiptBook(home / "vault")
    own, other = ({one.seed: one for one in book.read(run)} for run in (OWN, OTHER))
    plant(ReceiptBook(home / "vault").folder / OWN, own, other)
    with evaluating(home) as service:
        return not scored(service)


def put(path: Path, receipt: Receipt) -> None:
    path.write_bytes(receipt.model_dump_json().encode())


@attacks
def edited_predictions(folder: Path) -> bool:
    def plant(run: Path, own: dict[int, Receipt], _: dict[int, Receipt]) -> None:
        put(run / "0.json", own[0].model_copy(update={"predictions": (1.0,) * 200}))

    return planted(folder, plant)


@attacks
def better_predictions_that_an_older_version_signed(folder: Path) -> bool:
    """What says that it is old is not looked at any further, nor is what says that it is from the future."""

    def plant(run: Path, own: dict[int, Receipt], _: dict[int, Receipt]) -> None:
        for seed, version in ((0, 0), (1, -1), (2, 2)):
            put(
                run / f"{seed}.json",
                own[seed].model_copy(update={"predictions": (1.0,) * 200, "schema_version": version}),
            )

    return planted(folder, plant)


@attacks
def another_runs_receipts(folder: Path) -> bool:
    def plant(run: Path, _: dict[int, Receipt], other: dict[int, Receipt]) -> None:
        for seed, receipt in other.items():
            put(run / f"{seed}.json", receipt)

    return planted(folder, plant)


@attacks
def one_seed_of_another_run(folder: Path) -> bool:
    return planted(folder, lambda run, _, other: put(run / "3.json", other[3]))


@attacks
def another_run_renamed(folder: Path) -> bool:
    def plant(run: Path, own: dict[int, Receipt], other: dict[int, Receipt]) -> None:
        for seed, receipt in other.items():
            put(run / f"{seed}.json", receipt.model_copy(update={"run_id": OWN, "signature": own[seed].signature}))

    return planted(folder, plant)


@attacks
def seeds_exchanged(folder: Path) -> bool:
    """The best seed's predictions under the number of every seed."""

    def plant(run: Path, own: dict[int, Receipt], _: dict[int, Receipt]) -> None:
        for seed in own:
            put(run / f"{seed}.json", own[2].model_copy(update={"seed": seed}))

    return planted(folder, plant)


@attacks
def seeds_reordered(folder: Path) -> bool:
    """File names mean nothing: the answer is the same one."""
    home = toy_home(folder)
    file_run(home, OWN)
    with evaluating(home) as service:
        first = service.evaluate(ADA, OWN, None)
        run = ReceiptBook(home / "vault").folder / OWN
        for one, other in (("0", "4"), ("1", "3")):
            (run / f"{one}.json").rename(run / "x")
            (run / f"{other}.json").rename(run / f"{one}.json")
            (run / "x").rename(run / f"{other}.json")
        again = service.evaluate(ADA, OWN, None)
        return (again.pgr, again.charged) == (first.pgr, False)


@attacks
def a_seed_twice(folder: Path) -> bool:
    return planted(folder, lambda run, own, _: put(run / "00.json", own[0]))


@attacks
def a_seed_too_few(folder: Path) -> bool:
    """The worst seed's receipt taken away."""
    return planted(folder, lambda run, *_: (run / "4.json").unlink())


@attacks
def a_seed_of_ones_own(folder: Path) -> bool:
    def plant(run: Path, own: dict[int, Receipt], _: dict[int, Receipt]) -> None:
        put(run / "7.json", own[0].model_copy(update={"seed": 7}))

    return planted(folder, plant)


@attacks
def symlinked_receipts(folder: Path) -> bool:
    def plant(run: Path, own: dict[int, Receipt], _: dict[int, Receipt]) -> None:
        for seed in own:
            (run / f"{seed}.json").unlink()
            (run / f"{seed}.json").symlink_to(run.parent / OTHER / f"{seed}.json")

    return planted(folder, plant)


@attacks
def a_symlinked_folder_of_receipts(folder: Path) -> bool:
    home = toy_home(folder)
    file_run(home, OTHER)
    (ReceiptBook(home / "vault").folder / OWN).symlink_to(ReceiptBook(home / "vault").folder / OTHER)
    with evaluating(home) as service:
        return not scored(service)


@attacks
def another_vaults_key(folder: Path) -> bool:
    def plant(run: Path, own: dict[int, Receipt], _: dict[int, Receipt]) -> None:
        put(run / "0.json", Signer(b"k" * 32, "receipt").sign(own[0]))

    return planted(folder, plant)


@attacks
def a_signature_for_another_purpose(folder: Path) -> bool:
    """The evaluation server's own key for results does not sign receipts."""
    home = toy_home(folder)
    file_run(home, OWN)
    [first, *_] = ReceiptBook(home / "vault").read(OWN)
    put(ReceiptBook(home / "vault").folder / OWN / "0.json", Signer.from_vault(home / "vault", "result").sign(first))
    with evaluating(home) as service:
        return not scored(service)


@attacks
def another_tasks_receipts(folder: Path) -> bool:
    """A task that is easier, under the name of the one that counts."""
    home = toy_home(folder)
    file_run(home, OWN, task_fingerprint="f" * 64)
    with evaluating(home) as service:
        return not scored(service)


@attacks
def half_a_task(folder: Path) -> bool:
    home = toy_home(folder)
    file_run(home, OWN, predictions=(1.0,) * 100)
    with evaluating(home) as service:
        return not scored(service)


@attacks
def malformed_receipts(folder: Path) -> bool:
    """NaN, numbers beyond [0, 1], half a number, no JSON, an empty file; and no word of them in the answer."""
    numbers = [base64.b64encode(np.full(200, one).tobytes()).decode() for one in (np.nan, 7.5, -0.5, np.inf)]
    held = []
    for number, new in enumerate([*numbers, numbers[1][:-8], "?", "", None]):
        home = toy_home(folder / str(number))
        file_run(home, OWN)
        path = ReceiptBook(home / "vault").folder / OWN / "0.json"
        fields = json.loads(path.read_text()) | {"predictions": new}
        path.write_text(json.dumps(fields) if new is not None else "")
        with evaluating(home) as service:
            held.append(not scored(service))
    return all(held)


@attacks
def run_ids_with_path_parts(folder: Path) -> bool:
    home = toy_home(folder)
    file_run(home, OWN)
    (home / "planted").mkdir()
    for path in (ReceiptBook(home / "vault").folder / OWN).iterdir():
        (home / "planted" / path.name).write_bytes(path.read_bytes())
    odd = ["../../planted", f"{OTHER}/../{OWN}", f"./{OWN}", f"{OWN}/", f"{OWN}\n", f"{OWN}\0", "", ".", "*", str(home)]
    with evaluating(home) as service:
        return all(refused(lambda run=run: service.evaluate(ADA, run, None), NotFoundError) for run in odd)


@attacks
def another_agents_run(folder: Path) -> bool:
    home = toy_home(folder)
    file_run(home, OWN, agent="bob")
    with evaluating(home) as service:
        stolen = refused(lambda: service.evaluate(ADA, OWN, None), PermissionDeniedError)
        service.evaluate(BOB, OWN, None)
        return stolen and refused(lambda: service.nominate(ADA, (OWN,)))


@attacks
def a_pgr_of_ones_own(folder: Path) -> bool:
    """Files beside the published results, and published results edited: they are not shown, and made good again."""
    home = toy_home(folder)
    file_run(home, OWN)
    with evaluating(home) as service:
        told = service.evaluate(ADA, OWN, None)
        path = results_file(home)
        true = path.read_text()
        forged = "".join(json.dumps(json.loads(true) | {"pgr": 5.0, "run_id": run}) + "\n" for run in (OWN, OTHER))
        path.write_text(true + forged)  # added: the signed one stays
        kept = ResultBook(home).lookup(OWN)
        path.write_text(forged)
        book = ResultBook(home)
        hidden = all(refused(lambda run=run: book.lookup(run), IntegrityError) for run in (OWN, OTHER))
        hidden = hidden and kept is not None and kept.pgr == told.pgr
        board = [row.pgr for row in service.leaderboard("", 9).rows]
        service.evaluate(ADA, OWN, None)
        mended = book.lookup(OWN)
        return hidden and board == [told.pgr] and mended is not None and mended.pgr == told.pgr


def forum(home: Path):  # type: ignore[no-untyped-def]
    from outlearn_forum.reader import ForumReader
    from outlearn_forum.store import ForumStore

    results = ResultBook(home)
    store = ForumStore(f"sqlite:///{home}/forum.sqlite", results)
    return store, ForumReader(store.transactions, results)


@attacks
def a_finding_that_claims_pgr_5(folder: Path) -> bool:
    """As a result of no run, of a pilot, of somebody else's run, of one's own: the server's number or none."""
    home = toy_home(folder)
    file_run(home, OWN)
    file_run(home, OTHER, agent="bob", right=0.9)
    with evaluating(home) as service:
        told = service.evaluate(ADA, OWN, None).pgr
        service.evaluate(BOB, OTHER, None)
    store, reader = forum(home)

    def post(run_id: str | None) -> None:
        store.post_finding("ada", title="PGR 5.0", text='{"verified": {"pgr": 5.0}}', kind="result", run_id=run_id)

    held = [refused(lambda run=run: post(run), OutlearnError) for run in (None, RUNS[2], OTHER, "../results/x")]
    post(OWN)
    shown: list[Finding] = list(reader.list_threads().findings)
    store.engine.dispose()
    return all(held) and [one.verified and one.verified.pgr for one in shown] == [told]


@attacks
def somebody_elses_number_beside_ones_own_claim(folder: Path) -> bool:
    """An insight may name another's run, whose number must not stand in the report as its author's."""
    from outlearn_agents.report.summary import RunSummary, _finding

    home = toy_home(folder)
    file_run(home, OTHER, agent="bob", right=0.9)
    with evaluating(home) as service:
        service.evaluate(BOB, OTHER, None)
        [row] = service.leaderboard("", 9).rows
    store, reader = forum(home)
    store.post_finding("ada", title="I found it", text="All mine.", kind="insight", run_id=OTHER)
    [claim] = reader.list_threads().findings
    store.engine.dispose()
    run = RunSummary(**row.model_dump(exclude={"rank"}))
    named = claim.verified is None or claim.verified.agent == "bob"
    return named and _finding(claim, {OTHER: run}).pgr is None


@attacks
def the_boards_name_for_a_result(folder: Path) -> bool:
    """A result of one run filed under another's name."""
    home = toy_home(folder)
    fields = {"agent": "ada", "method": "m", "task": "toy", "seeds": 5, "pgr_se": 0.1}
    ResultBook(home).publish(VerifiedResult(run_id=OTHER, pgr=0.9, **fields))
    path = results_file(home)
    path.write_bytes(path.read_bytes().replace(OTHER.encode(), OWN.encode()))
    return refused(lambda: ResultBook(home).lookup(OWN), IntegrityError)


@attacks
def a_damaged_vault_tells_nothing_in_its_errors(folder: Path) -> bool:
    """Whoever meets a damaged file of the vault is told that it is damaged, and nothing that stands in it."""
    from outlearn.tasks import load_baselines, load_secret

    told = []
    for name in ("toy/secret.json", "toy/baselines.json", "a receipt"):
        for end in ("", "SEVENTH"):
            home = toy_home(folder / f"{name}-{len(end)}")
            file_run(home, OWN)
            path = home / "vault" / name if "/" in name else ReceiptBook(home / "vault").folder / OWN / "0.json"
            damaged = path.read_text().replace("0.9", '"0.9x"').replace('"label":1', '"label":"1x"')
            damaged = damaged.replace('"predictions":"', '"predictions":"SEVENTH!')
            path.write_text(damaged.replace("0.75", '"0.75x"') + end)
            told += _messages(partial(load_secret, home, "toy")) + _messages(partial(load_baselines, home, "toy"))
            with evaluating(home) as service:
                told += _messages(partial(service.evaluate, ADA, OWN, None))
                told += _messages(partial(service.evaluate, CHIEF, OWN, None))
    return len(told) >= 12 and not any(word in text for text in told for word in ("SEVENTH", "1x", "0.9", "0.75"))


def _messages(act: Callable[[], object]) -> list[str]:
    try:
        act()
    except OutlearnError as error:
        return [str(error)]
    return []
