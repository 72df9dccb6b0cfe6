"""The plots of reports as inline SVG: no script, no font, and colours that follow the page's light or dark theme.

Each is drawn for a given width in CSS pixels; the page holds a wide and a narrow one and shows what fits.
"""

import math
from dataclasses import dataclass
from html import escape

from outlearn.results import pgr_text
from outlearn_agents.report.comparison import Comparison
from outlearn_agents.report.summary import RunSummary, Summary
from outlearn_agents.words import method_label, shorten

COLOURS = 8
NARROW = 480
MAX_ROWS = 40
UNITS = ((1.0, "seconds"), (60.0, "minutes"), (3600.0, "hours"), (86400.0, "days"))
STEPS = (1, 2, 5, 10, 15, 20, 30)


@dataclass(frozen=True)
class Scale:
    """Maps values to pixels, linearly; what lies outside goes to the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return round(self.start + share * (self.end - self.start), 1)


def colours(summary: Summary) -> dict[str, str]:
    """A CSS class for each agent, in the order of the team."""
    names = [agent.name for agent in summary.agents]
    names += sorted({run.agent for run in summary.runs} - set(names))
    return {name: f"c{index % COLOURS}" for index, name in enumerate(names)}


def progress_chart(summary: Summary, width: int, height: int = 320) -> str:
    """PGR of every evaluated run over time, each agent's best so far, and the team's."""
    runs = sorted(summary.runs, key=lambda run: run.evaluated_at)
    seconds = {run.run_id: 3600 * summary.hours_at(run.evaluated_at) for run in runs}
    longest = max(seconds.values(), default=1.0) * 1.04 or 1.0
    divisor, unit = next((one for one in reversed(UNITS) if longest >= 2 * one[0]), UNITS[0])
    x = Scale(0.0, longest, 44, width - 12)
    y = Scale(*pgr_range(runs), height - 40, 18)
    parts = [_y_axis(y, width), _x_axis(x, divisor, f"{unit} since the start", height)]
    classes = colours(summary)
    for name, style in classes.items():
        own = [(seconds[run.run_id], run.pgr) for run in runs if run.agent == name]
        parts.append(f'<path class="step {style}" d="{_steps(own, longest, x, y)}"/>' if own else "")
    parts.append(
        f'<path class="step best" d="{_steps([(seconds[r.run_id], r.pgr) for r in runs], longest, x, y)}"/>'
        if runs
        else ""
    )
    for run in runs:
        at = x(seconds[run.run_id])
        parts.append(whisker(at, at, y(run.pgr - run.pgr_se), y(run.pgr + run.pgr_se), classes[run.agent]))
        parts.append(_dot(run, at, y(run.pgr), classes[run.agent]))
    return svg(width, height, "PGR over time", parts)


def methods_chart(summary: Summary, width: int) -> str:
    """Each evaluated run's PGR with its 95 % interval, best first."""
    runs = summary.runs[:MAX_ROWS]
    narrow = width < NARROW
    row, left = (38, 12) if narrow else (24, 250)
    height = row * len(runs) + 44
    x = Scale(*pgr_range(runs), left + 8, width - 16)
    classes = colours(summary)
    parts = [vertical_grid(x, height)]
    for index, run in enumerate(runs):
        middle = 14 + row * index + (26 if narrow else 8)
        label = shorten(method_label(run.method, run.params), 44 if narrow else 34)
        anchor = f'x="{left}" y="{middle - 10}"' if narrow else f'x="{left - 8}" y="{middle + 4}" text-anchor="end"'
        parts.append(f'<text class="label" {anchor}>{escape(label)}</text>')
        reach = 1.96 * run.pgr_se
        parts.append(whisker(x(run.pgr - reach), x(run.pgr + reach), middle, middle, classes[run.agent]))
        parts.append(_dot(run, x(run.pgr), middle, classes[run.agent]))
    return svg(width, height, "Methods with 95 % intervals", parts)


def comparison_chart(comparison: Comparison, width: int, by_time: bool, height: int = 300) -> str:
    """The best PGR so far of each team, over its evaluations or over time."""
    curves = [
        [(3600 * point.hours if by_time else point.evaluations, point.best) for point in team.curve]
        for team in comparison.teams
    ]
    longest = max((at for curve in curves for at, _ in curve), default=1.0) or 1.0
    divisor, unit = (
        (next((one for one in reversed(UNITS) if longest >= 2 * one[0]), UNITS[0])) if by_time else (1.0, "")
    )
    x = Scale(0.0, 1.04 * longest, 44, width - 12)
    y = Scale(-0.03, max([1.0, *(best for curve in curves for _, best in curve)]) + 0.03, height - 40, 18)
    parts = [_y_axis(y, width), _x_axis(x, divisor, f"{unit} since the start" if by_time else "evaluations", height)]
    for number, curve in enumerate(curves):
        path = _steps([(0.0, 0.0), *curve], longest, x, y)
        parts.append(f'<path class="step team c{number % COLOURS}" d="{path}"/>')
    return svg(width, height, f"Best PGR so far over {unit or 'evaluations'}", parts)


def pgr_range(runs: list[RunSummary] | tuple[RunSummary, ...]) -> tuple[float, float]:
    """Limits of a PGR axis: always 0 to 1, and more where results lie outside; far outliers are cut off."""
    low = min([0.0, *(run.pgr - 2 * run.pgr_se for run in runs)])
    high = max([1.0, *(run.pgr + 2 * run.pgr_se for run in runs)])
    return max(low, -1.0) - 0.03, min(high, 2.0) + 0.03


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round numbers that cut [low, high] into about `count` parts."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((one * power for one in STEPS if one * power >= rough), 10 * power)
    return [round(step * index, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _steps(points: list[tuple[float, float]], end: float, x: Scale, y: Scale) -> str:
    """The path of the running maximum."""
    best = points[0][1]
    path = [f"M{x(points[0][0])} {y(best)}"]
    for at, value in points[1:]:
        path.append(f"H{x(at)}")
        if value > best:
            best = value
            path.append(f"V{y(best)}")
    return "".join([*path, f"H{x(end)}"])


def _y_axis(y: Scale, width: int) -> str:
    lines = [
        f'<line class="{_kind(value)}" x1="44" x2="{width - 12}" y1="{y(value)}" y2="{y(value)}"/>'
        f'<text class="tick" x="38" y="{y(value) + 4}" text-anchor="end">{value:g}</text>'
        for value in ticks(y.low, y.high)
    ]
    names = "".join(
        f'<text class="tick" x="48" y="{y(value) - 5}">{name}</text>'
        for value, name in ((0.0, "teacher"), (1.0, "ceiling"))
    )
    return "".join(lines) + names


def _x_axis(x: Scale, divisor: float, caption: str, height: int) -> str:
    labels = [
        f'<text class="tick" x="{x(value * divisor)}" y="{height - 20}" text-anchor="middle">{value:g}</text>'
        for value in ticks(0, x.high / divisor)
    ]
    title = f'<text class="tick" x="{x.end}" y="{height - 2}" text-anchor="end">{caption}</text>'
    return "".join(labels) + title


def vertical_grid(x: Scale, height: int) -> str:
    """Lines and numbers of a PGR axis from left to right."""
    return "".join(
        f'<line class="{_kind(value)}" x1="{x(value)}" x2="{x(value)}" y1="6" y2="{height - 24}"/>'
        f'<text class="tick" x="{x(value)}" y="{height - 8}" text-anchor="middle">{value:g}</text>'
        for value in ticks(x.low, x.high)
    )


def _kind(value: float) -> str:
    """The teacher's and the ceiling's levels stand out from the grid."""
    return "level" if value in (0.0, 1.0) else "grid"


def whisker(x1: float, x2: float, y1: float, y2: float, style: str) -> str:
    """The line of an interval or error."""
    return f'<line class="whisker {style}" x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}"/>'


def _dot(run: RunSummary, x: float, y: float, style: str) -> str:
    label = (
        f"{method_label(run.method, run.params)}: PGR {pgr_text(run.pgr, run.at_most)} ± {run.pgr_se:.2f}, {run.agent}"
    )
    return f'<circle class="dot {style}" cx="{x}" cy="{y}" r="5"><title>{escape(label)}</title></circle>'


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """An SVG element; `title` names it for those who cannot see it."""
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{title}">'
    return head + "".join(parts) + "</svg>"
