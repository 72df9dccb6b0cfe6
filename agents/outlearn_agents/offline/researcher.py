"""The offline researcher: a search that reads the forum, builds on others' verified results and posts its own."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from outlearn.errors import ConfigError, ToolRefusedError
from outlearn.researcher import Session
from outlearn.types import FINISHED, BudgetView, Evaluation, MethodList, RunView
from outlearn_agents.offline.desk import Desk
from outlearn_agents.offline.pace import Pace
from outlearn_agents.offline.planner import Planner, Proposal, Result
from outlearn_agents.offline.recipes import Recipe
from outlearn_agents.offline.render import render
from outlearn_agents.offline.space import Space
from outlearn_agents.offline.writing import describe

WAIT_SECONDS = 3.0
BUDGET_POLL_SECONDS = 600.0
YIELDS = 5


class OfflineResearcher:
    """Searches methods without a language model.

    It makes no pilots: a pilot gets no score, and a full run of a broken method fails at its first seed as well.
    """

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        if options:
            raise ConfigError(f"the offline researcher has no options; it got {', '.join(options)}")

    async def research(self, session: Session) -> None:
        """Work until the session stops, the evaluations are used up, or nothing fits into the time that is left."""
        methods = (await session.ask(MethodList, "training", "list_methods")).methods
        planner = Planner(Space(methods), session.agent, session.direction, session.seed)
        await _Search(session, planner).run()


class _Search:
    """One session of search. What it knows is on the servers; nothing here must survive a crash."""

    def __init__(self, session: Session, planner: Planner) -> None:
        self._session = session
        self._planner = planner
        self._pace = Pace()
        self._desk = Desk(session, planner)
        self._taken: dict[str, Recipe] = {}
        self._attempts: Counter[str] = Counter()

    async def run(self) -> None:
        """Search until the end, then write up."""
        await self._take_up()
        while self._session.stop.seconds_left > 0 and await self._may_evaluate():
            proposal = await self._choose()
            if proposal is None:
                self._session.say("nothing new fits into the time that is left")
                break
            await self._try(proposal)
        await self._desk.read_forum()
        await self._desk.finish()

    async def _take_up(self) -> None:
        """Go on from an earlier session: follow its unfinished runs, evaluate and post what is not yet."""
        earlier = [(run, recipe) for run in await self._desk.list_own_runs() if (recipe := Recipe.of_run(run))]
        for run, recipe in earlier:
            self._desk.remember(run.run_id, recipe)
            self._take(recipe)
            self._pace.note(run)
        await self._desk.read_forum()
        for run, recipe in reversed(earlier):
            if run.kind == "full" and run.status not in ("failed", "cancelled"):
                await self._conclude(run, Proposal(recipe=recipe, reason="taken up from an earlier session"))

    async def _choose(self) -> Proposal | None:
        """What to try next, announced. Of agents that announce the same, all but the first look for something else."""
        proposal = None
        for _ in range(YIELDS):
            await self._desk.read_forum()
            proposal = self._propose()
            if proposal is None:
                break
            await self._desk.announce(proposal)
            if self._desk.came_first(proposal.recipe):
                break
            self._planner.failed(proposal.recipe)
        return proposal

    def _propose(self) -> Proposal | None:
        left = self._session.stop.seconds_left
        return self._planner.propose(
            self._taken.values(), lambda recipe: self._pace.seconds(recipe) <= left, self._desk.claimed
        )

    async def _may_evaluate(self) -> bool:
        """Whether an evaluation is left; waits for tomorrow's where today's are used up and tomorrow is in time."""
        stop = self._session.stop
        budget = await self._session.ask(BudgetView, "evaluation", "get_budget")
        while budget.agent_today_left == 0 and budget.agent_left > 0 and stop.seconds_left > seconds_to_tomorrow():
            self._session.say("today's evaluations are used up; waiting for tomorrow's")
            await stop.sleep(min(BUDGET_POLL_SECONDS, seconds_to_tomorrow() + 1))
            budget = await self._session.ask(BudgetView, "evaluation", "get_budget")
        return min(budget.agent_left, budget.team_left, budget.agent_today_left) > 0

    async def _try(self, proposal: Proposal) -> None:
        try:
            run = await self._submit(proposal.recipe)
        except ToolRefusedError as error:
            self._take(proposal.recipe)
            self._planner.failed(proposal.recipe)
            await self._desk.post_error(proposal.recipe, str(error))
            return
        self._take(proposal.recipe)
        self._desk.remember(run.run_id, proposal.recipe)
        await self._conclude(run, proposal)

    def _take(self, recipe: Recipe) -> None:
        """Note that a recipe was tried."""
        self._taken[recipe.key] = recipe
        self._attempts[recipe.key] += 1

    async def _submit(self, recipe: Recipe) -> RunView:
        """Queue a full run; a retry of the same call would find the first one's run."""
        what: dict[str, Any] = {"method": recipe.family, "params": recipe.params}
        if composition := recipe.composition:
            self._session.say(f"writing {recipe.file}")
            await self._desk.write_file(recipe.file, render(composition))
            what = {"file": recipe.file}
        digest = hashlib.sha256(recipe.key.encode()).hexdigest()[:16]
        request_id = f"offline-{digest}-{self._attempts[recipe.key]}"
        return await self._session.ask(
            RunView, "training", "submit_run", kind="full", task=self._session.task, request_id=request_id, **what
        )

    async def _conclude(self, run: RunView, proposal: Proposal) -> None:
        """Follow a run to its end, evaluate it, and tell the others."""
        if run.status not in FINISHED:
            run = await self._follow(run, proposal)
            self._pace.note(run)
        if run.status == "done":
            await self._evaluate(run, proposal)
        else:
            self._planner.failed(proposal.recipe)
            if run.status == "failed":
                await self._desk.post_error(proposal.recipe, run.message)

    async def _follow(self, run: RunView, proposal: Proposal) -> RunView:
        session = self._session
        while run.status not in FINISHED:
            if session.stop.seconds_left <= 0:
                session.say(f"{'asked to stop' if session.stop.asked else 'out of time'}: cancelling {run.run_id}")
                return await session.ask(RunView, "training", "cancel_run", run_id=run.run_id)
            waiting = f", {run.queue_position} ahead" if run.queue_position else ""
            session.say(f"{run.status} {proposal.recipe.label} ({run.seeds_done}/{run.seeds_total} seeds{waiting})")
            wait = min(WAIT_SECONDS, session.stop.seconds_left)
            run = await session.ask(RunView, "training", "get_run", run_id=run.run_id, wait_seconds=wait)
        return run

    async def _evaluate(self, run: RunView, proposal: Proposal) -> None:
        """Evaluate and post a finished run, each unless it was done before."""
        if self._desk.has_posted(run.run_id):  # on a long leaderboard its row may be below what is told
            return
        if run.run_id in {result.run_id for result in self._planner.results}:
            await self._desk.post_result(proposal, run.run_id, "")
            return
        self._session.say(f"evaluating {proposal.recipe.label}")
        best = self._planner.results[:1]
        rivals = [*proposal.parents, *best]
        against = rivals[0].run_id if rivals else None
        try:
            evaluation = await self._session.ask(
                Evaluation, "evaluation", "evaluate", run_id=run.run_id, against=against
            )
        except ToolRefusedError as error:
            self._planner.failed(proposal.recipe)
            self._session.say("not evaluated", error=str(error))
            return
        result = Result(
            run_id=run.run_id,
            agent=self._session.agent,
            recipe=proposal.recipe,
            pgr=evaluation.pgr,
            at_most=evaluation.at_most,
            pgr_se=evaluation.pgr_se,
        )
        self._planner.learn(result)
        await self._desk.post_result(proposal, run.run_id, evaluation.verdict or "")
        if not best or result.floor > best[0].floor:
            await self._desk.save_snapshot(f"{proposal.recipe.label}: {describe(proposal.recipe)}")


def seconds_to_tomorrow() -> float:
    """Seconds until the next day begins in UTC, when the evaluation server gives out new evaluations."""
    now = datetime.now(UTC)
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    return (midnight - now).total_seconds()
