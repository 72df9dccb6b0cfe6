"""What to try next: first what the direction suggests, then the best known ideas recombined, or optuna's guess."""

import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import Trial, TrialState, create_trial
from pydantic import BaseModel, ConfigDict

from outlearn_agents.offline.recipes import COMPOSED, SLOTS, Composition, Recipe
from outlearn_agents.offline.space import Space

TRIES = 40
BUILD_SHARE = 0.85
PARENTS = 3
KIN_SPREAD = 0.07
"""By how much PGR differs among recipes of one method, roughly: what the others reach says this much of one."""
MIN_TO_BUILD = 2

# words of a direction, and what they make one try first: a registered method, or the name of a composition
LEANINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"early|iterat|second round|distil|itself|self-train|curricul", ("early25", "distil_iterated")),
    (r"simpl|quickly", ("self_train", "short35")),
    (r"knows|elicit|zero-shot|unsupervised", ("ue_zeroshot", "zsagree")),
    (r"prior|posterior|witness|channel|likelihood", ("em_denoise", "prior50")),
    (r"confiden|opinion|certain|noisy labels", ("logconf", "confident50-logconf75")),
    (r"trust|select|weigh|filter|which labels", ("reweight", "confident")),
    (r"\bbits\b|information|teaches|worth", ("confident", "zsagree-early25")),
    (r"evolution|variation|gradient|compete|fitness", ("ensemble", "pair")),
    (r"hidden states?|probe|represent|interpret|layer", ("probe", "zsagree-distil")),
    (r"critic|argue|explain", ("critic", "recheck")),
    (r"elsewhere|contradict|obvious|nobody", ("ue_fewshot", "critic")),
)
FALLBACK = ("vanilla", "logconf")


class Result(BaseModel):
    """A recipe with the evaluation server's number."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    agent: str
    recipe: Recipe
    pgr: float
    at_most: bool = False
    pgr_se: float
    finding_id: str | None = None

    @property
    def floor(self) -> float:
        """PGR less one standard error: luck counts for less."""
        return self.pgr - self.pgr_se


class Proposal(BaseModel):
    """What to try, why, and whose results it builds on, most important first."""

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    reason: str
    parents: tuple[Result, ...] = ()


class Planner:
    """Proposes recipes from verified results, its own and others'. Deterministic for the same seed and results."""

    def __init__(self, space: Space, agent: str, direction: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._agent = agent
        self._seed = seed
        self._openings = openings(direction, space)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: dict[str, Trial] = {}
        self._results: dict[str, Result] = {}
        self._proposed = 0

    @property
    def results(self) -> list[Result]:
        """All results so far, best first. What has kin that did well counts for more than one lucky answer."""
        found = self._results.values()
        merits = {one.run_id: _merit(one, found) for one in found}
        return sorted(found, key=lambda result: (-merits[result.run_id], result.recipe.key, result.run_id))

    def learn(self, result: Result) -> bool:
        """Take a result into account; False where it was known already (its finding may be new)."""
        known = self._results.get(result.run_id)
        if known is not None:
            self._results[result.run_id] = result if known.finding_id is None else known
            return False
        self._results[result.run_id] = result
        trial = self._asked.pop(result.recipe.key, None)
        distributions = self._space.distributions(result.recipe)
        if trial is not None:
            self._study.tell(trial, result.pgr)
        elif distributions is not None:
            params = self._space.assign(result.recipe)
            self._study.add_trial(create_trial(params=params, distributions=distributions, value=result.pgr))
        return True

    def failed(self, recipe: Recipe) -> None:
        """A recipe that gave no result."""
        trial = self._asked.pop(recipe.key, None)
        if trial is not None:
            self._study.tell(trial, state=TrialState.FAIL)

    def propose(
        self, taken: Iterable[Recipe], fits: Callable[[Recipe], bool], claimed: Iterable[Recipe] = ()
    ) -> Proposal | None:
        """What to try next.

        Args:
            taken: recipes that this agent tried.
            fits: whether there is time left for a recipe.
            claimed: recipes that others are trying.

        Returns:
            A new recipe that fits, or None where none was found.
        """
        tried = [*taken, *claimed, *(result.recipe for result in self._results.values())]
        known = {recipe.same_as for recipe in tried}
        self._proposed += 1
        rng = random.Random(f"{self._seed}:{len(known)}:{self._proposed}")
        for recipe in self._openings[:1]:
            if recipe.same_as not in known and fits(recipe):
                return Proposal(recipe=recipe, reason="it is where my direction begins")
        if (survey := self._survey(tried)) and fits(survey.recipe):
            return survey
        for _ in range(TRIES):
            build = len(self._results) >= MIN_TO_BUILD and rng.random() < BUILD_SHARE
            proposal = self._build(rng) if build else self._explore()
            if proposal is None:
                continue
            close = any(self._space.is_close(proposal.recipe, recipe) for recipe in tried)
            if proposal.recipe.same_as not in known and not close and fits(proposal.recipe):
                return proposal
            self.failed(proposal.recipe)
        return None

    def _survey(self, tried: Sequence[Recipe]) -> Proposal | None:
        """A registered method that nobody in the team is known to have tried; agents that know the same take others."""
        untried = sorted(set(self._space.families) - {recipe.family for recipe in tried})
        if not untried:
            return None
        team = sorted({self._agent, *(one.agent for one in self._results.values())})
        recipe = self._space.named(untried[team.index(self._agent) * len(untried) // len(team)])
        return Proposal(recipe=recipe, reason="nobody has tried it yet") if recipe else None

    def _explore(self) -> Proposal:
        """What the search suggests. It learned from all results, so the recipe comes from no one of them."""
        return Proposal(recipe=self._ask({}), reason="the search expects something where nobody looked yet")

    def _build(self, rng: random.Random) -> Proposal | None:
        """Change one of the best: one part of a composition, or the parameters of a registered method."""
        ranked = self.results[:PARENTS]
        if not ranked:
            return None
        parent = rng.choices(ranked, weights=[2.0**-place for place in range(len(ranked))])[0]
        base = parent.recipe.as_composition()
        tunable = parent.recipe.family != COMPOSED and rng.random() < 0.5
        return self._tune(rng, parent) if base is None or tunable else self._recombine(rng, parent, base)

    def _tune(self, rng: random.Random, parent: Result) -> Proposal | None:
        """Move some parameters of a method that did well a little."""
        recipe = self._space.near(parent.recipe, rng)
        if recipe == parent.recipe:
            return None
        return Proposal(recipe=recipe, reason=_change(parent.recipe, recipe), parents=(parent,))

    def _recombine(self, rng: random.Random, parent: Result, base: Composition) -> Proposal:
        """Change one part of a good recipe: to what another good one does, or to what the search suggests."""
        ranked = [(one, made) for one in self.results if (made := one.recipe.as_composition()) is not None]
        other, donor = rng.choice(ranked)
        slot = rng.choice([*SLOTS])
        fixed = self._space.assign(Recipe.composed(base))
        fixed = {name: value for name, value in fixed.items() if name != f"{COMPOSED}.{slot}"}
        parents: tuple[Result, ...] = (parent,)
        if donor.choices[slot] != base.choices[slot]:
            fixed[f"{COMPOSED}.{slot}"] = donor.choices[slot]
            parents = (parent, other)
        recipe = self._ask(fixed)
        reason = _difference(base, recipe.composition or base) or "unchanged"
        if Recipe.composed(base).key != parent.recipe.same_as:
            reason = f"read as {base.slug}: {reason}"
        return Proposal(recipe=recipe, reason=reason, parents=parents)

    def _ask(self, fixed: Mapping[str, object]) -> Recipe:
        if fixed:
            self._study.enqueue_trial(dict(fixed))
        trial = self._study.ask()
        recipe = self._space.suggest(_TrialChooser(trial))
        if recipe.key in self._asked:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._asked[recipe.key] = trial
        return recipe


def _merit(result: Result, results: Iterable[Result]) -> float:
    """The PGR to expect of a result: what was told, drawn to what others of its method reach, less an error."""
    kin = [one.pgr for one in results if one.run_id != result.run_id and one.recipe.family == result.recipe.family]
    kin = kin if result.recipe.family != COMPOSED else []
    told, prior = max(result.pgr_se, 0.01) ** -2, len(kin) / (1 + len(kin)) * KIN_SPREAD**-2
    expected = (told * result.pgr + prior * (sum(kin) / len(kin) if kin else 0.0)) / (told + prior)
    return expected - 1 / math.sqrt(told + prior)


class _TrialChooser:
    """Lets an optuna trial choose."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def choose(self, name: str, distribution: BaseDistribution) -> object:
        if isinstance(distribution, CategoricalDistribution):
            return self._trial.suggest_categorical(name, distribution.choices)
        if isinstance(distribution, IntDistribution):
            return self._trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
        value = self._trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        return float(f"{value:.3g}")


def openings(direction: str, space: Space) -> list[Recipe]:
    """The recipes that a direction's words suggest: those of the strongest leaning."""
    text = direction.lower()
    scored = [(len(re.findall(pattern, text)), names) for pattern, names in LEANINGS]
    score, names = max(scored, key=lambda pair: pair[0])
    found = [space.named(name) for name in (names if score else FALLBACK)]
    return [recipe for recipe in found if recipe is not None]


def _change(old: Recipe, new: Recipe) -> str:
    """What changed between two recipes of one method, such as `keep 0.5 -> 0.75`."""
    pairs = [(name, old.params.get(name, "default"), value) for name, value in new.params.items()]
    return ", ".join(f"{name} {_plain(before)} -> {_plain(after)}" for name, before, after in pairs if before != after)


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _difference(old: Composition, new: Composition) -> str:
    """What changed, such as `select all -> early25`."""
    before, after = dict(old.percents), dict(new.percents)
    changes = []
    for slot in SLOTS:
        one, two = old.choices[slot], new.choices[slot]
        if (one, before.get(one)) != (two, after.get(two)):
            changes.append(f"{slot} {one}{before.get(one, '')} -> {two}{after.get(two, '')}")
    return ", ".join(changes)
