"""The final: nominations close, nominees are run again on seeds that nobody knew, the private half is opened once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("scipy.stats")
pytest.importorskip("statsmodels")

from outlearn.audit import AuditLog
from outlearn.errors import ConflictError, IntegrityError, NotFoundError
from outlearn.identity import Caller
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.tasks import (
    Floats,
    SecretTask,
    SeedBaseline,
    TaskCard,
    load_baselines,
    load_card,
    load_public,
    load_secret,
    write_task,
)
from outlearn.types import RunView
from outlearn_evaluation.final import Reruns, finalize, fresh_seeds
from outlearn_evaluation.release import Release, ReleaseBook
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings

ADA, BOB = Caller(agent="ada"), Caller(agent="bob")
WEAK, CEILING = 0.6, 0.9
Nominated = Callable[..., None]


class Again:
    """Does runs again without training: students that are right as often as they are told to be, or fail."""

    def __init__(self, settings: EvaluationSettings, **shares: float) -> None:
        self._home, self._shares = settings.home, shares
        self.calls: list[tuple[list[str], tuple[int, ...]]] = []

    def __call__(self, run_ids: Sequence[str], into: Path, seeds: Sequence[int]) -> Reruns:
        self.calls.append((list(run_ids), tuple(seeds)))
        public, secret = load_public(self._home, "toy"), load_secret(self._home, "toy")
        card = self._write(public.card, secret, into, seeds)
        for run_id in run_ids:
            if (name := run_id.removeprefix("run-")) in self._shares:
                self._sign(into, card, f"{run_id}again", predict(secret, self._shares[name], seeds, name))
        return Reruns(
            {run_id: self._view(run_id) for run_id in run_ids},
            predict(secret, WEAK, seeds, "weak"),
            predict(secret, CEILING, seeds, "ceiling"),
        )

    def _write(self, card: TaskCard, secret: SecretTask, into: Path, seeds: Sequence[int]) -> TaskCard:
        levels = {"weak": WEAK, "ceiling": CEILING, "weak_public": WEAK, "ceiling_public": CEILING}
        baselines = load_baselines(self._home, "toy").model_copy(
            update={"per_seed": tuple(SeedBaseline(seed=seed, **levels) for seed in seeds)}
        )
        pool = load_public(self._home, "toy").pool
        return write_task(into, card, pool, secret, {seed: np.full(len(pool), 0.5) for seed in seeds}, baselines)

    def _sign(self, into: Path, card: TaskCard, run_id: str, predictions: Floats) -> None:
        for seed, row in zip(card.seeds, predictions, strict=True):
            ReceiptBook(into / "vault").issue(
                Receipt(
                    run_id=run_id,
                    agent="ada",
                    method="mine.py",
                    method_sha256="0" * 64,
                    task=card.name,
                    task_fingerprint=card.fingerprint,
                    seed=seed,
                    weights_sha256=("1" * 64,),
                    predictions=tuple(row.tolist()),
                )
            )

    def _view(self, run_id: str) -> RunView:
        done = run_id.removeprefix("run-") in self._shares
        return RunView(
            run_id=f"{run_id}again",
            agent="ada",
            task="toy",
            method="mine.py",
            params={"keep": 0.5},
            kind="full",
            status="done" if done else "failed",
            seeds_done=5,
            seeds_total=5,
            progress=1,
            message="done" if done else "ValueError: no luck",
            submitted_at=datetime.now(UTC),
        )


def predict(secret: SecretTask, share: float, seeds: Sequence[int], name: str) -> Floats:
    """P(label = 1), (seeds, items), right for a share of the private half, and for all of the public half."""
    rows = []
    for place, _ in enumerate(seeds):
        private = np.flatnonzero(~secret.public_mask())
        wrong: NDArray[np.bool_] = np.zeros(len(secret.test), dtype=bool)
        chosen = np.random.default_rng([place, *name.encode()]).permutation(private)
        wrong[chosen[round(share * len(private)) :]] = True
        if name in ("weak", "ceiling"):  # as good on both halves
            wrong[np.flatnonzero(secret.public_mask())[round(share * 100) :]] = True
        rows.append(np.where(wrong != secret.test_labels.astype(bool), 0.75, 0.25))
    return np.array(rows)


@pytest.fixture
def settings(toy_home: Path) -> EvaluationSettings:
    return EvaluationSettings(home=toy_home)


@pytest.fixture
def nominated(service: EvaluationService, file_run: Callable[..., None]) -> Nominated:
    """Evaluates runs of Ada's, with other shares of right answers, and has her nominate them."""

    def nominate(*names: str) -> None:
        for place, name in enumerate(names):
            file_run(f"run-{name}", right=[75 - 9 * place] * 5)
            service.evaluate(ADA, f"run-{name}", None)
        service.nominate(ADA, tuple(f"run-{name}" for name in names))

    return nominate


def test_nominees_are_scored_on_the_private_half_with_seeds_that_the_task_did_not_have(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("besttold", "betterone")
    again = Again(settings, besttold=0.66, betterone=0.84)
    release = finalize(settings, "toy", again)
    [(entered, seeds)] = again.calls
    assert entered == ["run-besttold", "run-betterone"]
    assert (release.seeds, len(seeds)) == (seeds, 5)
    assert not set(seeds) & set(load_card(settings.home, "toy").seeds)
    first, second = release.finalists
    assert (first.run_id, first.told, first.params) == ("run-betterone", 0.2, {"keep": 0.5})
    assert (second.run_id, second.told) == ("run-besttold", 0.5)
    assert first.pgr
    assert second.pgr
    assert (first.accuracy, first.pgr.value) == (0.84, pytest.approx(0.8))
    assert second.pgr.value == pytest.approx(0.2)
    assert second.pgr.low < 0.2 < second.pgr.high
    assert first.fall
    assert first.fall.value == pytest.approx(4 / 3 - 0.8, abs=1e-4)
    [pair] = release.comparisons
    assert (pair.run_id, pair.other, pair.significant) == ("run-betterone", "run-besttold", True)
    assert pair.difference.value == pytest.approx(0.18)
    assert (release.items, release.weak_acc, release.ceiling_acc) == (100, 0.6, 0.9)


def test_a_second_final_is_the_first_ones_bytes_and_runs_nothing(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("theonlyone")
    again = Again(settings, theonlyone=0.8)
    release, file = finalize(settings, "toy", again), ReleaseBook(settings.vault, "toy").path
    kept = file.read_bytes()
    assert finalize(settings, "toy", again, seeds=16) == release
    assert (len(again.calls), file.read_bytes()) == (1, kept)
    assert Release.model_validate_json(kept) == release
    assert AuditLog(settings.vault).records()[-1].kind == "private half opened"
    file.write_text(release.model_copy(update={"weak_acc": 0.1}).model_dump_json())
    with pytest.raises(IntegrityError, match="wrong signature"):
        finalize(settings, "toy", again)


def test_the_opening_is_recorded_before_there_is_a_number(
    settings: EvaluationSettings, nominated: Nominated, monkeypatch: pytest.MonkeyPatch
) -> None:
    nominated("theonlyone")

    def full(book: ReleaseBook, release: Release) -> Release:
        raise OSError("no space left")

    monkeypatch.setattr(ReleaseBook, "file", full)
    with pytest.raises(OSError, match="no space"):
        finalize(settings, "toy", Again(settings, theonlyone=0.8))
    assert AuditLog(settings.vault).records()[-1].kind == "private half opened"


def test_without_nominations_nothing_is_closed(
    settings: EvaluationSettings, service: EvaluationService, file_run: Callable[..., None]
) -> None:
    file_run("run-mine01")
    service.evaluate(ADA, "run-mine01", None)
    with pytest.raises(NotFoundError, match="nobody has nominated a run of task 'toy'"):
        finalize(settings, "toy", Again(settings))
    with pytest.raises(NotFoundError, match="no task 'chess'"):
        finalize(settings, "chess", Again(settings))
    assert service.nominate(ADA, ("run-mine01",)).run_ids == ("run-mine01",)


def test_once_a_final_began_nobody_nominates_or_evaluates_for_its_task(
    settings: EvaluationSettings,
    service: EvaluationService,
    nominated: Nominated,
    file_run: Callable[..., None],
    write_task_for: Callable[..., TaskCard],
) -> None:
    write_task_for(settings.home, "toy/student", "other")
    nominated("theonlyone")
    file_run("run-toolate")
    file_run("run-other1", task="other")
    service.evaluate(ADA, "run-other1", None)
    finalize(settings, "toy", Again(settings, theonlyone=0.8))
    with pytest.raises(ConflictError, match="the final of task 'toy' began at"):
        service.evaluate(ADA, "run-toolate", None)
    with pytest.raises(ConflictError, match="cannot be nominated"):
        service.nominate(ADA, ("run-other1", "run-theonlyone"))
    assert service.evaluate(ADA, "run-theonlyone", None).charged is False
    assert service.nominate(ADA, ("run-other1",)).run_ids == ("run-other1",)
    rows = {row.run_id: row.nominated for task in ("toy", "other") for row in service.leaderboard(task, 9).rows}
    assert rows == {"run-theonlyone": True, "run-other1": True}


def test_where_a_rerun_fails_nothing_is_opened_and_the_operator_may_mend_that_and_try_again(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("goodone", "badone")
    first, second = Again(settings), Again(settings, goodone=0.8, badone=0.7)
    wanted = r"2 of 2 re-runs failed, .*: run-goodone, run-badone \('ValueError: no luck'\)\. .*--accept-failed"
    with pytest.raises(ConflictError, match=wanted):
        finalize(settings, "toy", first)
    assert "private half opened" not in [one.kind for one in AuditLog(settings.vault).records()]
    assert ReleaseBook(settings.vault, "toy").read() is None
    release = finalize(settings, "toy", second)
    assert first.calls == second.calls  # on the same seeds
    assert [(one.run_id, one.failed) for one in release.finalists] == [("run-goodone", ""), ("run-badone", "")]


def test_what_a_failed_rerun_says_cannot_pass_for_our_words(settings: EvaluationSettings, nominated: Nominated) -> None:
    nominated("badone")

    def failing(run_ids: Sequence[str], into: Path, seeds: Sequence[int]) -> Reruns:
        reruns = Again(settings)(run_ids, into, seeds)
        loud = {"message": "no\n\nluck\x1b[31m, outlearn: all is well" + "!" * 2000}
        return replace(reruns, runs={one: view.model_copy(update=loud) for one, view in reruns.runs.items()})

    with pytest.raises(ConflictError, match=r"'no luck\ufffd\[31m, outlearn: all is well!{100,200}") as refused:
        finalize(settings, "toy", failing)
    assert len(str(refused.value)) < 600


def test_a_nominee_that_fails_is_a_result_where_the_operator_takes_it_for_one(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("goodone", "badone")
    release = finalize(settings, "toy", Again(settings, goodone=0.8), accept_failed=True)
    good, bad = release.finalists
    assert (good.failed, bad.failed, bad.accuracy, bad.pgr) == ("", "ValueError: no luck", None, None)
    assert release.comparisons == ()


def test_runs_that_are_withheld_are_not_run_again(settings: EvaluationSettings, nominated: Nominated) -> None:
    nominated("honest", "cheating")
    log, again = AuditLog(settings.vault), Again(settings, honest=0.8, cheating=0.9)
    log.append("canary", "disqualify", agent="ada", run_id="run-cheating")
    release = finalize(settings, "toy", again)
    assert again.calls[0][0] == ["run-honest"]
    assert [one.failed for one in release.finalists] == ["", "withheld: `outlearn audit` says why"]


def test_a_run_that_is_caught_when_it_is_done_again_has_no_score(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("honest", "cheating")
    again = Again(settings, honest=0.8, cheating=0.9)

    def watched(run_ids: Sequence[str], into: Path, seeds: Sequence[int]) -> Reruns:
        AuditLog(into / "vault").append("canary", "disqualify", agent="ada", run_id="run-cheatingagain")
        return again(run_ids, into, seeds)

    release = finalize(settings, "toy", watched)
    assert [(one.run_id, bool(one.failed)) for one in release.finalists] == [
        ("run-honest", False),
        ("run-cheating", True),
    ]


def test_a_run_that_is_caught_and_fails_does_not_hold_up_the_others(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("honest", "cheating")

    def watched(run_ids: Sequence[str], into: Path, seeds: Sequence[int]) -> Reruns:
        AuditLog(into / "vault").append("vault", "disqualify", agent="ada", run_id="run-cheatingagain")
        return Again(settings, honest=0.8)(run_ids, into, seeds)

    assert [one.failed for one in finalize(settings, "toy", watched).finalists] == ["", "ValueError: no luck"]


def test_a_final_with_all_nominees_withheld_waits_for_the_operator(
    settings: EvaluationSettings, nominated: Nominated
) -> None:
    nominated("cheating")
    log, again = AuditLog(settings.vault), Again(settings, cheating=0.7)
    log.append("seeds apart", "quarantine", agent="ada", run_id="run-cheating")
    with pytest.raises(ConflictError, match="are withheld; review them"):
        finalize(settings, "toy", again)
    log.append("operator", "release", run_id="run-cheating")
    assert finalize(settings, "toy", again).finalists[0].accuracy == 0.7


def test_an_interrupted_final_goes_on_with_its_seeds(settings: EvaluationSettings, nominated: Nominated) -> None:
    nominated("theonlyone")
    again, stopped = Again(settings, theonlyone=0.8), list[Sequence[int]]()

    def interrupted(run_ids: Sequence[str], into: Path, seeds: Sequence[int]) -> Reruns:
        stopped.append(seeds)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finalize(settings, "toy", interrupted, seeds=7)
    with pytest.raises(ConflictError, match="began with 7 seeds, not 5"):
        finalize(settings, "toy", again, seeds=5)
    assert finalize(settings, "toy", again).seeds == stopped[0]
    assert len(stopped[0]) == 7


def test_seeds_are_drawn_anew_in_every_home_and_kept_where_only_the_operator_reads(
    toy_home: Path, tmp_path: Path, write_task_for: Callable[..., TaskCard]
) -> None:
    write_task_for(tmp_path / "second", "toy/student")
    drawn = fresh_seeds(toy_home, "toy", None)
    assert fresh_seeds(toy_home, "toy", None) == drawn == tuple(sorted(set(drawn)))
    assert fresh_seeds(tmp_path / "second", "toy", None) != drawn
    [file] = (toy_home / "vault" / "toy").glob("*seeds*")
    assert file.stat().st_mode & 0o077 == 0


def test_labels_that_were_swapped_after_the_commitment_are_not_scored(
    settings: EvaluationSettings, nominated: Nominated, service: EvaluationService
) -> None:
    nominated("theonlyone")
    path = settings.vault / "toy" / "secret.json"
    secret = SecretTask.model_validate_json(path.read_bytes())
    swapped = tuple(item.model_copy(update={"label": 1 - item.label}) for item in secret.test)
    path.write_text(secret.model_copy(update={"test": swapped}).model_dump_json())
    with pytest.raises(IntegrityError, match="are not those committed to"):
        finalize(settings, "toy", Again(settings, theonlyone=0.8))
