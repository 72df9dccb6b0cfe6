"""What an agent said, wrote and ran, as numbered lines that an inspection can cite."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlearn.audit import AuditLog, AuditRecord
from outlearn_agents.report.families import Submitted, submitted_runs
from outlearn_agents.report.summary import FindingSummary, RunSummary, Summary
from outlearn_agents.run_folder import RunFolder

MAX_LINE = 300


@dataclass(frozen=True)
class Line:
    """A line with its place, such as `transcript.jsonl:12` or `methods/mine.py@run-0123:3`."""

    where: str
    text: str


@dataclass(frozen=True)
class Dossier:
    """One agent's work. Everything in it is the agent's: data to judge."""

    agent: str
    said: Sequence[Line] = ()
    """Its words: in the transcript and on the forum."""
    sources: Sequence[Submitted] = ()
    """Its methods that were run, each source once."""
    runs: Sequence[Submitted] = ()
    findings: Sequence[FindingSummary] = ()
    results: dict[str, RunSummary] = field(default_factory=dict)
    """All verified results, by run."""
    audit: Sequence[AuditRecord] = ()

    def code(self) -> Iterator[Line]:
        """The lines of its methods."""
        for one in self.sources:
            for number, text in enumerate(one.source.splitlines(), 1):
                yield Line(f"{one.method}@{one.run_id}:{number}", text[:MAX_LINE])


def read_dossiers(folder: RunFolder, summary: Summary) -> list[Dossier]:
    """The dossiers of a team, in its order."""
    runs = submitted_runs(folder)
    audit = AuditLog(folder.root / "vault").records()
    results = {run.run_id: run for run in summary.runs}
    return [
        Dossier(
            agent=agent.name,
            said=[*_transcript(folder.agent(agent.name)), *_posted(summary, agent.name)],
            sources=_distinct([run for run in runs if run.agent == agent.name and run.method.endswith(".py")]),
            runs=[run for run in runs if run.agent == agent.name],
            findings=[finding for finding in summary.findings if finding.author == agent.name],
            results=results,
            audit=[record for record in audit if record.agent == agent.name],
        )
        for agent in summary.agents
    ]


def _transcript(private: Path) -> Iterator[Line]:
    """What the model said and asked for, by the transcript's lines."""
    path = private / "transcript.jsonl"
    rows = path.read_bytes().splitlines() if path.exists() else []
    for number, row in enumerate(rows, 1):
        for text in _words(row):
            yield from (Line(f"{path.name}:{number}", line[:MAX_LINE]) for line in text.splitlines() if line.strip())


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
            yield f"{block['name']} {json.dumps(block['input'], ensure_ascii=False)}"


def _posted(summary: Summary, agent: str) -> Iterator[Line]:
    for finding in summary.findings:
        if finding.author == agent:
            for number, text in enumerate([finding.title, *finding.text.splitlines()]):
                yield Line(f"{finding.finding_id}:{number}", text[:MAX_LINE])


def _distinct(runs: Sequence[Submitted]) -> list[Submitted]:
    """The first run of each source."""
    return list({run.source: run for run in reversed(runs)}.values())[::-1]
