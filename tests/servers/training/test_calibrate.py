"""Calibration with the toy model: resumable, complete, and honest about shortcuts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from outlearn.baseline_votes import SHIPPED, load_votes, votes_path
from outlearn.clusters import design_effect
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError
from outlearn.final_answer import final_answer
from outlearn.gap import public_gap
from outlearn.prepared import Parts, card_markdown
from outlearn.shortcuts import frequent_answer
from outlearn.sources import Example
from outlearn.tasks import Baselines, LabelledItem, SecretTask, SeedBaseline, load_baselines, load_public
from outlearn_training.calibration import calibrate as module
from outlearn_training.calibration.calibrate import calibrate, load_predictions
from outlearn_training.calibration.report import make_report, read_report
from outlearn_training.calibration.sanity import length, majority, shortcut_lines
from outlearn_training.consistency import claim
from outlearn_training.data.templates import compose, responses
from outlearn_training.prepare import prepare, read_calibration, tiny_task
from outlearn_training.testbed.table import as_markdown, make_table


@pytest.fixture
def small_task(monkeypatch: pytest.MonkeyPatch) -> Parts:
    """The tiny math task with so few items that calibration takes seconds."""
    card, pool, secret = tiny_task("math")
    secret = secret.model_copy(
        update={
            "train": secret.train[:40],
            "pool_labels": secret.pool_labels[:64],
            "test": secret.test[:60],
            "public_half": tuple(range(0, 60, 2)),
        }
    )
    card = card.model_copy(update={"pool_size": 64, "test_size": 60})
    from outlearn.tasks import fingerprint

    card = card.model_copy(update={"fingerprint": fingerprint(card, pool[:64], secret)})
    task = (card, pool[:64], secret)
    monkeypatch.setattr(module, "find_task", lambda home, name: task)
    return task


def test_an_interrupted_calibration_goes_on_and_ends_the_same(small_task: Parts, tmp_path: Path) -> None:
    heard: list[str] = []

    def stop_at_the_third(what: str, share: float) -> None:
        heard.append(what)
        if what == "teacher, seed 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(tmp_path / "one", "math", on_progress=stop_at_the_third)
    heard.clear()
    calibrate(tmp_path / "one", "math", on_progress=lambda what, share: heard.append(what))
    teachers = dict.fromkeys(what for what in heard if what.startswith("teacher"))
    assert list(teachers) == [f"teacher, seed {seed}" for seed in (2, 3, 4)]
    calibrate(tmp_path / "other", "math", keep_in=tmp_path / "kept")
    one, other = (load_baselines(tmp_path / name, "math") for name in ("one", "other"))
    assert one == other == read_calibration(tmp_path / "kept")[1]
    labels = [load_public(tmp_path / name, "math").weak_labels(3) for name in ("one", "other")]
    assert np.array_equal(*labels)
    assert {line.name for line in one.lines} >= {"majority class", "length", "zero-shot", "shuffled labels"}


def test_the_report_says_how_the_teachers_are_and_whether_the_gap_is_significant(
    small_task: Parts, tmp_path: Path
) -> None:
    calibrate(tmp_path, "math")
    report, levels = read_report(tmp_path, "math"), load_baselines(tmp_path, "math")
    assert (report.weak_acc, report.seeds) == (round(levels.weak_acc, 4), 5)
    assert report.significant == (report.gap_z > 1.645)
    public = [one.ceiling_public - one.weak_public for one in levels.per_seed]
    assert report.gap == pytest.approx(np.mean(public), abs=1e-4)
    assert sum(one.items for one in report.reliability) == 5 * 64
    assert 0 <= report.agreement <= 1
    with pytest.raises(NotFoundError, match="not calibrated"):
        read_report(tmp_path, "chess")


def test_reliability_compares_labels_with_the_truth_bin_by_bin() -> None:
    one = SeedBaseline(seed=0, weak=0.6, ceiling=0.9, weak_public=0.6, ceiling_public=0.9)
    baselines = Baselines(fingerprint="", per_seed=(one, one.model_copy(update={"seed": 1, "weak": 0.7})))
    labels = [np.array([0.05, 0.95, 0.95]), np.array([0.05, 0.05, 0.95])]
    report = make_report("toy", baselines, labels, np.array([0, 1, 1]), public_items=100)
    assert [(one.items, one.share_true) for one in report.reliability] == [(3, round(1 / 3, 4)), (3, 1.0)]
    assert report.agreement == pytest.approx(2 / 3, abs=1e-4)
    assert report.calibration_error == pytest.approx((abs(0.05 - 1 / 3) + 0.05) / 2, abs=1e-3)


def test_groups_of_test_items_widen_the_errors(small_task: Parts, tmp_path: Path) -> None:
    calibrate(tmp_path, "math")
    levels, report = load_baselines(tmp_path, "math"), read_report(tmp_path, "math")
    found = load_predictions(tmp_path, small_task[0].model_copy(update={"seeds": levels.seeds}))
    _, _, secret = small_task
    rows = list(secret.public_half)
    effects = [
        design_effect(
            np.array([(getattr(one, name) > 0.5) == secret.test_labels for one in found.values()])[:, rows],
            [secret.test[row].group for row in rows],
        )
        for name in ("weak_test", "ceiling_test")
    ]
    assert report.design_effect == pytest.approx(max(effects), abs=1e-3)
    narrow = make_report("math", levels, [np.array([0.5, 0.6])] * 5, np.array([0, 1]), 60)
    grouped = levels.model_copy(update={"design_effect": 4.0})
    wide = make_report("math", grouped, [np.array([0.5, 0.6])] * 5, np.array([0, 1]), 60)
    assert abs(wide.gap_z) < abs(narrow.gap_z)
    assert "variances count 4.0 times" in str(wide)


@pytest.mark.parametrize("ceiling_public", [0.62, 0.68, 0.74, 0.8])
def test_calibration_calls_a_gap_significant_where_evaluation_accepts_it(ceiling_public: float) -> None:
    test = tuple(LabelledItem(id=f"t{i}", text="", group="", label=1 if i % 2 else 0) for i in range(100))
    secret = SecretTask(train=(), pool_labels=(), test=test, public_half=tuple(range(50)))
    per_seed = tuple(
        SeedBaseline(seed=seed, weak=0.6, ceiling=0.78, weak_public=0.6, ceiling_public=ceiling_public)
        for seed in range(5)
    )
    levels = Baselines(fingerprint="", per_seed=per_seed)  # on all items the gap has z = 2.8
    report = make_report("toy", levels, [np.array([0.1, 0.9])] * 5, np.array([0, 1]), len(secret.public_half))
    try:
        public_gap(levels, secret)
        accepted = True
    except InvalidInputError:
        accepted = False
    assert report.significant == accepted == (ceiling_public > 0.75)
    assert ("NOT significant: PGR is undefined" in str(report)) != accepted


def test_the_public_card_for_people_tells_no_test_item_and_no_label(small_task: Parts, tmp_path: Path) -> None:
    card = calibrate(tmp_path, "math")
    text = (tmp_path / "data" / "math" / "card.md").read_text()
    assert text == card_markdown(card)
    assert not any(item.text in text for item in small_task[2].test)
    levels = load_baselines(tmp_path, "math")
    assert not any(str(value) in text for value in (levels.weak_acc, levels.ceiling_acc))


def test_a_changed_profile_is_another_task_of_the_same_data(small_task: Parts, tmp_path: Path) -> None:
    card = calibrate(tmp_path, "math", changes={"student_tuning.lr": "1e-3"})
    assert (card.student_tuning.lr, small_task[0].student_tuning.lr) == (1e-3, 2e-4)
    assert card.fingerprint != small_task[0].fingerprint
    load_baselines(tmp_path, "math")
    heard: list[str] = []
    with pytest.raises(ConflictError, match="models, fine-tuning"):
        calibrate(tmp_path, "math", on_progress=lambda what, share: heard.append(what))
    assert not heard  # refused before anything was trained
    with pytest.raises(InvalidInputError, match=r"student_tuning\.lr"):
        calibrate(tmp_path, "math", changes={"lr": "1"})


def test_other_seeds_in_the_same_home_are_a_conflict(small_task: Parts, tmp_path: Path) -> None:
    calibrate(tmp_path, "math")
    with pytest.raises(ConflictError, match="other contents"):
        calibrate(tmp_path, "math", seeds=range(6))


def test_the_results_table_has_a_row_for_each_method_and_control(small_task: Parts) -> None:
    heard: list[float] = []
    rows = make_table(["math"], lambda what, share: heard.append(share))
    names = [row.method for row in rows]
    assert names[:4] == ["weak", "ceiling", "shuffled", "zero_shot"]
    assert {"vanilla", "confident", "logconf", "ue_zeroshot"} <= set(names[4:])
    assert [row.pgr for row in rows[:2]] == pytest.approx([0, 1])
    assert {row.seeds for row in rows} == {1, 5}
    assert heard == sorted(heard)
    assert as_markdown(rows).count("\n") == len(rows) + 2


def test_votes_are_kept_beside_the_baselines_and_made_again_without_training(small_task: Parts, tmp_path: Path) -> None:
    card = calibrate(tmp_path, "math", keep_in=tmp_path / "kept")
    vault, levels = tmp_path / "vault" / "math", load_baselines(tmp_path, "math")
    votes = load_votes(vault, card.fingerprint)
    assert votes is not None
    for kind, end in ((votes.teachers, "weak"), (votes.ceilings, "ceiling")):
        right = (kind == small_task[2].test_labels).mean(axis=1)
        assert right.tolist() == [getattr(one, end) for one in levels.per_seed]
    path, heard = votes_path(vault, card.fingerprint), list[str]()
    kept = path.read_bytes()
    assert (tmp_path / "kept" / SHIPPED).read_bytes() == kept
    path.unlink()
    assert calibrate(tmp_path, "math", on_progress=lambda what, share: heard.append(what)) == card
    assert heard == ["done"]
    assert path.read_bytes() == kept


def test_few_or_equal_seeds_are_refused(tmp_path: Path) -> None:
    for seeds in (range(4), [0, 0, 1, 2, 3]):
        with pytest.raises(InvalidInputError, match="at least 5 different seeds"):
            calibrate(tmp_path, "math", seeds=seeds)


def test_preparing_twice_changes_nothing(tmp_path: Path) -> None:
    first = prepare(tmp_path, "math")
    files = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert prepare(tmp_path, "math") == first
    assert {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()} == files


def secret_of(train: list[tuple[str, int]], test: list[tuple[str, str, int]]) -> SecretTask:
    return SecretTask(
        train=tuple(LabelledItem(id=str(i), text=t, group=str(i), label=y) for i, (t, y) in enumerate(train)),  # type: ignore[arg-type]
        pool_labels=(),
        test=tuple(LabelledItem(id=str(i), text=t, group=g, label=y) for i, (t, g, y) in enumerate(test)),  # type: ignore[arg-type]
        public_half=tuple(range(len(test))),
    )


def test_shortcuts_are_learnt_from_the_training_items_and_scored_on_the_test_items() -> None:
    secret = secret_of(
        [("a", 1), ("bb", 1), ("cccc", 0), ("d", 1)],
        [("1 so 5", "g", 1), ("2 so 5", "g", 1), ("longer: 7", "g", 0)],
    )
    assert majority(secret).tolist() == [True, True, True]
    assert length(secret).tolist() == [False, False, False]
    assert frequent_answer(secret) is not None
    assert frequent_answer(secret).tolist() == [True, True, False]  # type: ignore[union-attr]
    scores = {line.name: line.accuracy for line in shortcut_lines(secret)}
    assert scores == {
        "majority class": pytest.approx(2 / 3),
        "length": pytest.approx(1 / 3),
        "frequent answer": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so 7 * 3 = \\boxed{21}, not 20", 21.0),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}} by 3", "\\frac{1}{2}"),
        ("it costs 1,000.50.", 1000.5),
        ("x = -5", -5.0),
        ("(12)-5", 5.0),
        ("no number", None),
    ],
)
def test_detectors_and_methods_read_the_same_final_answer(text: str, value: float | str | None) -> None:
    found = final_answer(text)
    assert (found.value if found else None) == value
    item = LabelledItem(id="i", text=f"Proposed solution:\n{text}", group="g", label=1)
    assert claim(item, "math")[1] == (text if value is None else value)
    same, other = (item.model_copy(update={"text": end, "id": end}) for end in (f"again: {text}", "0.123"))
    secret = secret_of([("a", 1)], [(one.text, "g", 1) for one in (item, same, other)])
    assert frequent_answer(secret).tolist() == [True, True, False]  # type: ignore[union-attr]


def as_tiny_chat(prompt: str, a: str, b: str) -> str:
    return f"{prompt}\nA: {a}\nB: {b}"


def as_prepared_chat(prompt: str, a: str, b: str) -> str:
    return compose("chat", Example(1, prompt, prompt, (a, b), 0))


@pytest.mark.parametrize("render", [as_tiny_chat, as_prepared_chat])
def test_in_comparisons_the_length_line_compares_the_two_responses(render: Callable[[str, str, str], str]) -> None:
    pairs = [("x" * 3, "y" * 9), ("x" * 9, "y" * 3), ("x\n" * 200, "y" * 300), ("x" * 8, "y")]
    texts = [render("which?\n1. this\nA: that" + "." * i**3, *pair) for i, pair in enumerate(pairs)]
    secret = secret_of(
        [(text, label) for text, label in zip(texts, (1, 0, 0, 0), strict=True)],
        [(text, "g", label) for text, label in zip(texts, (1, 0, 0, 1), strict=True)],
    )
    assert length(secret).tolist() == [True, False, False, False]
    assert {line.name: line.accuracy for line in shortcut_lines(secret)}["length"] == 0.75


def test_a_text_that_is_no_comparison_has_its_own_length() -> None:
    assert responses("Question:\nA: 4\nC: 5") is None
    assert responses(as_prepared_chat("A: 4\nB: 5", " a ", "b")) == ("a", "b")


def test_a_task_without_groups_has_no_frequent_answer() -> None:
    secret = secret_of([("a", 1)], [("1", "g", 1), ("2", "h", 0)])
    assert frequent_answer(secret) is None
