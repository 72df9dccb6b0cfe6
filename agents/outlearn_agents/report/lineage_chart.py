"""The picture of a lineage as inline SVG: a lane for each agent, older to the left, a curve for each link."""

import math
from html import escape

from outlearn.results import pgr_text
from outlearn_agents.report.charts import NARROW, colours, svg
from outlearn_agents.report.lineage import ELSEWHERE, LineageGraph, Source
from outlearn_agents.report.summary import Summary
from outlearn_agents.words import shorten

LANE, TOP = 48, 26
STEP = (18.0, 120.0)
LABEL_ROOM = 32


def lineage_chart(graph: LineageGraph, summary: Summary, width: int) -> str:
    """Sources as dots, larger for a higher PGR and squares without one; as wide as it needs to be, at least `width`."""
    return _Picture(graph, summary, width).draw()


class _Picture:
    def __init__(self, graph: LineageGraph, summary: Summary, width: int) -> None:
        self._graph, self._classes = graph, colours(summary)
        self._narrow = width < NARROW
        self._left = 20 if self._narrow else 118
        room = (width - self._left - 26) / max(graph.columns - 1, 1)
        self._step = min(max(room, STEP[0]), STEP[1])
        self._width = max(width, round(self._left + 26 + self._step * (graph.columns - 1)))
        known = {one.agent for one in graph.sources}
        others = sorted(known - self._classes.keys(), key=lambda agent: (agent == ELSEWHERE, agent))
        lanes = [*(agent for agent in self._classes if agent in known), *others]
        self._y = {agent: TOP + LANE * number for number, agent in enumerate(lanes)}
        self._taken = {(one.agent, one.column) for one in graph.sources}

    def draw(self) -> str:
        lanes = [self._lane(agent) for agent in self._y]
        links = [self._link(*pair) for pair in self._graph.links]
        dots = [self._dot(one) for one in self._graph.sources]
        return svg(
            self._width, TOP + LANE * len(lanes), "Lineage of findings", [*lanes, *links, *dots, *self._labels()]
        )

    def _lane(self, agent: str) -> str:
        y = self._y[agent]
        name = escape(shorten(agent if agent != ELSEWHERE else "other sources", 14))
        where = f'x="8" y="{y - 14}"' if self._narrow else f'x="8" y="{y + 4}"'
        line = f'<line class="grid" x1="{8 if self._narrow else self._left - 14}" x2="{self._width - 8}"'
        return f'{line} y1="{y}" y2="{y}"/><text class="tick" {where}>{name}</text>'

    def _link(self, parent: Source, child: Source) -> str:
        (x1, y1), (x2, y2) = self._at(parent), self._at(child)
        between = any((parent.agent, column) in self._taken for column in range(parent.column + 1, child.column))
        if y1 == y2 and between:
            path = f"M{x1} {y1}Q{(x1 + x2) / 2:.1f} {y1 - 30} {x2} {y2}"
        else:
            bend = round((x2 - x1) / 2, 1)
            path = f"M{x1} {y1}C{x1 + bend:.1f} {y1} {x2 - bend:.1f} {y2} {x2} {y2}"
        title = escape(f"{_name(child)}, built on {_name(parent)}")
        return f'<path class="link {self._style(parent)}" d="{path}"><title>{title}</title></path>'

    def _dot(self, one: Source) -> str:
        x, y = self._at(one)
        pgr = "" if one.pgr is None else f": PGR {pgr_text(one.pgr, one.at_most)}"
        title = f"<title>{escape(f'{_name(one)}{pgr}, {one.id}')}</title>"
        if one.pgr is None:
            place = f'x="{x - 4:.1f}" y="{y - 4}" width="8" height="8"'
            return f'<rect class="thought {self._style(one)}" {place}>{title}</rect>'
        return f'<circle class="dot {self._style(one)}" cx="{x}" cy="{y}" r="{_radius(one)}">{title}</circle>'

    def _labels(self) -> list[str]:
        """The PGR below as many dots as have room for it, the best first."""
        drawn: dict[str, list[float]] = {}
        found = []
        for one in sorted(self._graph.sources, key=lambda one: -(one.pgr or 0.0)):
            x, y = self._at(one)
            lane = drawn.setdefault(one.agent, [])
            if one.pgr is not None and all(abs(x - other) >= LABEL_ROOM for other in lane):
                lane.append(x)
                text = escape(pgr_text(one.pgr, one.at_most))
                found.append(f'<text class="tick" x="{x}" y="{y + 21}" text-anchor="middle">{text}</text>')
        return found

    def _at(self, one: Source) -> tuple[float, int]:
        return round(self._left + self._step * one.column, 1), self._y[one.agent]

    def _style(self, one: Source) -> str:
        return self._classes.get(one.agent, "")


def _radius(one: Source) -> float:
    """From 3 to 8 pixels, the area by PGR from 0 to 1."""
    return round(math.sqrt(9 + 55 * min(max(one.pgr or 0.0, 0.0), 1.0)), 1)


def _name(one: Source) -> str:
    title = shorten(one.title, 80)
    return f"{title} by {one.agent}" if one.agent != ELSEWHERE else title
