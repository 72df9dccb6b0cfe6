"""The search space: registered methods by the JSON schema of their parameters, and compositions by their grammar."""

import math
import random
from typing import Any, Protocol

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from outlearn.types import MethodInfo
from outlearn_agents.offline.recipes import COMPOSED, PERCENTS, SLOTS, Composition, Recipe, Scalar

Assignment = dict[str, Scalar]
FAMILY = "family"
LOG_RATIO = 50.0
CLOSE = 0.05
STRIDE = 0.2


class Chooser(Protocol):
    """Picks a value for a named parameter, as an optuna trial does."""

    def choose(self, name: str, distribution: BaseDistribution) -> Any: ...


class Space:
    """All recipes, as assignments of values to named parameters such as `logconf.alpha` or `composed.select`.

    A registered method that never asks for the weak labels learns nothing from the teacher. It is a reference to
    compare with: it can be named, but is not searched.
    """

    def __init__(self, methods: tuple[MethodInfo, ...]) -> None:
        searched = [method for method in methods if method.name != COMPOSED and method.uses_weak_labels]
        self._params = {method.name: _distributions(method.params) for method in searched}
        self._defaults = {method.name: _defaults(method.params) for method in methods}
        self._family = CategoricalDistribution((*sorted(self._params), COMPOSED))

    @property
    def families(self) -> list[str]:
        """The registered methods that are searched."""
        return sorted(self._params)

    def suggest(self, chooser: Chooser) -> Recipe:
        """The recipe that `chooser` builds, one choice after the other."""
        family = str(chooser.choose(FAMILY, self._family))
        if family != COMPOSED:
            chosen = {name: chooser.choose(f"{family}.{name}", one) for name, one in self._params[family].items()}
            return Recipe(family=family, params={**self._defaults[family], **chosen})
        choices = {slot: chooser.choose(f"{COMPOSED}.{slot}", _slot(slot)) for slot in SLOTS}
        percents = {
            option: int(chooser.choose(f"{COMPOSED}.{option}", _percent(option)))
            for option in choices.values()
            if option in PERCENTS
        }
        return Recipe.composed(Composition.of(choices, percents))

    def named(self, name: str) -> Recipe | None:
        """The registered method of this name with its defaults, or the composition, or None."""
        if name in self._defaults:
            return Recipe(family=name, params=self._defaults[name])
        composition = Composition.parse(name)
        return Recipe.composed(composition) if composition else None

    def assign(self, recipe: Recipe) -> Assignment:
        """The choices that lead to `recipe`; those of its parameters that are not searched are left out."""
        if (composition := recipe.composition) is not None:
            slots = {f"{COMPOSED}.{slot}": option for slot, option in composition.choices.items()}
            return {FAMILY: COMPOSED, **slots, **{f"{COMPOSED}.{name}": value for name, value in composition.percents}}
        known = self._params.get(recipe.family, {})
        return {FAMILY: recipe.family} | {
            f"{recipe.family}.{name}": value for name, value in recipe.params.items() if name in known
        }

    def is_close(self, one: Recipe, two: Recipe) -> bool:
        """Whether two recipes of one registered method differ by too little to learn anything from both."""
        if one.family != two.family or one.family not in self._params:
            return one == two
        searched = self._params[one.family].items()
        return all(_is_close(known, one.params.get(name), two.params.get(name)) for name, known in searched)

    def near(self, recipe: Recipe, rng: random.Random) -> Recipe:
        """A registered method with about half of its searched parameters moved by some fifth of their range."""
        searched = self._params.get(recipe.family, {})
        names = [name for name in searched if rng.random() < 0.5] or list(searched)
        kept = [name for name in names if _holds(searched[name], recipe.params.get(name))]  # others may claim anything
        moved = {name: _moved(searched[name], recipe.params[name], rng) for name in kept}
        return recipe.model_copy(update={"params": {**recipe.params, **moved}})

    def distributions(self, recipe: Recipe) -> dict[str, BaseDistribution] | None:
        """The distributions behind `assign(recipe)`, or None where the recipe lies outside of the space."""
        if recipe.family not in self._family.choices:
            return None
        found: dict[str, BaseDistribution] = {}
        for name, value in self.assign(recipe).items():
            option = name.removeprefix(f"{COMPOSED}.")
            if name == FAMILY:
                found[name] = self._family
            elif recipe.family != COMPOSED:
                found[name] = self._params[recipe.family][name.removeprefix(f"{recipe.family}.")]
            else:
                found[name] = _slot(option) if option in SLOTS else _percent(option)
            if not _holds(found[name], value):
                return None
        return found


def _moved(distribution: BaseDistribution, value: Scalar, rng: random.Random) -> Scalar:
    """Another value: any choice, or a number at a normal distance of a fifth of the range."""
    if isinstance(distribution, CategoricalDistribution):
        chosen: Scalar = rng.choice(distribution.choices)
        return chosen
    low, high, at = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    there = min(high, max(low, rng.gauss(at, STRIDE * (high - low))))
    there = math.exp(there) if distribution.log else there
    return round(there) if isinstance(distribution, IntDistribution) else float(f"{there:.3g}")


def _is_close(distribution: BaseDistribution, one: Scalar | None, two: Scalar | None) -> bool:
    """Equal, or numbers within a twentieth of the range."""
    if isinstance(distribution, CategoricalDistribution):
        return one == two
    numbers = [float(value) for value in (one, two) if value is not None and _holds(distribution, value)]
    if len(numbers) < 2:
        return one == two
    return bool(abs(numbers[0] - numbers[1]) <= CLOSE * (distribution.high - distribution.low))


def _defaults(schema: dict[str, Any]) -> dict[str, Scalar]:
    """The default of each parameter that has a plain one."""
    properties = schema.get("properties", {}).items()
    return {name: prop["default"] for name, prop in properties if isinstance(prop.get("default"), str | int | float)}


def _holds(distribution: BaseDistribution, value: Scalar | None) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(value, int | float) or not distribution.low <= value <= distribution.high:
        return False
    return isinstance(distribution, FloatDistribution) or value == int(value)


def _slot(slot: str) -> CategoricalDistribution:
    return CategoricalDistribution(SLOTS[slot])


def _percent(option: str) -> CategoricalDistribution:
    return CategoricalDistribution(PERCENTS[option])


def _distributions(schema: dict[str, Any]) -> dict[str, BaseDistribution]:
    """What can be searched of a JSON schema: enums, booleans and numbers with both bounds. The rest keep defaults."""
    definitions = schema.get("$defs", {})
    found: dict[str, BaseDistribution] = {}
    for name, prop in schema.get("properties", {}).items():
        reference = str(prop.get("$ref", "")).removeprefix("#/$defs/")
        distribution = _distribution({**definitions.get(reference, {}), **prop})
        if distribution is not None:
            found[name] = distribution
    return found


def _distribution(prop: dict[str, Any]) -> BaseDistribution | None:
    kind = prop.get("type")
    if "enum" in prop:
        return CategoricalDistribution(tuple(prop["enum"]))
    if kind == "boolean":
        return CategoricalDistribution((False, True))
    if kind not in ("integer", "number"):
        return None
    low = prop.get("minimum", prop.get("exclusiveMinimum"))
    high = prop.get("maximum", prop.get("exclusiveMaximum"))
    if low is None or high is None:
        return None
    if kind == "integer":
        low = math.floor(low) + 1 if "minimum" not in prop else math.ceil(low)
        high = math.ceil(high) - 1 if "maximum" not in prop else math.floor(high)
        return IntDistribution(low, high, log=low > 0 and high / low >= LOG_RATIO)
    margin = (high - low) * 1e-3
    low = low + margin if "minimum" not in prop else low
    high = high - margin if "maximum" not in prop else high
    return FloatDistribution(low, high, log=low > 0 and high / low >= LOG_RATIO)
