"""The outcome of a final as inline SVG: each finalist's PGR on the private half with its 95 % interval."""

from html import escape

from outlearn.results import pgr_text
from outlearn_agents.report.charts import NARROW, Scale, colours, svg, vertical_grid, whisker
from outlearn_agents.report.summary import Summary
from outlearn_agents.words import method_label, shorten
from outlearn_evaluation.release import Finalist, Release


def final_chart(release: Release, summary: Summary, width: int) -> str:
    """Finalists in the release's order, with an empty circle at what their agents had been told."""
    narrow = width < NARROW
    row, left = (38, 12) if narrow else (26, 250)
    height = row * len(release.finalists) + 44
    x = Scale(*_range(release), left + 8, width - 16)
    classes = colours(summary)
    parts = [vertical_grid(x, height)]
    for number, one in enumerate(release.finalists, 1):
        middle = 14 + row * (number - 1) + (26 if narrow else 8)
        label = escape(shorten(f"{number}  {method_label(one.method, one.params)}", 44 if narrow else 34))
        anchor = f'x="{left}" y="{middle - 10}"' if narrow else f'x="{left - 8}" y="{middle + 4}" text-anchor="end"'
        parts += [f'<text class="label" {anchor}>{label}</text>', _mark(one, x, middle, classes.get(one.agent, ""))]
    return svg(width, height, "PGR on the private half with 95 % intervals", parts)


def _mark(one: Finalist, x: Scale, y: int, style: str) -> str:
    if one.pgr is None:
        return f'<text class="tick" x="{x(0.0) + 6}" y="{y + 4}">{"no score" if one.failed else "no PGR"}</text>'
    told = f"told {pgr_text(one.told, one.told_at_most)}"
    title = escape(f"{method_label(one.method, one.params)} by {one.agent}: {one.pgr.value:.2f}, {told}")
    return (
        whisker(x(one.pgr.low), x(one.pgr.high), y, y, style)
        + f'<circle class="told {style}" cx="{x(one.told)}" cy="{y}" r="4"/>'
        + f'<circle class="dot {style}" cx="{x(one.pgr.value)}" cy="{y}" r="5"><title>{title}</title></circle>'
    )


def _range(release: Release) -> tuple[float, float]:
    """Limits of the axis: 0 to 1, and more where intervals lie outside; far outliers are cut off."""
    shown = [one.pgr for one in release.finalists if one.pgr]
    low, high = min([0.0, *(one.low for one in shown)]), max([1.0, *(one.high for one in shown)])
    return max(low, -1.0) - 0.03, min(high, 2.0) + 0.03
