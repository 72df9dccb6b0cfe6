"""How long runs take: learned from finished runs, to know what still fits before the deadline."""

from statistics import median

from outlearn.types import RunView
from outlearn_agents.offline.recipes import COMPOSED, Recipe

MARGIN = 1.25


class Pace:
    """Seconds that a unit of work takes here; a unit is one pass over the pool with each seed."""

    def __init__(self) -> None:
        self._seconds_per_unit: list[float] = []

    def note(self, run: RunView) -> None:
        """Learn from a finished full run."""
        recipe = Recipe.of_run(run)
        if recipe and run.status == "done" and run.kind == "full" and run.started_at and run.finished_at:
            seconds = (run.finished_at - run.started_at).total_seconds()
            self._seconds_per_unit.append(seconds / work(recipe))

    def seconds(self, recipe: Recipe) -> float:
        """How long a run of `recipe` will probably take, with a margin; 0 while nothing is known."""
        recent = self._seconds_per_unit[-5:]
        return MARGIN * median(recent) * work(recipe) if recent else 0.0


def work(recipe: Recipe) -> float:
    """Units of work of a recipe, roughly: passes over the pool, and a fixed cost for predictions."""
    if recipe.family != COMPOSED:
        epochs = recipe.params.get("epochs", 1)
        return 0.5 + (float(epochs) if isinstance(epochs, int | float) else 1.0)
    composition = recipe.composition
    if composition is None:
        return 1.5
    early = 0.2 + composition.share("early") if composition.select == "early" else 0.0
    own = 0.3 if composition.select == "zsagree" or composition.target == "prior" else 0.0
    second = 0.0 if composition.then == "stop" else 1.2
    return 1.5 + early + own + second
