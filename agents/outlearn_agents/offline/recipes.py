"""Recipes: what the offline researcher can try. A recipe is a registered method with parameters, or a composition.

A composition is a word from a small grammar: how targets are made, which items are kept, which loss, how long the
training is, what comes after.
"""

import re
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from outlearn.types import RunView

COMPOSED = "composed"
FOLDER = "methods"
Target = Literal["hard", "soft", "prior"]
Select = Literal["all", "confident", "zsagree", "early"]
LossName = Literal["xent", "logconf"]
Length = Literal["usual", "short"]
Then = Literal["stop", "distil", "recheck", "pair"]
Scalar = str | int | float | bool

SLOTS: dict[str, tuple[str, ...]] = {
    "target": get_args(Target),
    "select": get_args(Select),
    "loss": get_args(LossName),
    "length": get_args(Length),
    "then": get_args(Then),
}
PERCENTS: dict[str, tuple[int, ...]] = {
    "prior": (25, 50, 75),
    "confident": (30, 50, 70),
    "early": (15, 25, 40),
    "logconf": (50, 75, 90),
    "short": (20, 35, 60),
}
DEFAULTS = {"target": "hard", "select": "all", "loss": "xent", "length": "usual", "then": "stop"}
SHORT = 0.75
NEAREST: dict[str, dict[str, str]] = {
    "vanilla": {},
    "confident": {"select": "confident"},
    "logconf": {"loss": "logconf"},
}
_TOKEN = re.compile(r"([a-z]+)(\d*)")


class Composition(BaseModel):
    """A composed method. `percent` holds the number of each option in use that has one, such as `{"early": 25}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: Target = "hard"
    select: Select = "all"
    loss: LossName = "xent"
    length: Length = "usual"
    then: Then = "stop"
    percents: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, choices: dict[str, Any], percents: dict[str, int]) -> "Composition":
        """A composition from slot choices; numbers of options not in use are dropped, missing ones are the middle."""
        slots = {slot: choices.get(slot, DEFAULTS[slot]) for slot in SLOTS}
        used = {option: percents.get(option, PERCENTS[option][1]) for option in slots.values() if option in PERCENTS}
        return cls(**slots, percents=tuple(sorted(used.items())))

    @property
    def choices(self) -> dict[str, str]:
        """The option in each slot."""
        return {slot: getattr(self, slot) for slot in SLOTS}

    def share(self, option: str) -> float:
        """The number of an option in use, as a share in (0, 1)."""
        return dict(self.percents)[option] / 100

    @property
    def slug(self) -> str:
        """Its name, from which `parse` makes it again: `early25-logconf75-recheck`; defaults are left out."""
        numbers = dict(self.percents)
        parts = [
            f"{option}{numbers.get(option, '')}" for slot, option in self.choices.items() if option != DEFAULTS[slot]
        ]
        return "-".join(parts) or "plain"

    @classmethod
    def parse(cls, slug: str) -> "Composition | None":
        """The composition of this name, or None where it is not one."""
        choices: dict[str, str] = {}
        percents: dict[str, int] = {}
        for part in slug.split("-") if slug != "plain" else []:
            match = _TOKEN.fullmatch(part)
            slot = next((slot for slot, options in SLOTS.items() if match and match[1] in options), None)
            if match is None or slot is None or slot in choices:
                return None
            choices[slot] = match[1]
            if match[2]:
                percents[match[1]] = int(match[2])
        if any(number not in PERCENTS.get(option, ()) for option, number in percents.items()):
            return None
        made = cls.of(choices, percents)
        return made if made.slug == slug else None


class Recipe(BaseModel):
    """Something to try: the registered method `family` with `params`, or a composition (`family` is "composed")."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    params: dict[str, Scalar] = {}
    slug: str = ""

    @classmethod
    def composed(cls, composition: Composition) -> "Recipe":
        """The recipe of a composition."""
        return cls(family=COMPOSED, slug=composition.slug)

    @classmethod
    def of_run(cls, run: RunView) -> "Recipe | None":
        """The recipe of a run, or None where it ran a file that is no composition."""
        if run.method.endswith(".py"):
            return cls.of_file(run.method)
        try:
            return cls(family=run.method, params=run.params)
        except ValidationError:
            return None

    @classmethod
    def of_file(cls, method: str) -> "Recipe | None":
        """The recipe of a composition's file, or None."""
        slug = method.removeprefix(f"{FOLDER}/").removesuffix(".py")
        return cls(family=COMPOSED, slug=slug) if slug != method and Composition.parse(slug) else None

    @classmethod
    def from_text(cls, text: str) -> "Recipe | None":
        """The recipe that a finding's text states on a line `recipe: {...}`, or None. The text is not trusted."""
        found = re.search(r"^recipe: (\{.{2,500}\})$", text, flags=re.MULTILINE)
        try:
            recipe = cls.model_validate_json(found[1]) if found else None
        except ValidationError:
            return None
        if recipe is None or not recipe.label.isprintable():  # which goes into texts, where it must not begin a line
            return None
        return None if recipe.family == COMPOSED and recipe.composition is None else recipe

    @property
    def composition(self) -> Composition | None:
        """The composition, or None for a registered method."""
        return Composition.parse(self.slug) if self.family == COMPOSED else None

    @property
    def file(self) -> str:
        """Where a composition's file is in the workspace."""
        return f"{FOLDER}/{self.slug}.py"

    @property
    def key(self) -> str:
        """Equal for equal recipes."""
        return f"{self.family}:{self.slug}:{sorted(self.params.items())}"

    @property
    def label(self) -> str:
        """How to call it in a sentence."""
        if self.family == COMPOSED:
            return self.slug
        params = ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" if value != "" else f"{name}=''"
            for name, value in self.params.items()
        )
        return f"{self.family}({params})" if params else self.family

    @property
    def same_as(self) -> str:
        """The key of the composition that does exactly this, where there is one, else its own key."""
        params = {"epochs": 1, "warmup": 0.2, "alpha": 0.75, **self.params}
        usual = (params["epochs"], params["warmup"]) == (1, 0.2)
        composition = self.as_composition() if self.family in ("vanilla", "logconf") and usual else None
        if composition is None or (self.family == "logconf" and composition.share("logconf") != params["alpha"]):
            return self.key
        return Recipe.composed(composition).key

    def as_composition(self) -> Composition | None:
        """The composition nearest to it: itself, or what a built-in amounts to, numbers rounded to those on offer."""
        if self.family == COMPOSED:
            return self.composition
        if self.family not in NEAREST:
            return None
        epochs = self.params.get("epochs", 1.0)
        choices = {
            **NEAREST[self.family],
            "target": "soft" if self.params.get("labels") == "soft" else "hard",
            "length": "short" if isinstance(epochs, int | float) and epochs <= SHORT else "usual",
        }
        numbers = {
            "logconf": _nearest("logconf", self.params.get("alpha", 0.75)),
            "confident": _nearest("confident", self.params.get("keep", 0.5)),
            "short": _nearest("short", epochs),
        }
        return Composition.of(choices, numbers)


def _nearest(option: str, share: Scalar) -> int:
    """The number on offer that is nearest to a share in [0, 1]."""
    percent = 100 * share if isinstance(share, int | float) else 50
    return min(PERCENTS[option], key=lambda number: abs(number - percent))
