"""Teams compared: how fast and how far PGR rose, and how diverse the ideas were."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from outlearn.errors import InvalidInputError
from outlearn_agents.report.families import Submitted, effective_number
from outlearn_agents.report.summary import FindingSummary, RunSummary, Summary

DRAWS = 2000
PARTS = 3
CLEAR = 2.0
CAVEATS = (
    "Intervals cover how each run was measured (items, seeds, noise of the answer), not how another team with the same "
    "settings would have fared: one team each is one sample each.",
    "The best of many noisy scores is on average too high, the more so the more evaluations there were. Areas are "
    "without what that adds, about; best PGRs and curves are as they were measured.",
    "Time stands still while a team is paused or away. Runs that are under way go on in a pause: a team that had some "
    "may look a little faster than it was.",
)
Floats = NDArray[np.float64]


class ComparisonModel(BaseModel):
    """Base of the comparison's parts."""

    model_config = ConfigDict(frozen=True)


class Point(ComparisonModel):
    """An evaluation, and the best PGR so far, not below the teacher's 0."""

    evaluations: int
    hours: float = Field(
        description="That the team had been at work, without pauses and breaks; 0 for what clients did before."
    )
    pgr: float
    best: float


class Area(ComparisonModel):
    """Mean of the best PGR so far over a stretch, at least the teacher's 0, with a 90 % interval from the runs' errors.

    The best of noisy scores is too high. How much noise that is added once more raises it is taken off the mean and the
    interval (a basic bootstrap; Davison and Hinkley, 1997, 5.2). Decision 17 says how often simulated intervals held.
    """

    mean: float
    low: float
    high: float


class Diversity(ComparisonModel):
    """How different a team's ideas were; lists have the first, middle and last third of the time."""

    families: dict[str, int] = Field(description="Submitted runs by family of methods.")
    effective_families: float = Field(description="Number of families, rare ones counting for less.")
    effective_families_over_time: tuple[float, ...]
    text_distance: float | None = Field(
        description="Mean distance between two agents' findings: 0 for the same words, 1 for none in common."
    )
    text_distance_over_time: tuple[float | None, ...]


class Entry(ComparisonModel):
    """One team."""

    run: str
    agents: int
    evaluations: int
    best: RunSummary | None
    area_over_evaluations: Area | None
    area_over_time: Area | None
    curve: tuple[Point, ...]
    diversity: Diversity


class Difference(ComparisonModel):
    """Two teams' best runs."""

    first: str
    second: str
    pgr: float = Field(description="The first's best less the second's.")
    pgr_se: float
    verdict: str


class Comparison(ComparisonModel):
    """Teams on one task."""

    task: str
    common_evaluations: int = Field(description="Areas over evaluations go this far in each team.")
    common_hours: float = Field(description="Areas over time go this far in each team.")
    teams: tuple[Entry, ...]
    differences: tuple[Difference, ...]
    caveats: tuple[str, ...] = CAVEATS


def compare_teams(teams: Mapping[str, tuple[Summary, Sequence[Submitted]]]) -> Comparison:
    """Compare teams by name.

    Raises:
        InvalidInputError: they worked on different tasks.
    """
    tasks = {summary.task for summary, _ in teams.values()}
    if len(tasks) != 1:
        raise InvalidInputError(f"teams on different tasks cannot be compared: {', '.join(sorted(tasks))}")
    curves = {name: _curve(summary) for name, (summary, _) in teams.items()}
    evaluations = min(len(curve) for curve in curves.values())
    hours = min((curve[-1].hours for curve in curves.values() if curve), default=0.0)
    entries = tuple(
        _entry(name, summary, submitted, curves[name], evaluations, hours)
        for name, (summary, submitted) in teams.items()
    )
    differences = [_difference(one, two) for one, two in combinations(entries, 2)]
    return Comparison(
        task=tasks.pop(),
        common_evaluations=evaluations,
        common_hours=round(hours, 4),
        teams=entries,
        differences=tuple(one for one in differences if one),
    )


def text_distance(findings: Sequence[FindingSummary]) -> float | None:
    """Mean over pairs of findings by different agents of 1 - cosine of their word counts, weighted by rarity.

    None where no two agents have a finding.
    """
    counts = [Counter(re.findall(r"[a-z]{3,}", f"{one.title} {one.text}".lower())) for one in findings]
    rows = [number for number, count in enumerate(counts) if count]
    words = sorted({word for count in counts for word in count})
    if not words:
        return None
    matrix = np.array([[counts[row][word] for word in words] for row in rows], dtype=float)
    matrix *= np.log((1 + len(rows)) / (1 + (matrix > 0).sum(axis=0))) + 1
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    likeness = matrix @ matrix.T
    authors = [findings[row].author for row in rows]
    pairs = [(i, j) for i, j in combinations(range(len(rows)), 2) if authors[i] != authors[j]]
    return max(0.0, round(float(np.mean([1 - likeness[i, j] for i, j in pairs])), 3)) if pairs else None


def _entry(
    name: str,
    summary: Summary,
    submitted: Sequence[Submitted],
    curve: tuple[Point, ...],
    evaluations: int,
    hours: float,
) -> Entry:
    runs = _in_order(summary)
    draws = _draws(runs)
    at = np.array([point.hours for point in curve])
    return Entry(
        run=name,
        agents=len(summary.agents),
        evaluations=len(curve),
        best=summary.best,
        area_over_evaluations=_area(draws, np.ones(evaluations), evaluations) if evaluations else None,
        area_over_time=_area(draws, _spans(at, hours), hours) if hours > 0 else None,
        curve=curve,
        diversity=_diversity(summary, submitted),
    )


def _curve(summary: Summary) -> tuple[Point, ...]:
    best, points = 0.0, []
    for number, run in enumerate(_in_order(summary), 1):
        best = max(best, run.pgr)
        hours = round(summary.hours_at(run.evaluated_at), 4)
        points.append(Point(evaluations=number, hours=hours, pgr=run.pgr, best=best))
    return tuple(points)


def _in_order(summary: Summary) -> list[RunSummary]:
    return sorted(summary.runs, key=lambda run: run.evaluated_at)


def _draws(runs: Sequence[RunSummary]) -> Floats:
    """Best PGR so far (1 + DRAWS, runs): as measured in row 0, and as it might have been measured."""
    measured = np.array([run.pgr for run in runs])
    noise = np.random.default_rng(0).normal(size=(DRAWS, len(runs))) * np.array([run.pgr_se for run in runs])
    return np.maximum.accumulate(np.maximum(0.0, measured + np.vstack([np.zeros(len(runs)), noise])), axis=1)


def _spans(at: Floats, end: float) -> Floats:
    """Hours for which each evaluation's best was the best, up to `end`; before the first one it was 0."""
    edges = np.minimum(np.append(at, np.inf), end)
    return np.diff(edges)


def _area(draws: Floats, spans: Floats, total: float) -> Area:
    measured, *noisier = draws[:, : len(spans)] @ spans / total
    numbers = 2 * measured - np.array([np.mean(noisier), *np.quantile(noisier, (0.95, 0.05))])
    mean, low, high = (round(max(0.0, float(one)), 3) for one in numbers)
    return Area(mean=mean, low=low, high=high)


def _diversity(summary: Summary, submitted: Sequence[Submitted]) -> Diversity:
    moments = [run.submitted_at for run in submitted] + [finding.posted_at for finding in summary.findings]
    hours = [summary.hours_at(moment) for moment in moments]
    start, end = min(hours, default=0.0), max(hours, default=0.0)

    def part(moment: datetime) -> int:
        return min(PARTS - 1, int(PARTS * (summary.hours_at(moment) - start) / (end - start))) if end > start else 0

    families = [(part(run.submitted_at), run.family) for run in submitted]
    findings = [(part(finding.posted_at), finding) for finding in summary.findings]
    return Diversity(
        families=dict(Counter(family for _, family in families).most_common()),
        effective_families=round(effective_number(family for _, family in families), 2),
        effective_families_over_time=tuple(
            round(effective_number(family for place, family in families if place == third), 2) for third in range(PARTS)
        ),
        text_distance=text_distance([finding for _, finding in findings]),
        text_distance_over_time=tuple(
            text_distance([finding for place, finding in findings if place == third]) for third in range(PARTS)
        ),
    )


def _difference(one: Entry, two: Entry) -> Difference | None:
    if one.best is None or two.best is None:
        return None
    gap = one.best.pgr - two.best.pgr
    error = math.hypot(one.best.pgr_se, two.best.pgr_se)
    clear = abs(gap) > CLEAR * error
    verdict = f"{(one if gap > 0 else two).run} has the better best run" if clear else "no clear difference"
    return Difference(first=one.run, second=two.run, pgr=round(gap, 3), pgr_se=round(error, 3), verdict=verdict)
