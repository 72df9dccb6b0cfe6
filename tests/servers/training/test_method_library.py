"""Every built-in method on a toy task, and the numerics of those that estimate something."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from outlearn.tasks import Floats, Item, load_public
from outlearn_training.catalogue import find_method, methods
from outlearn_training.consistency import (
    balanced,
    claim,
    consistent_scores,
    flips,
    log_odds,
    reconcile,
    surest,
    with_flips,
)
from outlearn_training.fast.trainer import student_trainer
from outlearn_training.lab import Lab, prompts_for
from outlearn_training.methods import em_denoise, probe, reweight, ue_fewshot
from outlearn_training.sandbox.host import run_method

LIBRARY = {
    "confident", "critic", "distil_iterated", "em_denoise", "ensemble", "logconf", "probe", "reweight", "self_train",
    "ue_fewshot", "ue_zeroshot", "vanilla",
}  # fmt: skip
DOCS = Path(__file__).parents[3] / "docs"
SOLUTION = "Question:\nHow many?\n\nProposed solution:\n{}"


def items_of(texts: Sequence[str]) -> list[Item]:
    return [Item(id=f"i{index}", text=text, group="g") for index, text in enumerate(texts)]


@pytest.fixture
def lab(home: Path) -> Lab:
    task = load_public(home, "toy")
    return Lab(task, student_trainer(task.card), 0, lambda event: None)


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_each_built_in_method_gives_students_the_same_every_time(name: str, lab: Lab) -> None:
    method = find_method(name)
    one, other = (run_method(method.info.source, method.check_params({}), 0, lab) for _ in range(2))
    assert 1 <= len(one) <= 8
    for first, second in zip(one, other, strict=True):
        assert np.isfinite(first.predict()).all()
        assert np.array_equal(first.predict(), second.predict())


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("distil_iterated", {"labels": "soft"}),
        ("ensemble", {"loss": "xent", "members": 2}),
        ("probe", {"kind": "logistic"}),
        ("critic", {"ask": " is odd"}),
        ("em_denoise", {"bands": 1, "rounds": 1}),
    ],
)
def test_other_parameters_give_other_students(name: str, params: dict[str, object], lab: Lab) -> None:
    method = find_method(name)
    usual, changed = (
        np.mean([one.predict() for one in run_method(method.info.source, method.check_params(given), 0, lab)], axis=0)
        for given in ({}, params)
    )
    assert not np.array_equal(usual, changed)


def test_every_method_names_its_source_and_is_short() -> None:
    for name in LIBRARY:
        info = methods()[name].info
        assert re.search(r"Source: .*\d{4}", info.source), name
        assert info.source.count("\n") <= 80, name
        assert all("default" in field for field in info.params["properties"].values()), name


def test_the_documentation_states_what_was_measured() -> None:
    rows = json.loads((DOCS / "results" / "testbed.json").read_text(encoding="utf-8"))
    lines = (DOCS / "methods.md").read_text(encoding="utf-8").splitlines()
    head = next(line for line in lines if line.startswith("| method |"))
    for name in LIBRARY:
        line = next(line for line in lines if line.startswith(f"| `{name}` |"))
        found = [row for row in rows if row["method"] == name and f"PGR {row['task']}" in head]
        assert len(found) == head.count("PGR"), name
        for row in found:
            assert f"{row['pgr']:.2f} ± {row['pgr_se']:.2f}" in line, (name, row["task"])


@pytest.mark.parametrize("bands", [1, 4])
@pytest.mark.parametrize("noise", [(0.1, 0.4), (0.3, 0.3), (0.0, 0.2)])
def test_em_recovers_the_noise_of_a_channel(noise: tuple[float, float], bands: int) -> None:
    rng = np.random.default_rng(0)
    prior = rng.beta(0.7, 0.7, size=20_000)
    truth = rng.uniform(size=len(prior)) < prior
    flipped = rng.uniform(size=len(prior)) < np.where(truth, noise[1], noise[0])
    weak = np.where(truth ^ flipped, 0.9, 0.1) + rng.uniform(-0.05, 0.05, size=len(prior))
    said = em_denoise.symbols(weak, bands)
    posterior, channel = em_denoise.estimate_channel(prior, said)
    assert channel[0, bands:].sum() == pytest.approx(noise[0], abs=0.03)
    assert channel[1, :bands].sum() == pytest.approx(noise[1], abs=0.03)
    assert ((posterior > 0.5) == truth).mean() > max(((weak > 0.5) == truth).mean(), ((prior > 0.5) == truth).mean())


def test_em_trusts_the_bands_in_which_the_teacher_is_right() -> None:
    rng = np.random.default_rng(0)
    prior = rng.choice([0.2, 0.8], size=20_000)
    truth, sure = rng.uniform(size=len(prior)) < prior, rng.uniform(size=len(prior)) < 0.5
    wrong = rng.uniform(size=len(prior)) < np.where(sure, 0.05, 0.45)
    margin = np.where(sure, 0.3, 0.1) + rng.uniform(0, 0.1, size=len(prior))
    weak = np.where(truth ^ wrong, 0.5 + margin, 0.5 - margin)
    posterior, _ = em_denoise.estimate_channel(prior, em_denoise.symbols(weak, 2))
    error = np.where(weak > 0.5, 1 - posterior, posterior)
    assert error[sure].mean() == pytest.approx(0.05, abs=0.02)
    assert error[~sure].mean() == pytest.approx(0.45, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(1, 8))
def test_em_gives_probabilities_for_any_labels(weak: list[float], bands: int) -> None:
    labels = np.array(weak)
    said = em_denoise.symbols(labels, bands)
    assert said.min() >= 0
    assert said.max() < 2 * bands
    posterior, channel = em_denoise.estimate_channel(balanced(labels), said)
    assert ((posterior > 0) & (posterior < 1)).all()
    assert np.allclose(channel.sum(1), 1)


def test_a_logistic_probe_finds_the_optimum_of_its_objective() -> None:
    rng = np.random.default_rng(0)
    states, direction = rng.normal(size=(4000, 5)), np.array([2.0, -1.0, 0.5, 0.0, 0.0])
    labels = (rng.uniform(size=len(states)) < 1 / (1 + np.exp(-states @ direction - 1))).astype(float)
    found = probe.logistic(states, labels, ridge=1.0)
    assert found == pytest.approx(direction, abs=0.2)
    assert np.abs(probe.logistic(states, labels, ridge=100.0)).sum() < np.abs(found).sum()


def test_a_logistic_probe_of_separable_classes_stays_finite() -> None:
    states = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    assert np.isfinite(probe.logistic(states, np.array([0.0, 0.0, 1.0, 1.0]), ridge=1e-4)).all()


def test_the_difference_of_means_points_from_one_class_to_the_other() -> None:
    states = np.array([[0.0, 1.0], [2.0, 1.0], [5.0, 1.0]])
    assert probe.mean_difference(states, np.array([0.0, 0.0, 1.0])).tolist() == [4.0, 0.0]


class WeighingLab:
    """Answers like a lab and keeps the weights of the one fit."""

    def __init__(self, weak: Floats, own: Floats) -> None:
        self._weak, self._own = weak, own
        self.weights = np.array([])

    def weak_labels(self) -> Floats:
        return self._weak

    def zero_shot(self) -> Floats:
        return self._own

    def fit(self, targets: Floats, weights: Floats, epochs: float) -> None:
        self.weights = weights

    def log(self, **metrics: float) -> None:
        pass


def test_reweight_gives_both_classes_the_same_weight_and_trust_to_agreement() -> None:
    lab = WeighingLab(np.array([0.9, 0.9, 0.6, 0.1, 0.2]), np.array([0.9, 0.2, 0.8, 0.1, 0.7]))
    reweight.method(lab, 0, teacher=1.0, prior=1.0)
    assert lab.weights[:3].sum() == pytest.approx(2.5)
    assert lab.weights[3:].sum() == pytest.approx(2.5)
    assert lab.weights[0] > lab.weights[1]
    assert lab.weights[0] > lab.weights[2]
    assert lab.weights[3] > lab.weights[4]


def test_fewshot_shows_items_with_their_labels_before_the_one_it_asks(lab: Lab) -> None:
    asked: list[str] = []
    lab.zero_shot = lambda items: asked.extend(item.text for item in items) or np.full(len(items), 0.5)  # type: ignore[method-assign, assignment, return-value]
    ask = ue_fewshot.asker(lab, [3, 7], np.where(np.arange(48) == 7, 1.0, -1.0))
    ask(lab.pool[:1])
    assert asked == ["3 is odd False\n7 is odd True\n0 is odd"]


def test_fewshot_shows_items_in_the_words_of_the_tasks_template(lab: Lab) -> None:
    asked: list[str] = []
    lab.task = lab.task.model_copy(update={"template": "Q: {text}\nLabel:"})
    lab.zero_shot = lambda items: asked.extend(prompts_for(lab.task, items)) or np.full(len(items), 0.5)  # type: ignore[method-assign, assignment, return-value]
    ue_fewshot.asker(lab, [7], np.ones(48))(lab.pool[:1])
    assert asked == ["Q: 7 is odd\nLabel: True\n\nQ: 0 is odd\nLabel:"]


@given(st.data())
def test_at_most_one_of_several_answers_to_a_question_is_held_to_be_right(data: st.DataObject) -> None:
    claims = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
    scores = np.array([data.draw(st.floats(-10, 10)) for _ in claims])
    fixed = reconcile(scores, claims, exclusive=True)
    for question in {question for question, _ in claims}:
        right = {claims[row][1] for row in np.flatnonzero(fixed > 0) if claims[row][0] == question}
        assert len(right) <= 1
    for one in set(claims):
        assert len({score for other, score in zip(claims, fixed, strict=True) if other == one}) == 1


def test_equal_programs_agree_and_others_do_not_contradict_each_other() -> None:
    texts = ["#plus:1\nreturn:x+1", "#minus:-1\nreturn:x+1", "#plus:1\nreturn:1+x"]
    claims = [claim(item, "code") for item in items_of(texts)]
    assert claims[0] == claims[1] != claims[2]
    assert reconcile(np.array([1.0, 3.0, 4.0]), claims, exclusive=False).tolist() == [2.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("text", "other", "same_question", "same_answer"),
    [
        ("40-27=13", "40-27=14", True, False),
        ("40-27=13", "40-26=13", False, True),
        ("3x+1=13 x=4", "3x+1=13 x=5", True, False),
        (SOLUTION.format("3 and 4 make 7."), SOLUTION.format("It is 7.0"), True, True),
        (SOLUTION.format(r"\boxed{\frac{1}{2}}, not 3"), SOLUTION.format(r"so \boxed{\frac{1}{3}}"), True, False),
        (SOLUTION.format("1,200"), SOLUTION.format("1200"), True, True),
        ("no number here", "nor here", False, False),
    ],
)
def test_a_claim_is_a_question_with_its_final_answer(
    text: str, other: str, same_question: bool, same_answer: bool
) -> None:
    one, two = (claim(item, "math") for item in items_of([text, other]))
    assert ((one[0] == two[0]), (one[1] == two[1])) == (same_question, same_answer)


TINY, REAL = "name 2 hats\nA: cap boot\nB: cap hood", "Instruction:\nHi\n\nResponse A:\nx\ny\n\nResponse B:\nz"


def test_flipping_a_comparison_exchanges_its_responses() -> None:
    flipped = flips(items_of([TINY, REAL]))
    assert [item.text for item in flipped] == [
        "name 2 hats\nA: cap hood\nB: cap boot",
        "Instruction:\nHi\n\nResponse A:\nz\n\nResponse B:\nx\ny",
    ]
    assert [item.text for item in flips(flipped)] == [TINY, REAL]
    assert flips(items_of([TINY, "1+1=2"])) == []


def test_comparisons_are_asked_in_both_orders_and_trained_in_both() -> None:
    items = items_of([TINY, REAL, TINY.replace("name", "give")])
    answers = {TINY: 0.9, REAL: 0.8, items[2].text: 0.7}  # and 0.8 in the other order
    scores = consistent_scores(lambda asked: np.array([answers.get(item.text, 0.8) for item in asked]), items, "chat")
    odds = log_odds(np.array([0.9, 0.8, 0.7]))
    assert scores == pytest.approx((odds - odds[1]) / 2)
    both, labels, weights = with_flips(items, np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]))
    assert [item.text for item in both[3:]] == [item.text for item in flips(items)]
    assert (labels.tolist(), weights.tolist()) == ([1, 0, 0, 0, 1, 1], [1, 1, 0, 1, 1, 0])


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=60), st.floats(0.05, 1))
def test_the_surest_labels_are_balanced(values: list[float], keep: float) -> None:
    labels, weights = surest(np.array(values), keep)
    assert labels.sum() == len(values) // 2
    assert weights.sum() >= 1
    kept = labels[weights > 0]
    assert abs(kept.sum() - (1 - kept).sum()) <= 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_log_odds_are_finite_and_rise_with_the_probability(values: list[float]) -> None:
    odds = log_odds(np.sort(np.array(values)))
    assert np.isfinite(odds).all()
    assert (np.diff(odds) >= 0).all()
