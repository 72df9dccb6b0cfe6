"""A researcher of somebody else's: runs one method, has it evaluated, says so and leaves."""

from collections.abc import Mapping

from outlearn.researcher import Session
from outlearn.types import FINISHED, Evaluation, Posted, RunView


class ImpatientResearcher:
    """Tries one method, once."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._method = (options or {}).get("method", "early_stop")

    async def research(self, session: Session) -> None:
        """Submit, wait, evaluate, post."""
        run = await session.ask(
            RunView, "training", "submit_run", method=self._method, kind="full", request_id=f"{session.agent}-only"
        )
        while run.status not in FINISHED and session.stop.seconds_left:
            session.say(f"waiting for {run.run_id}")
            run = await session.ask(RunView, "training", "get_run", run_id=run.run_id, wait_seconds=5)
        result = await session.ask(Evaluation, "evaluation", "evaluate", run_id=run.run_id)
        await session.ask(
            Posted,
            "forum",
            "post_finding",
            kind="result",
            title=f"{self._method} once",
            text=f"I ran {self._method} and that was that.",
            run_id=result.run_id,
        )
