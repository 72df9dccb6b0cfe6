"""The offline researcher's desk: forum, notebook, snapshots and nominations. Posting twice posts once."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from outlearn.errors import ToolRefusedError
from outlearn.researcher import Session
from outlearn.types import (
    FileWritten,
    Finding,
    FindingKind,
    FindingList,
    Leaderboard,
    LeaderboardRow,
    Nominations,
    Posted,
    RunView,
    Snapshot,
    Voted,
)
from outlearn_agents.offline import writing
from outlearn_agents.offline.planner import Planner, Proposal, Result
from outlearn_agents.offline.recipes import Recipe
from outlearn_agents.reading import MAX_ROWS, PAGE, all_findings, all_runs, pages

NOTEBOOK = "notebook.md"
NOMINATED = 2
PLAN = "plan"
PATIENCE = 3


class Desk:
    """Reads and writes for one session; what it learns goes to the planner."""

    def __init__(self, session: Session, planner: Planner) -> None:
        self._session = session
        self._planner = planner
        self._cursor: str | None = None
        self._results: dict[str, Finding] = {}
        self._own_runs: dict[str, Recipe] = {}
        self._own_times: list[datetime] = []
        self._plans: dict[str, Finding] = {}

    def remember(self, run_id: str, recipe: Recipe) -> None:
        """Note what an own run tries."""
        self._own_runs[run_id] = recipe

    def has_posted(self, run_id: str) -> bool:
        """Whether its agent's result about this run is on the forum, which takes none before the evaluation."""
        return run_id in self._results

    async def list_own_runs(self) -> list[RunView]:
        """This agent's runs of the task, newest first."""
        return [run for run in await all_runs(self._session.tools) if run.task == self._session.task]

    async def read_forum(self) -> None:
        """Take in what is new on the forum and the leaderboard, of which the 500 best runs are told.

        Others are scored, post, and then plan anew. Read the other way round, nothing is missed that comes meanwhile.
        """
        await self._read_plans()
        for finding in await self._new_findings():
            if finding.run_id and finding.kind == "result":
                self._results[finding.run_id] = finding
        board = await self._session.ask(
            Leaderboard, "evaluation", "leaderboard", task=self._session.task, limit=MAX_ROWS
        )
        self._own_times = [row.evaluated_at for row in board.rows if row.agent == self._session.agent]
        for row in board.rows:
            self._learn(row)

    def _learn(self, row: LeaderboardRow) -> None:
        """Recipes come from own runs, file names and findings; numbers from the evaluation server alone."""
        finding = self._results.get(row.run_id)
        stated = Recipe.from_text(finding.text) if finding else None
        recipe = self._own_runs.get(row.run_id) or Recipe.of_file(row.method) or stated
        if recipe is None:
            return
        result = Result(
            run_id=row.run_id,
            agent=row.agent,
            recipe=recipe,
            pgr=row.pgr,
            at_most=row.at_most,
            pgr_se=row.pgr_se,
            finding_id=finding.finding_id if finding else None,
        )
        if self._planner.learn(result) and row.agent != self._session.agent:
            self._session.say(f"learned from {row.agent}: {recipe.label}", run_id=row.run_id)

    async def write_file(self, path: str, text: str) -> None:
        """Write a workspace file."""
        await self._session.ask(FileWritten, "filesystem", "write_file", path=path, text=text)

    async def announce(self, proposal: Proposal | None) -> None:
        """Say what comes next before it begins, in a finding that is kept up to date; then read what others say."""
        direction = self._session.direction.strip()
        text = writing.plan(direction, proposal)
        if (mine := self._plans.get(self._session.agent)) is not None:
            await self._edit(mine.finding_id, text)
        elif proposal is not None:
            title = direction.splitlines()[0].strip("# ")[:160]
            # others with the same direction plan as well: that theirs reads alike is no reason to keep it back
            await self._post("hypothesis", title, text, tags=[PLAN], anyway=True)
        await self._read_plans()

    @property
    def claimed(self) -> list[Recipe]:
        """What others are trying."""
        return [recipe for recipe, _ in self._claims()]

    def came_first(self, recipe: Recipe) -> bool:
        """Whether nobody announced this before this agent did."""
        mine = self._plans.get(self._session.agent)
        return mine is None or not any(
            other.same_as == recipe.same_as and at < _said_at(mine) for other, at in self._claims()
        )

    def _claims(self) -> list[tuple[Recipe, datetime]]:
        """What others announced, and when. Who is silent while this agent gets results may be gone: no claim lasts."""
        plans = [(plan, _said_at(plan)) for plan in self._plans.values() if plan.author != self._session.agent]
        fresh = [(plan, at) for plan, at in plans if sum(time > at for time in self._own_times) < PATIENCE]
        return [(recipe, at) for plan, at in fresh if (recipe := Recipe.from_text(plan.text)) is not None]

    async def post_result(self, proposal: Proposal, run_id: str, verdict: str) -> None:
        """Post an evaluated run, answer in the thread that it builds on, and write it down."""
        title, text = writing.result_title(proposal.recipe), writing.result_text(proposal, verdict)
        self._session.say(f"posting {title}", run_id=run_id)
        await self._post("result", title, text, run_id, [one.finding_id or one.run_id for one in proposal.parents])
        for parent in proposal.parents[:1]:
            if parent.finding_id and parent.agent != self._session.agent:
                await self._answer(parent.finding_id, writing.reply_text(proposal, run_id, verdict), verdict)
        await self.write_notebook(f"after {proposal.recipe.label}")

    async def post_error(self, recipe: Recipe, message: str) -> None:
        """Post what did not work, so that nobody tries it again."""
        text = f"{writing.describe(recipe)}\n\n{message[:2000]}"
        await self._post("error", f"{recipe.label} fails"[:160], text)

    async def write_notebook(self, doing: str) -> None:
        """Write down what is known."""
        session = self._session
        text = writing.notebook(session.agent, session.direction, self._planner.results, doing)
        await self.write_file(NOTEBOOK, text)

    async def save_snapshot(self, message: str) -> None:
        """Save the workspace for others to load."""
        await self._session.ask(Snapshot, "filesystem", "save_snapshot", message=message[:200], shared=True)

    async def finish(self) -> None:
        """At the end: what was learned, the last notebook, and the nominations."""
        self._session.say("writing up")
        results = self._planner.results
        text = writing.insight(results)
        if text and results[0].agent == self._session.agent:  # one agent writes it, or all would post the same
            title = f"What the parts of a method do, over {len(results)} runs"
            await self._post("insight", title, text)
        await self.announce(None)
        await self.write_notebook("finished")
        own = [result.run_id for result in results if result.agent == self._session.agent]
        if own:
            await self.save_snapshot(f"at the end, {len(own)} runs")
            await self._session.ask(Nominations, "evaluation", "nominate", run_ids=own[:NOMINATED])
        self._session.say("done")

    async def _read_plans(self) -> None:
        """Take in what each agent tries. One plan of each: whoever posts more claims no more."""
        found = reversed(await all_findings(self._session.tools, tag=PLAN))
        self._plans = {one.author: one for one in found if self._session.task in one.tags}

    async def _new_findings(self) -> list[Finding]:
        """Findings since the last look; at the first look, all."""
        listed = pages(self._session.tools, FindingList, "forum", "list_threads", self._cursor, limit=PAGE)
        found = [page async for page in listed]
        self._cursor = found[0].next_cursor
        return [one for page in found for one in page.findings]

    async def _post(
        self,
        kind: FindingKind,
        title: str,
        text: str,
        run_id: str | None = None,
        built_on: Sequence[str] = (),
        tags: Sequence[str] = (),
        anyway: bool = False,
    ) -> None:
        """Post a finding. One that the forum refuses, such as because another agent said the same, stays unsaid."""
        digest = hashlib.sha256(f"{title}\0{text}\0{run_id}".encode()).hexdigest()
        try:
            await self._session.ask(
                Posted,
                "forum",
                "post_finding",
                title=title,
                text=text,
                kind=kind,
                run_id=run_id,
                built_on=list(built_on),
                tags=["offline", self._session.task, *tags],
                anyway=anyway,
                request_id=f"{kind}-{digest[:20]}",
            )
        except ToolRefusedError as error:
            self._session.say(f"the forum refused my {kind}", error=str(error))

    async def _edit(self, post_id: str, text: str) -> None:
        """Change an own finding, unless it is gone."""
        try:
            await self._session.ask(Posted, "forum", "edit_post", post_id=post_id, text=text)
        except ToolRefusedError as error:
            self._session.say("the forum refused my edit", error=str(error))

    async def _answer(self, finding_id: str, text: str, verdict: str) -> None:
        """Reply and vote in another agent's thread. A thread that is gone is no reason to stop."""
        request_id = f"reply-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
        try:
            await self._session.ask(Posted, "forum", "reply", thread_id=finding_id, text=text, request_id=request_id)
            if verdict == "better":
                await self._session.ask(Voted, "forum", "vote", post_id=finding_id, value=1)
        except ToolRefusedError as error:
            self._session.say("the thread that I built on refused my answer", error=str(error))


def _said_at(plan: Finding) -> datetime:
    return plan.edited_at or plan.posted_at
