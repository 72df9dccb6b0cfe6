"""Which finding grew out of which: the graph of what a team's findings name as built on, in columns by generation."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from outlearn_agents.report.summary import FindingSummary, RunSummary, Summary
from outlearn_agents.words import method_label

ELSEWHERE = ""


@dataclass(frozen=True)
class Source:
    """A finding, with the run that it reports; or a run or snapshot that a finding names and no result reports."""

    id: str
    agent: str
    """Who it is of; empty where nobody knows."""
    title: str
    pgr: float | None = None
    at_most: bool = False
    column: int = 0
    """From left to right: further than all that it is built on, and than what its agent had before."""


@dataclass(frozen=True)
class LineageGraph:
    """What has links, oldest first; the links, from the older to what is built on it; and how much has none."""

    sources: tuple[Source, ...]
    links: tuple[tuple[Source, Source], ...]
    unlinked: int

    @property
    def columns(self) -> int:
        return max((one.column for one in self.sources), default=-1) + 1

    def most_built_on(self, count: int = 5) -> list[tuple[Source, int]]:
        """The sources with most findings built on them directly, and how many, most first."""
        return Counter(parent for parent, _ in self.links).most_common(count)


def lineage_graph(summary: Summary) -> LineageGraph:
    """The graph of a team. A run stands for the result that reports it, where there is one."""
    reports = {one.run_id: one.finding_id for one in summary.findings if one.kind == "result" and one.run_id}
    named = [edge for edge in summary.lineage.edges if edge.kind == "built on"]
    links = dict.fromkeys(
        (reports.get(edge.parent, edge.parent), reports.get(edge.child, edge.child)) for edge in named
    )
    pairs = [(parent, child) for parent, child in links if parent != child]
    placed = _place(_sources(summary, pairs), pairs)
    findings = sum(one.id.startswith("finding-") for one in placed.values())
    return LineageGraph(
        sources=tuple(placed.values()),
        links=tuple((placed[parent], placed[child]) for parent, child in pairs),
        unlinked=len(summary.findings) - findings,
    )


def _sources(summary: Summary, pairs: Iterable[tuple[str, str]]) -> list[Source]:
    """All that is linked, oldest first; what has no time of its own comes right before what is built on it."""
    pairs = list(pairs)
    findings = {one.finding_id: one for one in summary.findings}
    runs = {one.run_id: one for one in summary.runs}
    times: dict[str, datetime] = {name: one.posted_at for name, one in findings.items()}
    times |= {name: one.evaluated_at for name, one in runs.items()}
    last = max(times.values(), default=summary.started_at)
    for parent, child in pairs:
        if parent not in findings and parent not in runs:
            times[parent] = min(times.get(parent, last), times.get(child, last))
    names = dict.fromkeys(name for pair in pairs for name in pair)
    ordered = sorted(names, key=lambda name: (times.get(name, last), name in findings))
    return [_source(name, findings, runs, summary) for name in ordered]


def _source(
    name: str, findings: Mapping[str, FindingSummary], runs: Mapping[str, RunSummary], summary: Summary
) -> Source:
    if (finding := findings.get(name)) is not None:
        return Source(name, finding.author, finding.title, finding.pgr, finding.at_most)
    if (run := runs.get(name)) is not None:
        return Source(name, run.agent, method_label(run.method, run.params), run.pgr, run.at_most)
    node = next((one for one in summary.lineage.nodes if one.id == name), None)
    return Source(name, (node and node.agent) or ELSEWHERE, (node and node.title) or name)


def _place(sources: Iterable[Source], pairs: Iterable[tuple[str, str]]) -> dict[str, Source]:
    """Give each its column. A link from the younger to the older, which a late report can make, moves nothing."""
    parents: dict[str, list[str]] = {}
    for parent, child in pairs:
        parents.setdefault(child, []).append(parent)
    placed: dict[str, Source] = {}
    ends: dict[str, int] = {}
    for one in sources:
        before = [placed[name].column for name in parents.get(one.id, ()) if name in placed]
        column = max([ends.get(one.agent, -1), *before]) + 1
        ends[one.agent] = column
        placed[one.id] = Source(one.id, one.agent, one.title, one.pgr, one.at_most, column)
    return placed
