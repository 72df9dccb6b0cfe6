"""All that the servers list, page after page."""

from outlearn.researcher import Tools, ask
from outlearn.types import Finding, FindingList, RunList, RunView

MAX_PAGES = 200


async def all_runs(tools: Tools) -> list[RunView]:
    """Every run of every agent, newest first."""
    runs: list[RunView] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await ask(tools, RunList, "training", "list_runs", limit=50, cursor=cursor)
        runs += page.runs
        cursor = page.next_cursor
        if cursor is None:
            break
    return runs


async def all_findings(tools: Tools) -> list[Finding]:
    """Every finding, oldest first."""
    findings: list[Finding] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await ask(tools, FindingList, "forum", "list_threads", cursor=cursor, limit=50)
        findings += page.findings
        cursor = page.older_cursor
        if cursor is None:
            break
    return sorted(findings, key=lambda finding: finding.posted_at)
