"""All that the servers list, page after page."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

from outlearn.researcher import Tools, ask
from outlearn.types import Finding, FindingList, Lineage, RunList, RunView

PAGE = 50
MAX_ROWS = 500
"""Most that the tool tells of a leaderboard; a team has 200 evaluations by default. Summaries have all."""
Page = TypeVar("Page", RunList, FindingList, Lineage)


async def pages(
    tools: Tools, answer: type[Page], server: str, tool: str, cursor: str | None = None, **arguments: Any
) -> AsyncIterator[Page]:
    """The page at `cursor`, and all that follow: of findings, those with older ones."""
    while True:
        page = await ask(tools, answer, server, tool, cursor=cursor, **arguments)
        yield page
        cursor = page.older_cursor if isinstance(page, FindingList) else page.next_cursor
        if cursor is None:
            return


async def all_runs(tools: Tools) -> list[RunView]:
    """Every run of every agent, newest first."""
    return [run async for page in pages(tools, RunList, "training", "list_runs", limit=PAGE) for run in page.runs]


async def all_findings(tools: Tools, **filters: str) -> list[Finding]:
    """Every finding, oldest first."""
    found = pages(tools, FindingList, "forum", "list_threads", limit=PAGE, **filters)
    return sorted([one async for page in found for one in page.findings], key=lambda one: one.posted_at)
