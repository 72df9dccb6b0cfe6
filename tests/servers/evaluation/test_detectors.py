"""Detectors on runs made by hand; `tests/attacks` has them on simulated campaigns and honest teams."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from outlearn.results import VerifiedResult
from outlearn.types import Finding
from outlearn_evaluation.detectors import (
    Change,
    Look,
    change,
    floor_rate,
    majority_answer,
    near_duplicates,
    public_private_gap,
    random_masks,
    seeds_alike,
    seeds_apart,
    watermark,
)
from outlearn_evaluation.false_claims import false_claim
from outlearn_evaluation.inspection import OF_STUDENTS, Students, examine
from outlearn_evaluation.looks import Looks

ITEMS, SEEDS = 600, 5
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, ITEMS)
ABILITY = RNG.normal(size=ITEMS)
STATE = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws the same, in whatever order they run."""
    RNG.bit_generator.state = STATE


def student(accuracy: float = 0.65, spread: float = 0.3, method: float = 0.3, shared: float = 1.0) -> np.ndarray:
    """Answers (seeds, items) of an honest run: seeds err on hard items."""
    taste = method * RNG.normal(size=ITEMS)
    sure = [shared * ABILITY + taste + spread * RNG.normal(size=ITEMS) for _ in range(SEEDS)]
    return np.array([(one > np.quantile(one, 1 - accuracy)) == LABELS for one in sure])


def look(positive: np.ndarray, number: int = 0, *, at_most: bool = False, same_as: str | None = None) -> Look:
    counts = positive.sum(axis=0).astype(np.uint8)
    return Look(f"run-{number:06d}", "ada", len(positive), counts, at_most, same_as)


def test_seeds_of_a_student_are_neither_too_alike_nor_too_far_apart() -> None:
    for spread in (0.1, 0.3, 1.0):
        run = student(spread=spread)
        assert seeds_alike(look(run)) is None
        assert seeds_apart(run, LABELS) is None


def test_one_vector_in_all_seeds_is_too_alike() -> None:
    found = seeds_alike(look(np.tile(student()[0], (SEEDS, 1))))
    assert found is not None
    assert found.action == "flag"


def test_a_degenerate_student_is_no_attack() -> None:
    constant = np.ones((SEEDS, ITEMS), dtype=bool)
    assert seeds_alike(look(constant)) is None
    assert seeds_apart(np.array([constant[0], ~constant[0]]), LABELS) is None
    assert change(look(constant, 1), [look(student())]) is None
    assert change(look(student(), 1), [look(constant)]) is None


def test_attempts_packed_into_one_run_are_too_far_apart() -> None:
    packed = RNG.random((SEEDS, ITEMS)) < 0.5
    assert seeds_apart(packed, LABELS) is not None


def test_a_near_duplicate_is_noted_and_a_habit_of_them_flagged() -> None:
    own = [look(student(), number) for number in range(3)]
    assert near_duplicates(own) is None
    near = [look(student(), 3 + number, same_as="run-000000") for number in range(20)]
    notes = [near_duplicates([*own[:1], *near[: count + 1]]) for count in range(8)]
    assert [one.action for one in notes if one] == ["note"] * 7 + ["flag"]
    notes = [near_duplicates([*own, *near[: count + 1]]) for count in range(20)]
    assert [one.action for one in notes if one] == ["note"] * 16 + ["flag"] * 4
    assert near_duplicates([*own, *near, look(student(), 99)]) is None


def test_random_vectors_at_the_floor_are_flagged_and_failing_students_are_not() -> None:
    random = [look(RNG.random((SEEDS, ITEMS)) < 0.5, number, at_most=True) for number in range(8)]
    failing = [look(student(0.52), number, at_most=True) for number in range(8)]
    assert floor_rate(random) is not None
    assert floor_rate(random[:7]) is None
    assert floor_rate(failing) is None


def masked(base: np.ndarray, kind: str, number: int) -> np.ndarray:
    """The base with changes that have nothing to do with doubt."""
    mask = RNG.random(ITEMS) < 0.1 if kind == "random" else np.arange(ITEMS) // 60 == number % 10
    return base ^ mask


def all_seen(looks: Sequence[Look]) -> Looks:
    seen = Looks()
    for one in looks:
        seen.add(one)
    return seen


def changes_of(agent: str, looks: Sequence[Look]) -> list[Change]:
    """What each of an agent's runs changed."""
    return all_seen(looks).changes([one for one in looks if one.agent == agent][-1])


@pytest.mark.parametrize("kind", ["random", "blocks"])
@pytest.mark.parametrize("tiled", [True, False])
def test_masks_over_a_students_answers_are_found_and_quarantined(kind: str, tiled: bool) -> None:
    base = student()
    base = np.tile(base[:1], (SEEDS, 1)) if tiled else base
    looks = [look(base), *(look(masked(base, kind, number), 1 + number) for number in range(6))]
    found = random_masks(changes_of("ada", looks))
    assert found is not None
    assert found.action == "quarantine"
    assert float(found.evidence["effect"]) < 0.3


@pytest.mark.parametrize("method", [0.05, 0.3, 1.0])
def test_what_retrained_students_change_is_no_mask(method: float) -> None:
    looks = [look(student(method=method), number) for number in range(12)]
    changes = changes_of("ada", looks)
    assert len(changes) == 11
    assert random_masks(changes) is None


def test_changes_are_worked_out_once_and_for_the_agent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = [look(student(), number) for number in range(4)]
    looks[2] = Look(looks[2].run_id, "bob", SEEDS, looks[2].counts, False, None)
    worked_out = list[str]()

    def blind(run: Look, *_: object) -> Change:
        worked_out.append(run.run_id)
        return Change(1e6, 0.0)

    monkeypatch.setattr("outlearn_evaluation.looks.changed_from", blind)
    seen = all_seen(looks)
    assert len(seen.changes(looks[3])) == len(seen.changes(looks[3])) == 2
    assert worked_out == ["run-000001", "run-000003"]
    assert random_masks(seen.changes(looks[3])) is not None
    assert random_masks(seen.changes(looks[3], {"run-000001"})) is None


def test_masks_over_another_agents_runs_are_on_record_as_such() -> None:
    base = student()
    bobs = replace(look(base, 1), agent="bob")
    found = random_masks(changes_of("ada", [bobs, *(look(masked(base, "random", one), one) for one in (2, 3))]))
    assert found is not None
    assert found.evidence["bases"] == "run-000001 of bob"
    assert (found.evidence["blind"], found.evidence["of_others"]) == (2, 2)


def test_one_blind_change_may_be_a_failure_and_two_are_not_hidden_by_others() -> None:
    honest = [Change(80.0, 1.5)] * 9
    assert random_masks([*honest, Change(80.0, 0.0)]) is None
    assert random_masks([*honest, Change(80.0, 0.0), *honest, Change(80.0, 0.2)]) is not None
    assert random_masks([Change(10.0, 0.0)] * 2) is None
    assert random_masks([Change(10.0, 0.0)] * 3) is not None


def test_few_items_say_little_and_more_of_them_as_much_as_many() -> None:
    for doubt in (0.15, 0.3):
        needed = [
            next(count for count in range(1, 100) if random_masks([Change(weight, 0.0)] * count, doubt))
            for weight in (4.0, 20.0, 100.0, 1e6)
        ]
        assert needed == sorted(needed, reverse=True)
        assert needed[-1] == 2
    assert needed[0] == 8
    assert random_masks([Change(4.0, 0.25)] * 20) is None
    assert random_masks([Change(100.0, 0.29)] * 4) is None


@pytest.mark.parametrize("dissent", [0, 2])
def test_masks_are_found_without_what_they_are_laid_over_and_where_seeds_feign_doubt(dissent: int) -> None:
    student_answers, looks = student()[0], []
    for number in range(8):
        mask = RNG.random(ITEMS) < 0.2
        rank = (np.arange(SEEDS)[:, None] + RNG.integers(0, SEEDS, ITEMS)) % SEEDS
        looks.append(look(student_answers ^ mask ^ (mask & (rank < dissent)), number))
    assert random_masks(changes_of("ada", looks)) is not None


def test_the_watermark_is_normal_for_those_who_never_saw_the_noise() -> None:
    noise = RNG.normal(size=ITEMS)
    signs = 2.0 * student().mean(axis=0) - 1
    assert watermark(signs, noise) is None
    found = watermark(np.where(RNG.random(ITEMS) < 0.7, np.sign(noise), signs), noise)
    assert found is not None
    assert float(found.evidence["z"]) > 4
    assert watermark(-np.sign(noise), noise) is None
    assert watermark(np.zeros(ITEMS), noise) is None


def test_the_gap_between_halves_must_be_more_than_chance() -> None:
    public = np.arange(ITEMS) < ITEMS // 2
    right = student(0.65) == LABELS
    assert public_private_gap(right.mean(axis=0), public, 1.0) is None
    right[:, public] |= RNG.random(ITEMS // 2) < 0.6
    found = public_private_gap(right.mean(axis=0), public, 1.0)
    assert found is not None
    assert found.action == "flag"
    assert public_private_gap(right.mean(axis=0), public, 100.0) is None
    assert public_private_gap(right.mean(axis=0), np.ones(ITEMS, dtype=bool), 1.0) is None


def test_a_copy_of_the_frequent_answer_is_told_from_a_student_that_errs_alike() -> None:
    frequent = np.asarray((ABILITY + RNG.normal(size=ITEMS) > -0.5) == LABELS)
    assert majority_answer(student(0.7).mean(axis=0) > 0.5, frequent, LABELS) is None
    copied = frequent ^ (RNG.random(ITEMS) < 0.05)
    found = majority_answer(copied, frequent, LABELS)
    assert found is not None
    assert float(found.evidence["excess"]) > 0.75


def make_students() -> Students:
    return Students(
        positive=student(),
        labels=LABELS,
        public=np.ones(ITEMS, dtype=bool),
        noise=RNG.normal(size=ITEMS),
    )


def test_a_detector_that_fails_is_a_finding_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Students) -> None:
        raise ZeroDivisionError("oh")

    last = list(OF_STUDENTS)[-1]
    seen: list[Students] = []
    monkeypatch.setitem(OF_STUDENTS, "watermark", broken)
    monkeypatch.setitem(OF_STUDENTS, last, lambda students: seen.append(students) or None)
    students = make_students()
    [found] = examine(OF_STUDENTS, students)
    assert (found.kind, found.action) == ("detector failed", "note")
    assert found.evidence == {"detector": "watermark", "error": "ZeroDivisionError: oh"}
    assert seen == [students]


def finding(text: str, pgr: float | None, *, at_most: bool = False) -> Finding:
    fields = {"run_id": "run-000001", "agent": "ada", "method": "m", "task": "t", "seeds": 5, "pgr_se": 0.1}
    verified = None if pgr is None else VerifiedResult(**fields, pgr=pgr, at_most=at_most)  # type: ignore[arg-type]
    return Finding(
        finding_id="finding-1",
        kind="insight",
        title="Found",
        text=text,
        author="ada",
        run_id="run-000001",
        verified=verified,
        score=0,
        replies=0,
        posted_at="2026-01-01T00:00:00Z",  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("text", "pgr", "at_most", "action"),
    [
        ("PGR 0.45 it is", 0.45, False, None),
        ("PGR 0.45, up from PGR 0.30", 0.45, False, None),
        ("PGR 0.45, and PGR 0.60 was better", 0.45, False, None),
        ("no number", 0.45, False, None),
        ("PGR 0.95", 0.45, False, "flag"),
        ("PGR 0.60", 0.45, False, "flag"),
        ("PGR 0.45 told, PGR 0.95 in truth", 0.45, False, "flag"),
        ("PGR 0.05", 0.10, True, None),
        ("PGR <= 0.10", 0.10, True, None),
        ("PGR 0.30", 0.10, True, "flag"),
        ("PGR 0.95", None, False, "note"),
    ],
)
def test_a_claim_must_be_what_is_on_record(text: str, pgr: float | None, at_most: bool, action: str | None) -> None:
    board = [one.verified for pgr in (0.3, 0.45, 0.6) if (one := finding("", pgr)).verified]
    found = false_claim(finding(text, pgr, at_most=at_most), board)
    assert (found.action if found else None) == action
