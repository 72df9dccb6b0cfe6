"""What the offline researcher writes: findings, replies and its notebook. Numbers are left to the servers to show."""

from collections import defaultdict
from collections.abc import Iterable
from statistics import mean

from outlearn.results import pgr_text
from outlearn_agents.offline.planner import Proposal, Result
from outlearn_agents.offline.recipes import DEFAULTS, SLOTS, Recipe
from outlearn_agents.offline.render import summarize

MIN_EACH = 2


def describe(recipe: Recipe) -> str:
    """A recipe in one sentence."""
    composition = recipe.composition
    return summarize(composition) if composition else f"The registered method {recipe.label}."


def result_title(recipe: Recipe) -> str:
    """The title of a result."""
    return recipe.label[:160]


def result_text(proposal: Proposal, verdict: str) -> str:
    """What was tried and why, what it builds on and how it compares, with the recipe for other researchers to parse."""
    lines = [describe(proposal.recipe), ""]
    for parent in proposal.parents:
        lines.append(f"builds on {parent.finding_id or parent.run_id} by {parent.agent} ({parent.recipe.label})")
    lines.append(f"why: {proposal.reason}")
    if verdict:
        lines.append(
            f"compared with {proposal.parents[0].recipe.label if proposal.parents else 'the best so far'}: {verdict}"
        )
    return "\n".join([*lines, "", stated(proposal.recipe)])


def reply_text(proposal: Proposal, run_id: str, verdict: str) -> str:
    """What to say in the thread of the finding that was built on."""
    tried = f"{proposal.recipe.label} ({proposal.reason}), {run_id}"
    return f"I built on this: {tried}. Compared with yours: {verdict or 'not compared'}."


def plan(direction: str, proposal: Proposal | None) -> str:
    """What the researcher tries next and what it is after; the recipe comes first, as lists show only a beginning."""
    if proposal is None:
        return f"I have finished.\n\n{direction.strip()}"
    said = f"{describe(proposal.recipe)} Why: {proposal.reason}."
    return f"{stated(proposal.recipe)}\n\nI try this next. {said}\n\n{direction.strip()}"


def stated(recipe: Recipe) -> str:
    """A recipe for other researchers to parse, as `Recipe.from_text` does."""
    return f"recipe: {recipe.model_dump_json(exclude_defaults=True)}"


def insight(results: Iterable[Result]) -> str | None:
    """What options do on average over all verified compositions, or None where there are too few to compare."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        composition = result.recipe.as_composition()
        for slot, option in composition.choices.items() if composition else ():
            values[slot, option].append(result.pgr)
    lines = []
    for slot in SLOTS:
        base = values.get((slot, DEFAULTS[slot]), [])
        for (name, option), seen in sorted(values.items()):
            if name == slot and option != DEFAULTS[slot] and len(seen) >= MIN_EACH and len(base) >= MIN_EACH:
                change = mean(seen) - mean(base)
                lines.append(
                    f"- {slot} = {option}: {change:+.2f} against {DEFAULTS[slot]} ({len(seen)} and {len(base)} runs)"
                )
    if not lines:
        return None
    head = "Mean difference in PGR over all verified runs that I can read as compositions; other parts differ as well:"
    return "\n".join([head, *lines])


def notebook(agent: str, direction: str, results: list[Result], doing: str) -> str:
    """The notebook: what is known, best first, and what is going on."""
    rows = [
        f"| {one.recipe.label} | {pgr_text(one.pgr, one.at_most)} ± {one.pgr_se:.2f} | {one.agent} | {one.run_id} |"
        for one in results
    ]
    table = ["| recipe | PGR | agent | run |", "|---|---|---|---|", *rows]
    return "\n".join([f"# Notebook of {agent}", "", direction.strip(), "", *table, "", f"Now: {doing}", ""])
