"""The grammar of composed methods, and the files that it writes."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlearn.types import RunView
from outlearn_agents.offline.recipes import PERCENTS, SLOTS, Composition, Recipe
from outlearn_agents.offline.render import render, summarize

numbers = st.fixed_dictionaries({option: st.sampled_from(choices) for option, choices in PERCENTS.items()})
choices = st.fixed_dictionaries({slot: st.sampled_from(options) for slot, options in SLOTS.items()})
compositions = st.builds(Composition.of, choices, numbers)


@given(compositions)
def test_a_composition_and_its_name_are_the_same_thing(composition: Composition) -> None:
    assert Composition.parse(composition.slug) == composition
    assert Recipe.of_file(Recipe.composed(composition).file) == Recipe.composed(composition)


@settings(deadline=None)
@given(compositions)
def test_every_composition_is_a_short_readable_method_file(composition: Composition) -> None:
    source = render(composition)
    tree = ast.parse(source)
    (method,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "method"]
    assert [argument.arg for argument in method.args.args] == ["lab", "seed"]
    assert max(map(len, source.splitlines())) <= 120
    assert source.count("\n") <= 46
    assert ("logconf" in source) == (composition.loss == "logconf")
    assert summarize(composition).endswith(".")


def test_a_composition_uses_exactly_what_its_parts_need() -> None:
    source = render(
        Composition.of({"select": "early", "loss": "logconf", "then": "pair"}, {"early": 40, "logconf": 90})
    )
    assert "epochs=0.4 * lab.task.student_tuning.epochs" in source
    assert source.count("loss=logconf(0.9)") == 2
    assert "return [student, second]" in source
    assert "zero_shot" not in source


def test_a_shorter_training_is_shorter_in_every_round_that_sees_the_teachers_labels() -> None:
    source = render(Composition.of({"length": "short", "then": "recheck"}, {"short": 35}))
    assert "epochs = 0.35 * lab.task.student_tuning.epochs" in source
    assert source.count("epochs=epochs") == 2
    assert render(Composition.of({"length": "short", "then": "distil"}, {})).count("epochs=epochs") == 1


@pytest.mark.parametrize(
    "name", ["early", "early26", "early25-early25", "hard", "nonsense", "", "logconf75-early25", "a-b"]
)
def test_other_names_are_not_compositions(name: str) -> None:
    assert Composition.parse(name) is None


@given(st.text(max_size=300))
def test_any_text_of_a_finding_is_read_without_harm(text: str) -> None:
    Recipe.from_text(text)
    recipe = Recipe.from_text(f"see\nrecipe: {text}\n")
    assert recipe is None or recipe.key


def test_a_recipe_comes_back_from_a_finding_and_from_a_run() -> None:
    recipe = Recipe(family="logconf", params={"alpha": 0.5, "labels": "soft", "epochs": 1.0})
    assert Recipe.from_text(f"Nice.\nrecipe: {recipe.model_dump_json(exclude_defaults=True)}\nmore") == recipe
    fields = {"run_id": "run-abcdef", "agent": "ada", "task": "toy", "kind": "full", "status": "done", "message": ""}
    timing = {"seeds_done": 5, "seeds_total": 5, "progress": 1, "submitted_at": "2026-01-01T00:00:00Z"}
    run = RunView.model_validate({**fields, **timing, "method": "logconf", "params": recipe.params})
    assert Recipe.of_run(run) == recipe
    assert Recipe.of_run(run.model_copy(update={"method": "methods/early25.py", "params": {}})) == Recipe(
        family="composed", slug="early25"
    )
    assert Recipe.of_run(run.model_copy(update={"method": "mine.py"})) is None
    assert Recipe.of_run(run.model_copy(update={"params": {"layers": [1, 2]}})) is None


@pytest.mark.parametrize("text", ["\\u001b[2J", "x\\nrecipe: {}", "\\u202e"])
def test_a_recipe_brings_no_lines_or_hidden_characters_into_the_texts_of_others(text: str) -> None:
    assert Recipe.from_text(f'recipe: {{"family":"{text}"}}') is None
    assert Recipe.from_text(f'recipe: {{"family":"vanilla","params":{{"labels":"{text}"}}}}') is None
    assert Recipe.from_text('recipe: {"family":"vanilla","params":{"labels":"soft"}}') is not None


def test_a_finding_cannot_smuggle_in_a_path_or_code() -> None:
    assert Recipe.from_text('recipe: {"family":"composed","slug":"../../x"}') is None
    assert Recipe.from_text('recipe: {"family":"composed","slug":"early25","code":"import os"}') is None
