"""Comparing teams, families of methods, and the nudge for a team that converges."""

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from outlearn.errors import InvalidInputError
from outlearn.types import Evaluation, FileWritten, Finding, FindingList, RunView
from outlearn_agents import cli
from outlearn_agents.commands.compare import comparison_table, render_comparison
from outlearn_agents.report.at_rest import collect_at_rest
from outlearn_agents.report.comparison import Comparison, compare_teams, text_distance
from outlearn_agents.report.families import Submitted, effective_number, family_of, submitted_runs
from outlearn_agents.report.summary import AgentSummary, FindingSummary, RunSummary, Summary
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.spending.ledger import Ledger
from outlearn_agents.team import convergence
from outlearn_agents.team.convergence import Nudger

START = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"
WEIGHTED = "def method(lab, seed):\n    p = lab.zero_shot()\n    return lab.fit(lab.weak_labels(), weights=p)\n"


def team(pgrs: Sequence[float], *, task: str = "toy", texts: Sequence[str] = (), hours: float = 1.0) -> Summary:
    runs = [
        RunSummary(
            run_id=f"run-{number:06d}", agent="ada", method="vanilla", seeds=5, pgr=pgr, pgr_se=0.05,
            evaluated_at=START + timedelta(hours=hours * (number + 1)),
        )
        for number, pgr in enumerate(pgrs)
    ]  # fmt: skip
    findings = [
        FindingSummary(
            finding_id=f"finding-{number}", kind="insight", title="", text=text, author=f"agent{number}",
            posted_at=START + timedelta(hours=number),
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
    best = max(runs, key=lambda run: run.pgr, default=None)
    return Summary(
        task=task, weak_acc=0.6, ceiling_acc=0.9, runs=tuple(runs), best=best, findings=tuple(findings),
        agents=(AgentSummary(name="ada", researcher="offline", direction="# x", runs=len(runs)),),
        started_at=START, wall_seconds=1.0,
    )  # fmt: skip


def submitted(*sources: str) -> list[Submitted]:
    return [
        Submitted(
            run_id=f"run-{number:06d}", agent=f"agent{number % 3}", method="m.py", kind="full", status="done",
            submitted_at=START + timedelta(hours=number), source=source,
        )
        for number, source in enumerate(sources)
    ]  # fmt: skip


def test_areas_go_as_far_as_the_shorter_team() -> None:
    found = compare_teams({"a": (team([0.2, 0.6, 0.4]), ()), "b": (team([0.5, -0.3]), ())})
    assert (found.common_evaluations, found.common_hours) == (2, 2.0)
    a, b = found.teams
    assert a.area_over_evaluations
    assert b.area_over_evaluations
    assert a.area_over_evaluations.mean == pytest.approx(0.4, abs=0.005)
    assert b.area_over_evaluations.mean == pytest.approx(0.5, abs=0.005)
    assert a.area_over_time
    assert a.area_over_time.mean == pytest.approx(0.1, abs=0.005), "nothing for an hour, 0.2 for another"
    assert a.area_over_evaluations.low < 0.36 < 0.44 < a.area_over_evaluations.high
    assert [point.best for point in a.curve] == [0.2, 0.6, 0.6]
    assert found.differences[0].verdict == "no clear difference"
    assert compare_teams({"a": (team([0.9]), ()), "b": (team([0.5]), ())}).differences[0].verdict.startswith("a has")
    with pytest.raises(InvalidInputError, match="different tasks"):
        compare_teams({"a": (team([]), ()), "b": (team([], task="math"), ())})


def test_the_luck_of_the_best_of_many_adds_little_to_an_area() -> None:
    """As measured, these areas are 0.025 too high, and plain percentiles would hold 4 of 10 true ones."""
    rng = np.random.default_rng(0)
    good = rng.normal(0.6, 0.1, size=(40, 60))
    scores = good + rng.normal(0, 0.05, size=good.shape)
    true = np.maximum.accumulate(good, axis=1).mean(axis=1)
    found = compare_teams({str(number): (team([*row]), ()) for number, row in enumerate(scores)}).teams
    areas = [one.area_over_evaluations for one in found if one.area_over_evaluations]
    assert np.mean([area.mean for area in areas] - true) == pytest.approx(0.0, abs=0.015)
    assert np.mean([area.low <= one <= area.high for area, one in zip(areas, true, strict=True)]) >= 0.75
    assert all(area.low <= area.mean <= area.high for area in areas)
    without = compare_teams({"a": (team([-0.4, -0.5, -0.3]), ())}).teams[0].area_over_evaluations
    assert without
    assert (without.low, without.mean) == (0.0, 0.0)


def test_runs_of_before_the_team_take_no_time() -> None:
    """As in a home that clients used before a team came."""
    early = team([0.4, 0.6], hours=1.0).model_copy(update={"started_at": START + timedelta(hours=1.5)})
    found = compare_teams({"a": (early, ())}).teams[0]
    assert [point.hours for point in found.curve] == [0.0, 0.5]
    assert found.area_over_time
    assert found.area_over_time.mean == pytest.approx(0.4, abs=0.005)


def test_a_team_that_was_paused_and_away_is_as_fast_as_one_that_was_not() -> None:
    """The pause and the break come after the first evaluation, and before the last third of the findings."""
    steady, texts = [0.2, 0.6, 0.8, 0.8], ("one", "two", "three", "four")
    rested = team(steady, texts=texts)
    runs, findings = (
        tuple(
            one.model_copy(update={name: at(number) for name in ("evaluated_at", "posted_at") if hasattr(one, name)})
            for number, one in enumerate(some)
        )
        for some, at in (
            (rested.runs, lambda number: START + timedelta(hours=number + 1 + 50 * (number > 0))),
            (rested.findings, lambda number: START + timedelta(hours=number + 50 * (number > 1))),
        )
    )
    hour = timedelta(hours=1)
    spans = ((START, START + 1.5 * hour), (START + 51.5 * hour, START + 60 * hour))
    rested = rested.model_copy(update={"runs": runs, "findings": findings, "at_work": spans})
    found = compare_teams({"a": (rested, ()), "b": (team(steady, texts=texts), ())})
    a, b = found.teams
    assert [point.hours for point in a.curve] == [point.hours for point in b.curve] == [1.0, 2.0, 3.0, 4.0]
    assert a.area_over_time == b.area_over_time
    assert a.diversity.text_distance_over_time == b.diversity.text_distance_over_time
    assert not any("slower" in one for one in found.caveats)


def test_a_best_pgr_that_is_only_known_to_be_low_is_shown_so() -> None:
    low = team([0.1])
    run = low.runs[0].model_copy(update={"at_most": True})
    found = compare_teams({"a": (low.model_copy(update={"runs": (run,), "best": run}), ())})
    assert "&lt;=0.10 ± 0.05" in render_comparison(found)
    console = Console(file=StringIO(), width=120)
    console.print(comparison_table(found))
    assert "<=0.10 ± 0.05" in console.file.getvalue()  # type: ignore[attr-defined]


def test_it_is_said_how_far_areas_go() -> None:
    found = compare_teams({"a": (team([0.5, 0.6], hours=0.01), ()), "b": (team([0.5], hours=0.02), ())})
    console = Console(file=StringIO(), width=160)
    console.print(comparison_table(found))
    page = render_comparison(found)
    assert "area over 1 min 12 s" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "area over 1 min 12 s" in page
    assert "area over 1 evaluation<" in page


def test_teams_without_results_can_be_compared() -> None:
    found = compare_teams({"a": (team([]), ()), "b": (team([0.5]), submitted(PLAIN))})
    assert found.teams[0].best is None
    assert found.differences == ()
    assert "<svg" in render_comparison(found)


def test_diversity_is_over_families_and_words_and_over_time() -> None:
    texts = ["labels of the teacher", "labels of the teacher", "hidden states", "evolution strategies"]
    sources = submitted(PLAIN, PLAIN, PLAIN, WEIGHTED, PLAIN, WEIGHTED)
    ideas = compare_teams({"a": (team([0.5], texts=texts), sources)}).teams[0].diversity
    assert ideas.families == {"plain": 4, "weights+zero-shot": 2}
    assert 1 < ideas.effective_families < 2
    assert ideas.effective_families_over_time == (1.0, 2.0, 2.0)
    assert ideas.text_distance
    assert 0.5 < ideas.text_distance < 1
    assert ideas.text_distance_over_time[0] == 0.0


@given(st.lists(st.sampled_from("abcde"), max_size=30))
def test_the_effective_number_lies_between_one_and_the_number(names: list[str]) -> None:
    number = effective_number(names)
    assert (1 - 1e-9 if names else 0) <= number <= len(set(names)) + 1e-9


def test_words_in_common_make_findings_alike() -> None:
    same, other = team([], texts=["early students know", "early students know"]), team([], texts=["one", "two"])
    assert (text_distance(same.findings), text_distance(other.findings)) == (0.0, 1.0)
    assert text_distance(same.findings[:1]) is None
    assert text_distance([]) is None


def test_a_family_is_what_a_method_uses_of_the_lab() -> None:
    assert family_of(PLAIN) == "plain"
    assert family_of("def method(lab, seed):\n    return lab.fit([1.0])") == "no labels"
    rounds = PLAIN.replace("    return", "    lab.fit(lab.weak_labels(), epochs=0.2)\n    return")
    assert family_of(rounds) == "length+rounds"
    looped = "def method(lab, seed):\n    return [lab.fit(lab.weak_labels(), items=p) for p in parts(lab.embed())]"
    assert family_of(looped) == "embeddings+rounds+subset"
    registered = submitted(PLAIN)[0].model_copy(update={"method": "vanilla"})
    assert (registered.family, submitted(WEIGHTED)[0].family) == ("vanilla", "weights+zero-shot")


async def test_a_team_that_converges_is_nudged_once(open_session: Any, toy_home: Path) -> None:
    nudger = Nudger(RunFolder(toy_home))

    async def posts(tools: Any) -> list[Finding]:
        return [*(FindingList.model_validate((await tools.call("forum", "list_threads", {})).content)).findings]

    async with open_session("operator") as operator:
        for number in range(12):
            assert not await nudger.look(operator.tools)
            async with open_session(f"agent{number % 3}") as session:
                await session.ask(RunView, "training", "submit_run", method="vanilla", request_id=f"r{number}")
        assert await nudger.look(operator.tools)
        assert not await nudger.look(operator.tools)
        found = await posts(operator.tools)
    assert [(one.author, one.kind) for one in found] == [("operator", "insight")]
    assert "12 of the last 12 runs" in found[0].text


async def test_a_database_that_does_not_answer_is_asked_another_time(
    open_session: Any, toy_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> list[Submitted]:
        raise OperationalError("select", {}, Exception("the server closed the connection"))

    monkeypatch.setattr(convergence, "submitted_runs", gone)
    async with open_session("operator") as operator:
        assert not await Nudger(RunFolder(toy_home)).look(operator.tools)


async def test_run_folders_are_compared_from_the_command_line(open_session: Any, toy_home: Path) -> None:
    async with open_session("ada") as session:
        await session.ask(FileWritten, "filesystem", "write_file", path="mine.py", text=WEIGHTED)
        run = await session.ask(RunView, "training", "submit_run", file="mine.py", kind="full")
        await session.ask(Evaluation, "evaluation", "evaluate", run_id=run.run_id)
    folder = RunFolder(toy_home)
    folder.write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# x"),)))
    assert [one.family for one in submitted_runs(folder)] == ["weights+zero-shot"]


async def test_time_is_that_in_which_an_agent_was_at_work(toy_home: Path) -> None:
    folder, began = RunFolder(toy_home), START.timestamp()
    spec = TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# x"),))
    assert (await collect_at_rest(folder, spec)).at_work == ()
    assert not folder.spending.exists(), "a home that no team worked in stays as it was"
    Ledger(folder.spending).close()
    with closing(sqlite3.connect(folder.spending)) as connection, connection:
        shifts = [("ada", 0, 60), ("boole", 30, 90), ("ada", 40, 50), ("ada", 600, 630), ("boole", 630, 660)]
        rows = [(agent, began + start, began + end) for agent, start, end in shifts]
        connection.executemany("insert into shifts (agent, started_at, seen_at) values (?, ?, ?)", rows)
    found = await collect_at_rest(folder, spec)
    seconds = [tuple((moment - START).total_seconds() for moment in span) for span in found.at_work]
    assert seconds == [(0, 90), (600, 660)]
    for moment, worked in ((-5, 0), (10, 10), (90, 90), (300, 90), (601, 91), (5000, 150)):
        assert 3600 * found.hours_at(START + timedelta(seconds=moment)) == pytest.approx(worked)


def test_the_comparison_is_printed_and_written(toy_home: Path) -> None:
    RunFolder(toy_home).write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# x"),)))
    runner = CliRunner()
    shown = runner.invoke(cli.app, ["compare", str(toy_home), "--json"])
    assert Comparison.model_validate(json.loads(shown.output)).task == "toy"
    assert "<svg" in (toy_home / "compare.html").read_text()
    assert "one sample each" in runner.invoke(cli.app, ["compare", str(toy_home)]).output
