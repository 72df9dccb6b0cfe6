"""Thresholds from the votes of a home's own teachers and ceilings, and what they are where these say nothing."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student_t
from typer.testing import CliRunner

from outlearn.baseline_votes import BaselineVotes, keep_votes, load_votes, pack_votes, unpack_votes, votes_path
from outlearn.errors import IntegrityError
from outlearn.identity import Caller
from outlearn.tasks import load_card, load_secret
from outlearn_agents.cli import app
from outlearn_evaluation.commitment import open_task
from outlearn_evaluation.detectors import ALIKE, APART, DOUBT, Look, random_masks, seeds_alike, seeds_apart
from outlearn_evaluation.detectors import Change as Found
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.thresholds import (
    CONSTANTS,
    LEAST_DOUBT,
    MOST_ALIKE,
    MOST_APART,
    ThresholdBook,
    calibrated,
    sure_t,
)

ITEMS, SEEDS = 600, 5
ABILITY, LABELS = np.random.default_rng(0).normal(size=ITEMS), np.random.default_rng(1).integers(0, 2, ITEMS)
PUBLIC = np.ones(ITEMS, dtype=bool)


def students(accuracy: float, spread: float, taste: float = 0.4, number: int = 0) -> np.ndarray:
    """Answers (seeds, items) that err on hard items; seeds differ by `spread`, methods by `taste`."""
    rng = np.random.default_rng([number, int(1e6 * spread)])
    sure = ABILITY + taste * rng.normal(size=ITEMS) + spread * rng.normal(size=(SEEDS, ITEMS))
    return np.array([(one > np.quantile(one, 1 - accuracy)) == LABELS for one in sure])


def votes(spread: float = 0.3, taste: float = 0.4) -> BaselineVotes:
    teachers, ceilings = students(0.6, spread, taste, 1), students(0.8, spread, taste, 2)
    return BaselineVotes(tuple(range(SEEDS)), teachers, ceilings, teachers)


def look(positive: np.ndarray) -> Look:
    return Look("run-000001", "ada", len(positive), positive.sum(axis=0).astype(np.uint8), False, None)


def test_packed_votes_are_read_back_and_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    kept = votes()
    keep_votes(tmp_path, "f" * 64, pack_votes(kept))
    found = load_votes(tmp_path, "f" * 64)
    assert found is not None
    assert found.seeds == kept.seeds
    for name in ("teachers", "ceilings", "controls"):
        assert np.array_equal(getattr(found, name), getattr(kept, name))
    assert votes_path(tmp_path, "f" * 64).stat().st_mode & 0o777 == 0o600
    assert load_votes(tmp_path, "0" * 64) is None
    for damaged in (b"", b"no zip", pack_votes(kept)[:-40]):
        with pytest.raises(IntegrityError, match="calibrate"):
            unpack_votes(damaged)


def test_no_flipped_bit_of_the_votes_is_any_other_error() -> None:
    packed, rng = pack_votes(votes()), random.Random(0)
    for _ in range(500):
        damaged = bytearray(packed)
        damaged[rng.randrange(len(packed))] ^= 1 << rng.randrange(8)
        with suppress(IntegrityError):
            unpack_votes(bytes(damaged))


def test_a_home_whose_seeds_differ_as_students_do_has_strict_thresholds() -> None:
    found = calibrated(votes(), LABELS, PUBLIC)
    assert ALIKE < found.alike <= MOST_ALIKE
    assert (found.apart, found.doubt) == (APART, DOUBT)
    assert "5 teachers and 5 ceilings on 600 items" in found.source


def test_where_honest_seeds_agree_nearly_everywhere_equal_ones_are_not_suspected() -> None:
    narrow = calibrated(votes(spread=0.001), LABELS, PUBLIC)
    assert narrow.alike == 0
    run = look(students(0.7, 0.001, number=3))
    assert seeds_alike(run) is not None
    assert seeds_alike(run, narrow.alike) is None


def test_the_fewer_the_items_the_less_equal_seeds_say() -> None:
    alike = [calibrated(votes(0.05), LABELS, np.arange(ITEMS) < items).alike for items in (600, 300, 40)]
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > alike[-1] == 0


@pytest.mark.parametrize("kind", ["equal", "constant", "opposite", "random"])
def test_a_degenerate_calibration_moves_no_threshold_past_its_limits(kind: str) -> None:
    rng, one = np.random.default_rng(0), students(0.7, 0.3)[0]
    made = {
        "equal": np.tile(one, (SEEDS, 1)),
        "constant": np.ones((SEEDS, ITEMS), dtype=bool),
        "opposite": one ^ (np.arange(SEEDS) % 2 == 0)[:, None],
        "random": rng.random((SEEDS, ITEMS)) < 0.5,
    }[kind]
    found = calibrated(BaselineVotes(tuple(range(SEEDS)), made, made, made), LABELS, PUBLIC)
    assert 0 <= found.alike <= MOST_ALIKE
    assert APART <= found.apart <= MOST_APART
    assert LEAST_DOUBT <= found.doubt <= DOUBT
    assert random_masks([Found(40.0, 0.0)] * 3, found.doubt) is not None
    assert seeds_apart(rng.random((SEEDS, ITEMS)) < 0.5, LABELS, found.apart) is not None


def test_the_threshold_that_withholds_is_one_of_four_whatever_the_votes() -> None:
    seen = {calibrated(votes(spread, taste), LABELS, PUBLIC).doubt for spread in (0.01, 0.1, 0.5) for taste in (0.1, 2)}
    assert seen <= {0.15, 0.2, 0.25, 0.3}
    assert len(seen) > 1


@pytest.mark.parametrize("df", [2, 3, 4, 15, 63])
def test_students_t_is_near_enough(df: int) -> None:
    assert sure_t(df) == pytest.approx(float(student_t.ppf(0.95, df)), rel=0.012 if df == 2 else 0.003)


def toy_votes(home: Path, spread: float) -> BaselineVotes:
    """Votes of the toy task's baselines that have effects as small as `spread` is."""
    secret, rng = load_secret(home, "toy"), np.random.default_rng(0)
    one = rng.random(len(secret.test)) < 0.5
    kinds = [np.array([one ^ (rng.random(len(one)) < spread) for _ in range(SEEDS)]) for _ in range(3)]
    return BaselineVotes(load_card(home, "toy").seeds, *kinds)


def test_a_home_without_votes_has_the_constants_and_says_what_to_do(toy_home: Path) -> None:
    fingerprint = load_card(toy_home, "toy").fingerprint
    found = ThresholdBook(toy_home).of("toy", fingerprint)
    assert (found.alike, found.apart, found.doubt) == (CONSTANTS.alike, CONSTANTS.apart, CONSTANTS.doubt)
    assert "outlearn calibrate" in found.source
    assert not found.calibrated


@pytest.mark.parametrize("wrong", ["damaged", "seeds", "items"])
def test_votes_that_are_not_the_baselines_own_are_not_used(toy_home: Path, wrong: str) -> None:
    fingerprint, kept = load_card(toy_home, "toy").fingerprint, toy_votes(toy_home, 0.2)
    other = {
        "damaged": b"oh",
        "seeds": pack_votes(BaselineVotes((5, 6, 7, 8, 9), kept.teachers, kept.ceilings, kept.controls)),
        "items": pack_votes(BaselineVotes(kept.seeds, *[kept.teachers[:, :100]] * 3)),
    }[wrong]
    keep_votes(toy_home / "vault" / "toy", fingerprint, other)
    found = ThresholdBook(toy_home).of("toy", fingerprint)
    assert not found.calibrated
    assert found.doubt == DOUBT


def test_votes_that_calibration_brings_later_are_in_force_at_once(toy_home: Path) -> None:
    fingerprint, book = load_card(toy_home, "toy").fingerprint, ThresholdBook(toy_home)
    assert not book.of("toy", fingerprint).calibrated
    keep_votes(toy_home / "vault" / "toy", fingerprint, pack_votes(toy_votes(toy_home, 0.2)))
    found = book.of("toy", fingerprint)
    assert found.calibrated
    assert book.of("toy", fingerprint) is found


def test_votes_change_no_commitment(toy_home: Path) -> None:
    before = open_task(toy_home, "toy").commitment
    keep_votes(toy_home / "vault" / "toy", load_card(toy_home, "toy").fingerprint, pack_votes(toy_votes(toy_home, 0.2)))
    assert open_task(toy_home, "toy").commitment == before


def test_the_homes_own_thresholds_are_in_force_when_a_run_is_evaluated(
    toy_home: Path, file_run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    vault, fingerprint = toy_home / "vault" / "toy", load_card(toy_home, "toy").fingerprint
    keep_votes(vault, fingerprint, pack_votes(toy_votes(toy_home, 0.2)))
    own = ThresholdBook(toy_home).of("toy", fingerprint)
    assert own.doubt < DOUBT
    for name in ("auditor", "inspection"):
        monkeypatch.setattr(
            f"outlearn_evaluation.{name}.random_masks", lambda changes, doubt: asked.append(doubt) or None
        )
    service = EvaluationService(EvaluationSettings(home=toy_home))
    try:
        file_run("run-000001")
        service.evaluate(Caller(agent="ada"), "run-000001", None)
    finally:
        service.engine.dispose()
    assert asked == [own.doubt] * 2


def test_the_operator_sees_the_thresholds_in_force_and_where_they_are_from(toy_home: Path) -> None:
    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["audit", str(toy_home), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert "thresholds of task toy: constants" in said()
    fingerprint = load_card(toy_home, "toy").fingerprint
    keep_votes(toy_home / "vault" / "toy", fingerprint, pack_votes(toy_votes(toy_home, 0.2)))
    assert "thresholds of" not in said()
    table = said("--thresholds")
    assert "task toy, from the votes of 5 teachers and 5 ceilings on 100 items" in table
    assert "effect under 0.15" in table
    assert json.loads(said("--thresholds", "--json"))["toy"]["doubt"] == pytest.approx(0.15)
