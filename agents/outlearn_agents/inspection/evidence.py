"""What an agent said, wrote and ran, as numbered lines that an inspection can cite."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from outlearn.audit import AuditLog, AuditRecord
from outlearn_agents.report.families import Submitted, submitted_runs
from outlearn_agents.report.summary import FindingSummary, RunSummary, Summary
from outlearn_agents.run_folder import RunFolder
from outlearn_evaluation.withheld import withheld

MAX_LINE = 300
EVALUATED = 2
"""Rank of a run that was evaluated."""


@dataclass(frozen=True)
class Line:
    """A line with its place, such as `transcript.jsonl:12` or `methods/mine.py@run-0123:3`. It is whole, however long:
    what is hidden far to the right is to be found, too."""

    where: str
    text: str

    def pieces(self) -> "list[Line]":
        """The line in pieces of at most `MAX_LINE` characters, for whoever reads it."""
        return [Line(self.where, self.text[at : at + MAX_LINE]) for at in range(0, len(self.text), MAX_LINE)]


@dataclass(frozen=True)
class Dossier:
    """One agent's work. Everything in it is the agent's: data to judge."""

    agent: str
    said: Sequence[Line] = ()
    """Its words: in the transcript and on the forum."""
    sources: Sequence[Submitted] = ()
    """Its methods that were run, each source once, by the run of it that counts most."""
    runs: Sequence[Submitted] = ()
    findings: Sequence[FindingSummary] = ()
    results: dict[str, RunSummary] = field(default_factory=dict)
    """All verified results, by run."""
    audit: Sequence[AuditRecord] = ()
    """What stands in the audit log and was not released."""

    def rank(self, run: Submitted) -> int:
        """What a run counts for: 3 nominated, 2 evaluated, 1 full, 0 others."""
        result = self.results.get(run.run_id)
        return EVALUATED + result.nominated if result else int(run.kind == "full")

    def submissions(self) -> list[Submitted]:
        """Its methods with the params that each was run with, those that count most first."""
        runs = sorted([*self.sources, *self.runs], key=lambda run: -self.rank(run))
        mine = [run for run in runs if run.method.endswith(".py")]
        return _first_of_each(mine, lambda run: (run.source, _as_json(run.params)))

    def code(self) -> Iterator[Line]:
        """The lines of its methods, and params where there are any."""
        for one in self.sources:
            yield from source_lines(one)
        for one in self.submissions():
            yield from params_lines(one)


def lines_of(source: str) -> list[str]:
    """The lines of a program as Python counts them; `str.splitlines` would end some at form feeds and the like."""
    return re.split(r"\r\n?|\n", source.removesuffix("\n"))


def source_lines(run: Submitted) -> Iterator[Line]:
    """The lines of a run's method."""
    for number, text in enumerate(lines_of(run.source), 1):
        yield Line(f"{run.method}@{run.run_id}:{number}", text)


def params_lines(run: Submitted) -> Iterator[Line]:
    """A line with a run's params, where it has any."""
    if run.params:
        yield Line(f"{run.method}@{run.run_id}:params", _as_json(run.params))


def read_dossiers(folder: RunFolder, summary: Summary) -> list[Dossier]:
    """The dossiers of a team, in its order."""
    runs = submitted_runs(folder)
    audit = _standing(AuditLog(folder.root / "vault").records())
    results = {run.run_id: run for run in summary.runs}
    return [
        _with_sources(
            Dossier(
                agent=agent.name,
                said=[*read_transcript(folder.agent(agent.name)), *_posted(summary, agent.name)],
                runs=[run for run in runs if run.agent == agent.name],
                findings=[finding for finding in summary.findings if finding.author == agent.name],
                results=results,
                audit=[record for record in audit if record.agent == agent.name],
            )
        )
        for agent in summary.agents
    ]


def _standing(records: Sequence[AuditRecord]) -> list[AuditRecord]:
    """Without what the operator has reviewed and released."""
    now = withheld(records)

    def stands(record: AuditRecord) -> bool:
        if record.action in ("quarantine", "disqualify"):
            return record.run_id in now.runs if record.run_id else record.agent in now.agents
        return (record.run_id or record.agent) not in now.released

    return list(filter(stands, records))


def _with_sources(dossier: Dossier) -> Dossier:
    return replace(dossier, sources=_first_of_each(dossier.submissions(), lambda run: run.source))


def read_transcript(private: Path) -> Iterator[Line]:
    """What the model said and asked for, by the transcript's lines."""
    path = private / "transcript.jsonl"
    rows = path.read_bytes().splitlines() if path.exists() else []
    for number, row in enumerate(rows, 1):
        for text in _words(row):
            yield from (Line(f"{path.name}:{number}", line) for line in text.splitlines() if line.strip())


def _words(row: bytes) -> Iterator[str]:
    try:
        entry: dict[str, Any] = json.loads(row)
    except ValueError:
        return
    if entry.get("role") != "assistant":
        return
    for block in entry["content"]:
        if block["type"] in ("text", "thinking"):
            yield block[block["type"]]
        elif block["type"] == "tool_use":
            for name, value in [*_leaves(block["input"])] or [("", "")]:
                yield f"{block['name']} {name}: {value}"


def _leaves(value: object) -> Iterator[tuple[str, object]]:
    """What stands in a call's arguments, and where: texts as they are, not as JSON escapes them."""
    waiting = [("", value)]
    while waiting:
        name, one = waiting.pop()
        if isinstance(one, dict):
            waiting += [(f"{name}.{key}".lstrip("."), part) for key, part in reversed(one.items())]
        elif isinstance(one, list):
            waiting += [(name, part) for part in reversed(one)]
        else:
            yield name, one


def _posted(summary: Summary, agent: str) -> Iterator[Line]:
    for finding in summary.findings:
        if finding.author == agent:
            for number, text in enumerate([finding.title, *finding.text.splitlines()]):
                yield Line(f"{finding.finding_id}:{number}", text)


def _first_of_each(runs: Sequence[Submitted], key: Callable[[Submitted], object]) -> list[Submitted]:
    found = dict[object, Submitted]()
    for run in runs:
        found.setdefault(key(run), run)
    return list(found.values())


def _as_json(params: dict[str, Any]) -> str:
    return json.dumps(params, sort_keys=True, ensure_ascii=False)
