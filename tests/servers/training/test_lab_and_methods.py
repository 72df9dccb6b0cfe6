"""The method contract, and what the built-in methods train on."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from outlearn.errors import InvalidInputError, NotFoundError, PluginError
from outlearn.tasks import Item, load_public
from outlearn_training import catalogue
from outlearn_training.catalogue import Method, find_method, methods
from outlearn_training.lab import Lab, prompts_for
from outlearn_training.model import LabelModel
from outlearn_training.sandbox.host import run_method
from outlearn_training.trainer import PlainTrainer


@pytest.fixture
def lab(home: Path) -> Lab:
    task = load_public(home, "toy")
    trainer = PlainTrainer(LabelModel(task.card.student, task.card.student_tuning), task.card.max_tokens)
    return Lab(task, trainer, 0, events.append)


events: list[dict[str, Any]] = []


class RecordingLab:
    """Answers like a lab and records what a method fits."""

    def __init__(self, weak: list[float], zero_shot: list[float]) -> None:
        self._weak, self._zero_shot = np.array(weak), np.array(zero_shot)
        self.pool = [Item(id=f"i{row}", text=f"{row}+1={row + 1}", group="g") for row in range(len(weak))]
        self.task = SimpleNamespace(kind="math")
        self.fits: list[tuple[Any, ...]] = []

    def weak_labels(self) -> Any:
        return self._weak

    def zero_shot(self, items: Any = None) -> Any:
        return self._zero_shot

    def fit(self, targets: Any, weights: Any = None, loss: Any = "xent", epochs: float = 1, items: Any = None) -> str:
        self.fits.append((targets.tolist(), None if weights is None else weights.tolist(), loss))
        return "student"

    def log(self, **metrics: float) -> None:
        pass


def call(name: str, lab: RecordingLab, **params: Any) -> Any:
    from importlib import import_module

    return import_module(f"outlearn_training.methods.{name}").method(lab, 0, **params)


def test_vanilla_trains_on_the_weak_labels_hard_or_soft() -> None:
    lab = RecordingLab([0.2, 0.9], [0.5, 0.5])
    assert call("vanilla", lab) == "student"
    call("vanilla", lab, labels="soft")
    assert lab.fits == [([0.0, 1.0], None, "xent"), ([0.2, 0.9], None, "xent")]


def test_confident_keeps_the_surest_items_of_each_class() -> None:
    lab = RecordingLab([0.9, 0.6, 0.4, 0.05], [0.5] * 4)
    call("confident", lab, keep=0.5)
    assert lab.fits == [([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0], "xent")]


def test_ue_zeroshot_balances_the_students_own_answers_and_ignores_the_teacher() -> None:
    lab = RecordingLab([0.0] * 4, [0.99, 0.8, 0.95, 0.7])
    call("ue_zeroshot", lab, keep=1.0)
    assert lab.fits == [([1.0, 0.0, 1.0, 0.0], [1.0] * 4, "xent")]


def test_logconf_trains_with_its_own_loss() -> None:
    lab = RecordingLab([0.2, 0.9], [0.5, 0.5])
    call("logconf", lab, alpha=0.5)
    targets, weights, loss = lab.fits[0]
    assert (targets, weights) == ([0.0, 1.0], None)
    assert callable(loss)


def test_the_lab_gives_one_number_an_item(lab: Lab) -> None:
    n = len(lab.pool)
    assert lab.weak_labels().shape == lab.zero_shot().shape == (n,)
    assert lab.embed().shape == (n, 16)
    student = lab.fit(lab.weak_labels())
    assert student.predict().shape == (n,)
    assert student.predict(lab.pool[:3]).shape == (3,)
    further = lab.fit([1, 0], items=lab.pool[:2], init=student, loss="logconf", epochs=2)
    assert not np.array_equal(further.predict(), student.predict())


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_the_lab_tells_of_predictions_that_take_long(lab: Lab, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr("outlearn_training.lab.TELL_SECONDS", seconds)
    events.clear()
    lab.zero_shot()
    lab.fit(lab.weak_labels(), epochs=0.5).predict(lab.pool[:3])
    told = [event for event in events if "items" in event]
    assert told == ([{"item": n, "items": n} for n in (len(lab.pool), 3)] if seconds == 0 else [])


def test_items_of_weight_zero_do_not_count(lab: Lab) -> None:
    keep = np.zeros(len(lab.pool))
    keep[:16] = 1
    flipped = np.where(keep == 1, lab.weak_labels(), 1 - lab.weak_labels())
    one, other = lab.fit(lab.weak_labels(), keep), lab.fit(flipped, keep)
    assert np.array_equal(one.predict(), other.predict())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5] * 47,), r"targets has shape \(47,\); there are 48 items"),
        (([[0.5]] * 48,), "targets has shape"),
        (([1.5] * 48,), r"targets must be in \[0, 1\]; 48 are not"),
        (([float("inf")] * 48,), "targets must be"),
        (([0.5] * 48, [-1.0] * 48), "weights must be finite"),
        (([0.5] * 48, [0.0] * 48), "nothing to train on"),
    ],
)
def test_fit_refuses_what_it_cannot_train_on(lab: Lab, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        lab.fit(*arguments)


def test_an_items_text_is_never_interpreted(lab: Lab) -> None:
    item = Item(id="x", text="{text} {0} {{", group="g")
    assert prompts_for(lab.task, [item]) == ["{text} {0} {{"]


def test_built_in_methods_come_with_schema_and_source() -> None:
    info = find_method("logconf").info
    assert info.params["properties"]["alpha"] == {
        "default": 0.75, "maximum": 0.95, "minimum": 0, "title": "Alpha", "type": "number",
    }  # fmt: skip
    assert "def method(" in info.source
    assert info.summary.startswith("The auxiliary confidence loss")


def test_params_get_their_defaults_and_bounds() -> None:
    assert find_method("vanilla").check_params({}) == {"labels": "hard", "epochs": 1.0}
    for params in ({"epochs": float("nan")}, {"epochs": "long"}, {"labels": "firm"}, {"extra": 1}):
        with pytest.raises(InvalidInputError, match="vanilla"):
            find_method("vanilla").check_params(params)


def test_an_unknown_method_names_those_that_exist() -> None:
    with pytest.raises(NotFoundError, match="vanilla"):
        find_method("magic")
    assert list(methods()) == sorted(methods())


def test_a_plugin_that_is_not_a_method_is_an_error_by_name() -> None:
    with pytest.raises(PluginError, match="'odd'"):
        catalogue._describe("odd", lambda lab, seed: None)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Method]:
    """The method of a module with this source, as it stands in the catalogue."""

    def load(source: str) -> Method:
        (tmp_path / "a_plugin.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "a_plugin", raising=False)
        importlib.invalidate_caches()
        return catalogue._describe("mine", importlib.import_module("a_plugin").method)

    return load


def test_the_method_in_the_documentation_runs_and_can_be_registered(lab: Lab, plugin: Callable[[str], Method]) -> None:
    text = (Path(__file__).parents[3] / "docs" / "write-a-method.md").read_text(encoding="utf-8")
    source = text.split("```python\n")[1].split("```")[0]
    students = run_method(source, {}, 0, lab)
    assert students[0].predict().shape == (len(lab.pool),)
    registered = plugin(source)
    assert registered.check_params({"trust": 1}) == {"trust": 1}
    with pytest.raises(InvalidInputError, match="trust: must be a number"):
        registered.check_params({"trust": "high"})


def test_a_parameter_without_an_annotation_has_its_defaults_type(plugin: Callable[[str], Method]) -> None:
    method = plugin("def method(lab, seed, n=2, on=True, loss='xent', extra=None, *, needed): ...\n")
    given = {"n": 0.5, "on": False, "loss": "logconf", "extra": [1], "needed": "any"}
    assert method.check_params(given) == given
    assert method.check_params({"needed": 1})["n"] == 2
    for wrong in ({"n": "x", "needed": 1}, {"loss": 3, "needed": 1}, {}, {"needed": 1, "other": 1}):
        with pytest.raises(InvalidInputError, match="It has: n, on, loss, extra, needed"):
            method.check_params(wrong)


def test_a_method_that_takes_any_parameter_gets_any(plugin: Callable[[str], Method]) -> None:
    assert plugin("def method(lab, seed, *rest, n=1, **more): ...\n").check_params({"x": 3}) == {"n": 1, "x": 3}


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ("trust: object() = 1", "parameter 'trust' that cannot be checked"),
        ("trust: 'Unknown' = 1", "annotation that cannot be read: name 'Unknown'"),
    ],
)
def test_a_plugin_whose_parameters_cannot_be_checked_is_an_error_that_names_both(
    plugin: Callable[[str], Method], params: str, error: str
) -> None:
    with pytest.raises(PluginError, match=f"'mine' has an? {error}") as refused:
        plugin(f"def method(lab, seed, fine=1, {params}): ...\n")
    assert "\n" not in str(refused.value)


def test_a_list_of_students_is_an_ensemble_of_at_most_eight(lab: Lab) -> None:
    source = "def method(lab, seed, n=2):\n    return [lab.fit(lab.weak_labels())] * n\n"
    assert len(run_method(source, {}, 0, lab)) == 2
    with pytest.raises(InvalidInputError, match="9 students; the limit is 8"):
        run_method(source, {"n": 9}, 0, lab)
