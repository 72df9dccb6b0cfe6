"""The search space and what the planner proposes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from outlearn.types import MethodInfo, RunView
from outlearn_agents.offline.pace import Pace
from outlearn_agents.offline.planner import Planner, Result, openings
from outlearn_agents.offline.recipes import Composition, Recipe
from outlearn_agents.offline.space import Space

SCHEMA: dict[str, Any] = {
    "$defs": {"Kind": {"enum": ["a", "b"], "type": "string"}},
    "properties": {
        "alpha": {"default": 0.75, "maximum": 0.95, "minimum": 0, "type": "number"},
        "rounds": {"default": 2, "exclusiveMaximum": 5, "exclusiveMinimum": 0, "type": "integer"},
        "lr": {"default": 0.001, "maximum": 0.1, "minimum": 0.0001, "type": "number"},
        "labels": {"default": "hard", "enum": ["hard", "soft"], "type": "string"},
        "kind": {"$ref": "#/$defs/Kind", "default": "a"},
        "flag": {"default": False, "type": "boolean"},
        "free": {"default": 3.0, "type": "number"},
        "maybe": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
    },
}
NAMES = ("vanilla", "confident", "logconf", "ue_zeroshot")


class FirstChoice:
    """Chooses the lowest or first value, and remembers what it was asked."""

    def __init__(self, family: str) -> None:
        self.family = family
        self.asked: dict[str, Any] = {}

    def choose(self, name: str, distribution: Any) -> Any:
        self.asked[name] = distribution
        if name == "family":
            return self.family
        return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low


def space(schema: dict[str, Any] | None = None) -> Space:
    learns = dict.fromkeys(NAMES, True) | {"ue_zeroshot": False}
    infos = [MethodInfo(name=name, summary="", params=schema or {}, uses_weak_labels=learns[name]) for name in NAMES]
    return Space(tuple(infos))


def result(recipe: Recipe, pgr: float, number: int, agent: str = "boole") -> Result:
    run_id = f"run-{number:06d}"
    return Result(run_id=run_id, agent=agent, recipe=recipe, pgr=pgr, pgr_se=0.02, finding_id=f"finding-{number}")


def composed(slug: str) -> Recipe:
    return Recipe(family="composed", slug=slug)


def test_the_search_space_follows_each_parameters_json_schema() -> None:
    chooser = FirstChoice("logconf")
    recipe = space(SCHEMA).suggest(chooser)
    assert chooser.asked["logconf.alpha"] == FloatDistribution(0, 0.95)
    assert chooser.asked["logconf.rounds"] == IntDistribution(1, 4)
    assert chooser.asked["logconf.lr"] == FloatDistribution(0.0001, 0.1, log=True)
    assert chooser.asked["logconf.kind"] == CategoricalDistribution(("a", "b"))
    assert "logconf.free" not in chooser.asked
    assert "logconf.maybe" not in chooser.asked
    assert recipe.params == {
        "alpha": 0, "rounds": 1, "lr": 0.0001, "labels": "hard", "kind": "a", "flag": False, "free": 3.0,
    }  # fmt: skip


def test_a_method_that_ignores_the_teacher_is_a_reference_and_not_searched() -> None:
    assert space().named("ue_zeroshot") == Recipe(family="ue_zeroshot")
    chooser = FirstChoice("logconf")
    space().suggest(chooser)
    assert chooser.asked["family"].choices == ("confident", "logconf", "vanilla", "composed")


def test_recipes_outside_of_the_space_are_known_as_such() -> None:
    assert space(SCHEMA).distributions(Recipe(family="logconf", params={"alpha": 7.0})) is None
    assert space(SCHEMA).distributions(Recipe(family="from_a_plugin")) is None
    assert space().distributions(composed("early25-recheck")) is not None


@pytest.mark.parametrize(
    ("direction", "first"),
    [
        ("Look at early students and iterate.", "early25"),
        ("The student knows more than it says: elicit it.", "ue_zeroshot"),
        ("Which labels to trust, and how to select the data", "confident"),
        ("The labels are noisy; a confident student keeps its opinion.", "logconf"),
        ("Something else altogether.", "vanilla"),
    ],
)
def test_the_direction_decides_where_the_search_begins(direction: str, first: str) -> None:
    planner = Planner(space(), "ada", direction, seed=0)
    proposal = planner.propose([], lambda _: True)
    assert proposal is not None
    assert first in (proposal.recipe.family, proposal.recipe.slug)
    assert openings(direction, space())[0] == proposal.recipe


def test_the_same_seed_and_results_give_the_same_proposals() -> None:
    def proposals(seed: int) -> list[str]:
        planner = Planner(space(SCHEMA), "ada", "trust", seed)
        taken: list[Recipe] = []
        for number in range(12):
            proposal = planner.propose(taken, lambda _: True)
            assert proposal is not None
            taken.append(proposal.recipe)
            planner.learn(result(proposal.recipe, pgr=(number * 7 % 5) / 5, number=number, agent="ada"))
        return [recipe.key for recipe in taken]

    assert proposals(3) == proposals(3)
    assert proposals(3) != proposals(4)
    assert len(set(proposals(3))) == 12


def test_it_builds_on_what_others_found_and_says_on_what() -> None:
    planner = Planner(space(), "ada", "trust", seed=1)
    planner.learn(result(composed("early25"), 0.9, 1))
    planner.learn(result(composed("logconf75"), 0.7, 2, "curie"))
    taken = [*openings("trust", space()), *(one for name in space().families if (one := space().named(name)))]
    built = [proposal for _ in range(60) if (proposal := planner.propose(taken, lambda _: True)) and proposal.parents]
    assert built
    for proposal in built:
        made = proposal.recipe.composition
        parent = proposal.parents[0].recipe.composition
        assert made is not None
        assert parent is not None
        changed = [slot for slot in made.choices if made.choices[slot] != parent.choices[slot]]
        assert len(changed) <= 1
        assert "->" in proposal.reason
    assert {proposal.parents[0].finding_id for proposal in built} <= {"finding-1", "finding-2"}
    crossed = [proposal for proposal in built if len(proposal.parents) == 2]
    assert any(proposal.recipe.slug == "early25-logconf75" for proposal in crossed)


def test_agents_that_know_the_same_survey_different_methods() -> None:
    known = [result(openings("trust", space())[0], 0.5, 1, "ada"), result(composed("early25"), 0.5, 2, "boole")]
    surveyed = []
    for agent in ("ada", "boole"):
        planner = Planner(space(), agent, "trust", seed=1)
        for one in known:
            planner.learn(one)
        proposal = planner.propose([], lambda _: True)
        assert proposal is not None
        assert proposal.reason == "nobody has tried it yet"
        surveyed.append(proposal.recipe.family)
    assert len(set(surveyed)) == 2


def test_what_others_are_trying_is_not_proposed_until_they_are_done_with_it() -> None:
    planner, claimed = Planner(space(), "ada", "trust", seed=1), openings("trust", space())[:1]
    reasons = []
    while len(claimed) < 12:
        proposal = planner.propose([], lambda _: True, claimed)
        assert proposal is not None
        assert proposal.recipe.same_as not in {recipe.same_as for recipe in claimed}
        claimed.append(proposal.recipe)
        reasons.append(proposal.reason)
    assert reasons.count("nobody has tried it yet") == 2
    freed = planner.propose([], lambda _: True, [])
    assert freed is not None
    assert freed.recipe == claimed[0]


@pytest.mark.parametrize(
    "params", [{"alpha": "x"}, {"alpha": float("nan")}, {"rounds": 1.5}, {"rounds": "2"}, {"lr": -1}, {"lr": "x"}]
)
def test_no_recipe_that_others_state_stops_the_search(params: dict[str, Any]) -> None:
    stated = Recipe(family="logconf", params={**openings("confident", space(SCHEMA))[0].params, **params})
    for results, claimed in (([result(stated, 2.0, 900, "mallory")], []), ([], [stated])):
        planner, taken = Planner(space(SCHEMA), "ada", "trust", seed=1), list[Recipe]()
        for one in results:
            planner.learn(one)
        for number in range(20):
            proposal = planner.propose(taken, lambda _: True, claimed)
            assert proposal is not None
            taken.append(proposal.recipe)
            planner.learn(result(proposal.recipe, 0.3, number, "ada"))


def test_of_equal_answers_the_one_whose_method_did_well_otherwise_ranks_first() -> None:
    planner = Planner(space(SCHEMA), "ada", "trust", seed=1)
    lucky, tuned = space(SCHEMA).named("vanilla"), space(SCHEMA).named("logconf")
    assert lucky is not None
    assert tuned is not None
    planner.learn(result(lucky, 0.9, 1))
    planner.learn(result(lucky.model_copy(update={"params": {**lucky.params, "labels": "soft"}}), 0.5, 2))
    planner.learn(result(tuned, 0.9, 3))
    planner.learn(result(tuned.model_copy(update={"params": {**tuned.params, "alpha": 0.5}}), 0.9, 4))
    assert [one.recipe.family for one in planner.results[:2]] == ["logconf", "logconf"]


def test_every_registered_method_is_tried_and_a_good_one_tuned() -> None:
    planner, taken = Planner(space(SCHEMA), "ada", "trust", seed=1), []
    for number in range(25):
        proposal = planner.propose(taken, lambda _: True)
        assert proposal is not None
        taken.append(proposal.recipe)
        pgr = 0.9 if proposal.recipe.family == "logconf" else 0.3
        planner.learn(result(proposal.recipe, pgr, number, "ada"))
    assert {recipe.family for recipe in taken} >= set(space(SCHEMA).families)
    assert sum(recipe.family == "logconf" for recipe in taken) >= 3


def test_nothing_is_proposed_twice_or_when_nothing_fits() -> None:
    planner = Planner(space(), "ada", "trust", seed=0)
    planner.learn(result(composed("early25"), 0.9, 1))
    assert planner.propose([], lambda _: False) is None
    taken: list[Recipe] = []
    while (proposal := planner.propose(taken, lambda _: True)) is not None and len(taken) < 60:
        assert proposal.recipe not in taken
        assert proposal.recipe.slug != "early25"
        taken.append(proposal.recipe)


def test_luck_counts_for_less_than_a_sure_result() -> None:
    planner = Planner(space(), "ada", "trust", seed=0)
    lucky = result(composed("early25"), 0.8, 1).model_copy(update={"pgr_se": 0.2})
    planner.learn(lucky)
    planner.learn(result(composed("logconf75"), 0.75, 2))
    assert planner.results[0].recipe.slug == "logconf75"


def test_a_finding_that_comes_after_its_number_is_remembered() -> None:
    planner = Planner(space(), "ada", "trust", seed=0)
    late = result(composed("early25"), 0.8, 1)
    assert planner.learn(late.model_copy(update={"finding_id": None}))
    assert not planner.learn(late)
    assert planner.results[0].finding_id == "finding-1"


def test_built_in_methods_count_as_the_compositions_they_amount_to() -> None:
    soft = Recipe(family="logconf", params={"labels": "soft"}).as_composition()
    assert soft == Composition.of({"loss": "logconf", "target": "soft"}, {})
    sharp = Recipe(family="confident", params={"keep": 0.28}).as_composition()
    assert sharp == Composition.of({"select": "confident"}, {"confident": 30})
    assert Recipe(family="ue_zeroshot").as_composition() is None


@pytest.mark.parametrize(
    ("family", "params", "slug"),
    [
        ("vanilla", {"labels": "hard", "epochs": 1.0}, "plain"),
        ("logconf", {"alpha": 0.9, "warmup": 0.2, "labels": "soft", "epochs": 1.0}, "soft-logconf90"),
        ("logconf", {"alpha": 0.6}, None),
        ("logconf", {"alpha": 0.75, "warmup": 0.5}, None),
        ("vanilla", {"epochs": 2.0}, None),
        ("confident", {"keep": 0.5}, None),
    ],
)
def test_a_method_is_not_tried_again_under_another_name(family: str, params: dict[str, Any], slug: str | None) -> None:
    recipe = Recipe(family=family, params=params)
    assert recipe.same_as == (composed(slug).key if slug else recipe.key)


def test_the_pace_of_runs_counts_waiting_and_work() -> None:
    pace = Pace()
    assert pace.seconds(composed("early25")) == 0
    start = datetime(2026, 1, 1, tzinfo=UTC)
    fields: dict[str, Any] = {
        "run_id": "run-abcdef", "agent": "ada", "task": "toy", "method": "vanilla", "params": {"epochs": 1.0},
        "kind": "full", "seeds_done": 5, "seeds_total": 5, "progress": 1, "message": "", "submitted_at": start,
        "started_at": start + timedelta(seconds=10), "finished_at": start + timedelta(seconds=40),
    }  # fmt: skip
    pace.note(RunView(**fields, status="failed"))
    assert pace.seconds(composed("plain")) == 0
    pace.note(RunView(**fields, status="done"))
    assert pace.seconds(composed("plain")) == pytest.approx(1.15 * 40)
    assert pace.seconds(composed("early25-pair")) > pace.seconds(composed("early25")) > 1.15 * 40
    assert pace.seconds(Recipe(family="vanilla", params={"epochs": 4.0})) > 1.15 * 90
    ensemble = Recipe(family="ensemble", params={"epochs": 1.0, "members": 4, "loss": "xent"})
    assert pace.seconds(ensemble) == pytest.approx(pace.seconds(Recipe(family="vanilla", params={"epochs": 4.0})))
    assert pace.seconds(Recipe(family="self_train", params={"first": 0.5, "rounds": 2})) > pace.seconds(ensemble) / 2
