"""A nudge for a team that converges: the operator posts what all are doing and what nobody does.

The rule: of the last 12 submitted runs at least 9, by at least 3 agents, are of one family of methods (`families.py`).
After a post, 12 new runs pass before the next one.
"""

from collections import Counter
from collections.abc import Sequence

import anyio
from sqlalchemy.exc import DBAPIError

from outlearn.errors import OutlearnError
from outlearn.researcher import Tools, ask
from outlearn.types import Posted
from outlearn_agents.report.families import FITTED, SOURCES, Submitted, submitted_runs
from outlearn_agents.run_folder import RunFolder

WINDOW = 12
MOST = 9
AGENTS = 3


class Nudger:
    """Watches a run folder for convergence."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._last: str | None = None

    async def look(self, tools: Tools) -> bool:
        """Post where the team converges; returns whether it did. What does not answer is asked another time."""
        try:
            recent = await anyio.to_thread.run_sync(submitted_runs, self._folder, WINDOW)
            family = common_family(recent)
            if family is None or any(run.run_id == self._last for run in recent):
                return False
            once = f"nudge-{recent[-1].run_id}"
            await ask(tools, Posted, "forum", "post_finding", kind="insight", request_id=once, **_words(family, recent))
        except (OutlearnError, DBAPIError):
            return False
        self._last = recent[-1].run_id
        return True


def common_family(recent: Sequence[Submitted]) -> str | None:
    """The family that the team converges on, or None."""
    if len(recent) < WINDOW:
        return None
    family, count = Counter(run.family for run in recent).most_common(1)[0]
    agents = {run.agent for run in recent if run.family == family}
    return family if count >= MOST and len(agents) >= AGENTS else None


def _words(family: str, recent: Sequence[Submitted]) -> dict[str, str]:
    count = sum(run.family == family for run in recent)
    used = {part for run in recent for part in run.family.split("+")}
    unused = sorted({*SOURCES.values(), *FITTED.values(), "rounds"} - used)
    others = f" Nobody used lately: {', '.join(unused)}." if unused else ""
    text = (
        f"{count} of the last {WINDOW} runs are of one family ({family}). If you have no result that speaks for it, go "
        f"back to your own direction, or take one that nobody follows.{others}"
    )
    return {"title": f"The team converges on {family}", "text": text}
