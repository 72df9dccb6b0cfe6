"""How long runs take: learned from finished runs, to know what still fits before the deadline."""

from statistics import median

from outlearn.types import RunView
from outlearn_agents.offline.recipes import COMPOSED, Recipe

MARGIN = 1.15
RECENT = 5
BEFORE = ("first", "judging")
"""Parameters of registered methods that are epochs of training before that of the student that they return."""


class Pace:
    """How long runs wait in the queue, and how long a unit of work takes: one pass over the pool with each seed."""

    def __init__(self) -> None:
        self._unit_seconds: list[float] = []
        self._wait_seconds: list[float] = []

    def note(self, run: RunView) -> None:
        """Learn from a finished full run."""
        recipe = Recipe.of_run(run)
        if recipe and run.status == "done" and run.kind == "full" and run.started_at and run.finished_at:
            self._unit_seconds.append((run.finished_at - run.started_at).total_seconds() / work(recipe))
            self._wait_seconds.append((run.started_at - run.submitted_at).total_seconds())

    def seconds(self, recipe: Recipe) -> float:
        """How long a run of `recipe` will probably take from submission to end; 0 while nothing is known."""
        if not self._unit_seconds:
            return 0.0
        unit, wait = median(self._unit_seconds[-RECENT:]), median(self._wait_seconds[-RECENT:])
        return MARGIN * (unit * work(recipe) + wait)


def work(recipe: Recipe) -> float:
    """Units of work of a recipe, roughly: passes over the pool, and a fixed cost for predictions."""
    if recipe.family != COMPOSED:
        fits = _number(recipe, "members", 1) * _number(recipe, "rounds", 1)
        return 0.5 + sum(_number(recipe, name, 0) for name in BEFORE) + fits * _number(recipe, "epochs", 1)
    composition = recipe.composition
    if composition is None:
        return 1.5
    early = 0.2 + composition.share("early") if composition.select == "early" else 0.0
    own = 0.3 if composition.select == "zsagree" or composition.target == "prior" else 0.0
    fit = composition.share("short") if composition.length == "short" else 1.0
    second = 0.0 if composition.then == "stop" else 0.2 + (1.0 if composition.then == "distil" else fit)
    return 0.5 + fit + early + own + second


def _number(recipe: Recipe, name: str, default: float) -> float:
    value = recipe.params.get(name, default)
    return float(value) if isinstance(value, int | float) else default
