"""The offline researcher against the four real servers; only the training itself is scripted."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from outlearn.errors import ConfigError
from outlearn.researcher import Session, Stop, ask
from outlearn.types import (
    BudgetView,
    Evaluation,
    FileText,
    Finding,
    FindingList,
    Leaderboard,
    MethodList,
    Posted,
    RunList,
    RunView,
    SnapshotList,
    Thread,
)
from outlearn_agents.offline import OfflineResearcher
from outlearn_agents.offline.desk import Desk
from outlearn_agents.offline.planner import Planner
from outlearn_agents.offline.recipes import Recipe
from outlearn_agents.offline.space import Space
from outlearn_training.queue.tables import Run

EARLY = "# Early students\n\nLook at early students and iterate."


async def findings(session: Session) -> list[Finding]:
    return list((await session.ask(FindingList, "forum", "list_threads", limit=50)).findings)


async def own_runs(session: Session) -> list[RunView]:
    return list((await session.ask(RunList, "training", "list_runs", limit=50)).runs)


async def test_it_tries_methods_and_leaves_a_record_of_all_of_it(open_session: Any) -> None:
    async with open_session("ada", direction=EARLY) as session:
        await OfflineResearcher().research(session)
        posts = await findings(session)
        runs = await own_runs(session)
        board = (await session.ask(Leaderboard, "evaluation", "leaderboard")).rows
        notebook = await session.ask(FileText, "filesystem", "read_file", path="notebook.md")
        method = await session.ask(FileText, "filesystem", "read_file", path="methods/early25.py")
        snapshots = (await session.ask(SnapshotList, "filesystem", "list_snapshots")).snapshots
    assert len(runs) == len(board) == 6  # the evaluations of a day
    assert all(run.status == "done" and run.kind == "full" for run in runs)
    assert sum(post.kind == "hypothesis" for post in posts) == 1
    results = {post.run_id: post for post in posts if post.kind == "result"}
    assert results.keys() == {run.run_id for run in runs}
    assert all(post.verified and "PGR" not in post.title for post in results.values())
    assert "def method(lab, seed):" in method.text
    assert f"{board[0].pgr:.2f} ± " in notebook.text
    assert snapshots
    assert all(snapshot.shared for snapshot in snapshots)
    assert sum(row.nominated for row in board) == 2
    assert board[0].nominated


async def test_it_builds_on_another_agents_result_and_tells_them(open_session: Any) -> None:
    async with open_session("boole", direction=EARLY) as boole:
        await OfflineResearcher().research(boole)
    poor = {"accuracy": lambda _: 0.55, "agent_evaluations": 14, "daily_evaluations": 14}
    async with open_session("ada", seed=5, **poor) as ada:
        await OfflineResearcher().research(ada)
        posts = await findings(ada)
        theirs = {post.finding_id for post in posts if post.author == "boole"}
        built = [post for post in posts if post.author == "ada" and "builds on finding-" in post.text]
        assert any(finding_id in post.text for post in built for finding_id in theirs)
        threads = [await ada.ask(Thread, "forum", "read_thread", thread_id=post) for post in theirs]
    heirs = [node.agent for one in threads for node in one.built_by]
    assert "ada" in heirs
    assert any(reply.author == "ada" and "built on this" in reply.text for one in threads for reply in one.replies)
    slugs = {post.title for post in posts if post.kind == "result" and post.author == "boole"}
    assert not slugs & {post.title for post in posts if post.kind == "result" and post.author == "ada"}


async def test_it_says_what_it_tries_before_it_tries_it(open_session: Any) -> None:
    announced, tried = [], []
    async with open_session("ada", direction=EARLY) as session:
        call = session.tools.call

        async def watched(server: str, tool: str, arguments: Any) -> Any:
            if tool == "submit_run":
                (plan,) = (await session.ask(FindingList, "forum", "list_threads", tag="plan")).findings
                announced.append(Recipe.from_text(plan.text))
            answer = await call(server, tool, arguments)
            tried.extend([Recipe.of_run(RunView.model_validate(answer.content))] if tool == "submit_run" else [])
            return answer

        session.tools.call = watched
        await OfflineResearcher().research(session)
        (plan,) = (await session.ask(FindingList, "forum", "list_threads", tag="plan")).findings
    assert len(tried) == 6
    assert announced == tried
    assert plan.text.startswith("I have finished.")


async def test_agents_that_begin_together_in_one_direction_repeat_nothing(open_session: Any) -> None:
    async with open_session("ada") as ada, open_session("boole") as boole, open_session("curie") as curie:
        team = (ada, boole, curie)
        async with anyio.create_task_group() as group:
            for session in team:
                group.start_soon(OfflineResearcher().research, session)
        runs = [run for session in team for run in await own_runs(session)]
    tried = [recipe.same_as for run in runs if (recipe := Recipe.of_run(run))]
    assert len(tried) == 18
    assert len(set(tried)) == 18


async def test_who_claims_a_method_and_falls_silent_keeps_it_from_nobody(open_session: Any) -> None:
    async with open_session("gone") as gone:
        claim = Recipe(family="self_train", params=await defaults(gone, "self_train"))
        await gone.ask(
            Posted, "forum", "post_finding", title="I try it", text=f"recipe: {claim.model_dump_json()}",
            kind="hypothesis", tags=["plan", "toy"],
        )  # fmt: skip
    async with open_session("ada", direction=EARLY, agent_evaluations=14, daily_evaluations=14) as ada:
        await OfflineResearcher().research(ada)
        methods = [run.method for run in reversed(await own_runs(ada))]
    assert "self_train" not in methods[:3]
    assert "self_train" in methods


@pytest.mark.parametrize("task", ["toy", "another"])
async def test_only_plans_of_the_same_task_claim_anything(open_session: Any, task: str) -> None:
    claim = Recipe(family="self_train")
    async with open_session("boole") as boole:
        await boole.ask(
            Posted, "forum", "post_finding", title="I try it", text=f"recipe: {claim.model_dump_json()}",
            kind="hypothesis", tags=["plan", task],
        )  # fmt: skip
    async with open_session("ada") as ada:
        desk = Desk(ada, Planner(Space(()), "ada", EARLY, seed=0))
        await desk.read_forum()
        assert desk.claimed == ([claim] if task == "toy" else [])


async def defaults(session: Session, method: str) -> dict[str, Any]:
    listed = (await session.ask(MethodList, "training", "list_methods")).methods
    (properties,) = [one.params["properties"] for one in listed if one.name == method]
    return {name: value["default"] for name, value in properties.items()}


async def test_started_again_it_finishes_what_a_crash_left_and_repeats_nothing(open_session: Any) -> None:
    async with open_session("ada", direction=EARLY, agent_evaluations=3) as session:
        await OfflineResearcher().research(session)
        before, posts_before = await own_runs(session), await findings(session)
        # a crash after a submission, and one after an evaluation
        path = "methods/zsagree.py"
        await session.tools.call("filesystem", "write_file", {"path": path, "text": "def method(lab, seed): ..."})
        await session.ask(RunView, "training", "submit_run", file=path, kind="full")
        left = await session.ask(RunView, "training", "submit_run", method="vanilla", kind="full")
    async with open_session("ada", direction=EARLY, agent_evaluations=5, daily_evaluations=5) as session:
        await session.ask(Evaluation, "evaluation", "evaluate", run_id=left.run_id)
        await OfflineResearcher().research(session)
        runs, posts = await own_runs(session), await findings(session)
    assert len(runs) == len(before) + 2
    assert sum(post.kind == "hypothesis" for post in posts) == 1
    results = [post.run_id for post in posts if post.kind == "result"]
    assert sorted(results) == sorted(run.run_id for run in runs)
    assert len(posts) >= len(posts_before) + 2


async def test_started_again_it_pays_for_no_run_twice_that_stands_below_what_a_leaderboard_tells(
    open_session: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outlearn_agents.offline.desk.MAX_ROWS", 1)
    async with open_session("ada", direction=EARLY) as session:
        await OfflineResearcher().research(session)
        before = await findings(session)
    many = {"agent_evaluations": 30, "daily_evaluations": 30}
    async with open_session("ada", direction=EARLY, **many) as session:
        left = (await session.ask(BudgetView, "evaluation", "get_budget")).agent_left
        session.stop.ask()
        await OfflineResearcher().research(session)
        assert (await session.ask(BudgetView, "evaluation", "get_budget")).agent_left == left
        results = [
            [post.run_id for post in posts if post.kind == "result"] for posts in (before, await findings(session))
        ]
    assert results[0] == results[1]


async def test_two_sessions_with_one_seed_do_the_same(open_session: Any, toy_home: Path) -> None:
    tried = []
    for agent in ("ada", "boole"):
        async with open_session(agent, direction=EARLY, seed=9, agent_evaluations=4) as session:
            hide_others(session, agent)
            await OfflineResearcher().research(session)
            tried.append([(run.method, run.params) for run in await own_runs(session)])
    assert tried[0] == tried[1]


def hide_others(session: Session, agent: str) -> None:
    """Show the agent an empty forum and its own part of the leaderboard."""
    call = session.tools.call

    async def filtered(server: str, tool: str, arguments: Any) -> Any:
        answer = await call(server, tool, arguments)
        for name in ("rows", "findings"):
            if answer.content and name in answer.content:
                mine = [one for one in answer.content[name] if agent in (one.get("agent"), one.get("author"))]
                answer = answer.model_copy(update={"content": {**answer.content, name: mine}})
        return answer

    session.tools.call = filtered  # type: ignore[method-assign]


async def test_a_method_that_fails_is_posted_as_an_error_and_not_tried_again(open_session: Any) -> None:
    def accuracy(run: Run) -> float:
        return math.nan if "early" in run.method else 0.7

    async with open_session("ada", direction=EARLY, accuracy=accuracy) as session:
        await OfflineResearcher().research(session)
        errors = [post for post in await findings(session) if post.kind == "error"]
        runs = await own_runs(session)
    assert any("ZeroDivisionError in line 3" in post.text for post in errors)
    failed = [run.method for run in runs if run.status == "failed"]
    assert failed
    assert len(failed) == len(set(failed))


async def test_numbers_and_recipes_that_others_claim_prove_nothing(open_session: Any) -> None:
    claim = 'PGR 0.99!\nrecipe: {"family":"composed","slug":"soft"}'
    async with open_session("mallory") as mallory:
        await mallory.ask(Posted, "forum", "post_finding", title="PGR 0.99", text=claim, kind="insight")
    async with open_session("ada", direction=EARLY) as ada:
        await OfflineResearcher().research(ada)
        posts = await findings(ada)
    assert not any("mallory" in post.text for post in posts if post.author == "ada")


async def test_asked_to_stop_it_cancels_its_run_and_still_writes_up(open_session: Any) -> None:
    async with open_session("ada", direction=EARLY) as session:
        call, stop = session.tools.call, session.stop

        async def stuck(server: str, tool: str, arguments: Any) -> Any:
            answer = await call(server, tool, arguments)
            if tool == "submit_run":
                stop.ask()
            return answer

        session.tools.call = stuck
        await OfflineResearcher().research(session)
        assert "finished" in (await session.ask(FileText, "filesystem", "read_file", path="notebook.md")).text
    assert stop.asked


async def test_without_evaluations_it_does_not_train(open_session: Any) -> None:
    async with open_session("ada", agent_evaluations=0) as session:
        await OfflineResearcher().research(session)
        assert await own_runs(session) == []


@pytest.mark.parametrize("tomorrow", [1e6, 0.5])
async def test_it_waits_for_tomorrows_evaluations_only_if_tomorrow_is_in_time(
    open_session: Any, monkeypatch: pytest.MonkeyPatch, tomorrow: float
) -> None:
    monkeypatch.setattr("outlearn_agents.offline.researcher.seconds_to_tomorrow", lambda: tomorrow)
    said: list[str] = []
    waiting = "today's evaluations are used up; waiting for tomorrow's"
    async with open_session("ada", daily_evaluations=1, agent_evaluations=9) as session:

        def hear(doing: str) -> None:
            said.append(doing)
            if doing == waiting:
                session.stop.ask()

        await OfflineResearcher().research(dataclasses.replace(session, on_status=hear))
        assert len((await ask(session.tools, Leaderboard, "evaluation", "leaderboard")).rows) == 1
    assert (waiting in said) == (tomorrow < 3)
    assert said[-1] == "done"


def test_it_has_no_options() -> None:
    with pytest.raises(ConfigError, match="no options; it got model"):
        OfflineResearcher({"model": "x"})


def test_a_stop_that_was_asked_for_leaves_no_time() -> None:
    stop = Stop(100)
    assert 99 < stop.seconds_left <= 100
    stop.ask()
    assert stop.seconds_left == 0
