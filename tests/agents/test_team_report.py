"""Summaries, charts, the report and what a terminal shows."""

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from outlearn.database import writing
from outlearn.researcher import Session
from outlearn.types import Evaluation, FindingList, LeaderboardRow, LineageEdge, LineageNode, Posted, RunView
from outlearn_agents.report.at_rest import collect_at_rest
from outlearn_agents.report.charts import methods_chart, pgr_range, progress_chart, ticks
from outlearn_agents.report.lineage import lineage_graph
from outlearn_agents.report.lineage_chart import lineage_chart
from outlearn_agents.report.outcome import print_outcome
from outlearn_agents.report.page import render_report
from outlearn_agents.report.summary import (
    AgentSummary,
    FinalSummary,
    FindingSummary,
    LineageSummary,
    RunSummary,
    Summary,
    collect,
)
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.team.live import PlainLines, page, show
from outlearn_agents.team.status import write_status
from outlearn_agents.team.watch import AgentView, TeamView, Watcher
from outlearn_agents.terminal.working import console
from outlearn_agents.words import duration, method_label, shorten
from outlearn_evaluation.release import Comparison, Finalist, Interval, Release
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.tables import evaluations

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("ada", "boole")
HOSTILE = "<script>alert('x')</script> [bold]x[/bold] \x1b[2J"


def run(number: int, pgr: float, agent: str = "ada", method: str = "methods/early25.py") -> RunSummary:
    return RunSummary(
        run_id=f"run-{number:06d}",
        agent=agent,
        method=method,
        params={} if method.endswith(".py") else {"alpha": 0.75, "labels": "hard"},
        seeds=5,
        pgr=pgr,
        pgr_se=0.03,
        evaluated_at=START + timedelta(seconds=20 * number),
    )


def summary(*runs: RunSummary, text: str = "Early students know more.") -> Summary:
    best = max(runs, key=lambda one: one.pgr, default=None)
    finding = FindingSummary(
        finding_id="finding-1", kind="result", title="early25", text=text, author="ada", posted_at=START,
        run_id=best.run_id if best else None, pgr=best.pgr if best else None, pgr_se=best.pgr_se if best else None,
    )  # fmt: skip
    return Summary(
        task="toy",
        weak_acc=0.6,
        ceiling_acc=0.9,
        agents=tuple(
            AgentSummary(name=name, researcher="offline", direction="# Trust", runs=2) for name in ("ada", "boole")
        ),
        runs=tuple(sorted(runs, key=lambda one: -one.pgr)),
        best=best,
        findings=(finding,),
        started_at=START,
        wall_seconds=118.4,
    )


SOME = (run(1, 0.42), run(2, 0.71, "boole", "logconf"), run(3, 0.89))


class Resources(HTMLParser):
    """Collects what a page would load, and its elements."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_the_report_is_one_file_that_loads_nothing() -> None:
    html = render_report(summary(*SOME))
    page = Resources()
    page.feed(html)
    assert page.loads == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 4
    assert not re.search(r"url\(|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html
    assert len(html) < 100_000


def test_the_report_shows_each_run_with_its_finder_and_interval() -> None:
    html = render_report(summary(*SOME))
    for text in (
        "0.89",
        "0.03",
        ">Trust</p>",
        "logconf alpha=0.75 labels=hard",
        "run-000002",
        "boole",
        "60.0 %",
        "1 min 58 s",
    ):
        assert text in html


def test_texts_of_agents_stay_text_in_the_report() -> None:
    html = render_report(summary(*SOME, text=HOSTILE))
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_a_team_without_results_gets_a_report_too() -> None:
    html = render_report(summary())
    assert "No run was evaluated." in html
    assert "svg viewBox" not in html


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.floats(0, 2), st.integers(0, 10**6)), max_size=60,
    ),
    st.sampled_from([340, 760]),
)  # fmt: skip
def test_charts_are_well_formed_for_any_results(points: list[tuple[float, float, int]], width: int) -> None:
    runs = [
        run(index, pgr).model_copy(update={"pgr_se": se, "evaluated_at": START + timedelta(seconds=at)})
        for index, (pgr, se, at) in enumerate(points)
    ]
    for svg in (progress_chart(summary(*runs), width), methods_chart(summary(*runs), width)):
        tree = ElementTree.fromstring(svg)
        assert len(tree.findall("circle")) <= len(runs)
        assert "nan" not in svg


def related(*pairs: tuple[str, str], findings: int = 4, title: str = "idea") -> Summary:
    """Findings 0, 1, ... of ada and boole in turn, each of a run of its own; `pairs` are parents and children."""
    made = [run(number, 0.2 * number, NAMES[number % 2]) for number in range(findings)]
    posted = [
        FindingSummary(
            finding_id=f"finding-{one.run_id[-1]}", kind="result", title=title, text="-", author=one.agent,
            run_id=one.run_id, pgr=one.pgr, pgr_se=0.1, posted_at=one.evaluated_at,
        )
        for one in made
    ]  # fmt: skip
    edges = [LineageEdge(parent=parent, child=child, kind="built on") for parent, child in pairs]
    nodes = [LineageNode(id="snap-1", kind="snapshot")]
    return summary(*made).model_copy(
        update={"findings": tuple(posted), "lineage": LineageSummary(nodes=tuple(nodes), edges=tuple(edges))}
    )


def test_a_lineage_folds_what_has_no_links_and_a_run_stands_for_the_result_that_reports_it() -> None:
    graph = lineage_graph(related(("run-000000", "finding-1"), ("finding-0", "finding-1"), ("snap-1", "finding-2")))
    assert [(parent.id, child.id) for parent, child in graph.links] == [
        ("finding-0", "finding-1"), ("snap-1", "finding-2"),
    ]  # fmt: skip
    assert {one.id: (one.agent, one.column) for one in graph.sources} == {
        "finding-0": ("ada", 0), "finding-1": ("boole", 1), "snap-1": ("", 0), "finding-2": ("ada", 1),
    }  # fmt: skip
    assert graph.unlinked == 1
    assert [(one.id, count) for one, count in graph.most_built_on()] == [("finding-0", 1), ("snap-1", 1)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["finding", "run"]), st.integers(0, 7), st.integers(0, 7)), max_size=20,
    ),
    st.sampled_from([340, 760]),
)  # fmt: skip
def test_a_lineage_is_drawn_whatever_names_what(links: list[tuple[str, int, int]], width: int) -> None:
    names = {"finding": "finding-{}", "run": "run-00000{}"}
    pairs = [(names[kind].format(parent), f"finding-{child}") for kind, parent, child in links]
    made = related(*pairs, findings=8, title=HOSTILE)
    graph = lineage_graph(made)
    tree = ElementTree.fromstring(lineage_chart(graph, made, width).replace("\x1b", ""))
    assert len(tree.findall("path")) == len(graph.links)
    assert len(tree.findall("circle")) + len(tree.findall("rect")) == len(graph.sources)
    assert not tree.findall(".//script")
    places = [(one.agent, one.column) for one in graph.sources]
    assert len(set(places)) == len(places)


def test_the_report_draws_a_lineage_only_where_there_is_one() -> None:
    assert "What grew out of what" not in render_report(summary(*SOME))
    html = render_report(related(("finding-0", "finding-1"), title=HOSTILE))
    assert "What grew out of what" in html
    assert "2 findings that name nothing and that nobody names are left out" in html
    assert "<script" not in html


def test_a_lineage_of_many_runs_stays_as_wide_as_its_longest_lane() -> None:
    pairs = [(f"finding-{number}", f"finding-{number + 1}") for number in range(8)]
    made = related(*pairs, findings=9)
    assert 'width="760"' in lineage_chart(lineage_graph(made), made, 760)


def interval(value: float) -> Interval:
    return Interval(value=value, low=value - 0.1, high=value + 0.1, se=0.05, se_items=0.04, se_seeds=0.03, df=8)


def released() -> Release:
    shared = {"rerun_id": "run-again", "params": {}, "told": 0.9, "told_at_most": False}
    first = Finalist(
        run_id="run-a", agent="ada", method="methods/early25.py", accuracy=0.8, pgr=interval(0.7),
        public_pgr=interval(0.8), fall=interval(0.1), **shared,
    )  # fmt: skip
    second = first.model_copy(update={"run_id": "run-b", "agent": "boole", "pgr": interval(0.6)})
    held = Finalist(run_id="run-c", agent="ada", method=HOSTILE, failed="withheld: see the audit", **shared)
    pair = Comparison(
        run_id="run-a", other="run-b", difference=interval(0.03), p_value=0.2, p_holm=0.2, significant=False
    )
    return Release(
        task="toy", task_fingerprint="f", commitment="c0ffee", seeds=(7, 8, 9, 10, 11), items=100, groups=40,
        weak_acc=0.6, ceiling_acc=0.9, gap=interval(0.3), finalists=(first, second, held), comparisons=(pair,),
        closed_at=START,
    )  # fmt: skip


@pytest.mark.parametrize(("revealed", "said"), [(False, "are not revealed"), (True, "were revealed")])
def test_a_final_is_shown_with_intervals_and_what_is_not_significant(revealed: bool, said: str) -> None:
    made = summary(*SOME)
    assert "The final" not in render_report(made)
    html = render_report(made.model_copy(update={"final": FinalSummary(release=released(), revealed=revealed)}))
    page = Resources()
    page.feed(html)
    assert page.tags.count("svg") == 6
    assert "script" not in page.tags
    for text in (
        "0.60 to 0.80",
        "withheld: see the audit",
        "not significant",
        "0 of 1 are significant",
        "c0ffee",
        said,
    ):
        assert text in html
    assert html.index("0.70 (0.60 to 0.80)") < html.index("0.89 ± 0.03"), "what was told comes after what holds"
    assert "best PGR told to agents" in html


def test_a_final_without_a_significant_gap_has_no_pgr() -> None:
    release = released()
    blank = tuple(one.model_copy(update={"pgr": None}) for one in release.finalists)
    release = release.model_copy(update={"finalists": blank})
    html = render_report(summary(*SOME).model_copy(update={"final": FinalSummary(release=release, revealed=False)}))
    assert "PGR is undefined" in html
    assert "best PGR in the final" not in html


def test_a_final_whose_reruns_all_failed_says_nothing_about_the_gap() -> None:
    release = released()
    failed = tuple(one.model_copy(update={"failed": "out of memory", "pgr": None}) for one in release.finalists)
    release = release.model_copy(update={"finalists": failed, "comparisons": ()})
    html = render_report(summary(*SOME).model_copy(update={"final": FinalSummary(release=release, revealed=False)}))
    assert "PGR is undefined" not in html
    assert html.count(">out of memory<") == 3


def test_the_best_so_far_only_rises() -> None:
    svg = progress_chart(summary(*SOME, run(4, 0.5)), 760)
    path = ElementTree.fromstring(svg).findall("path")[-1].attrib["d"]
    heights = [float(value) for value in re.findall(r"V([\d.]+)", path)]
    assert len(heights) == 2
    assert heights == sorted(heights, reverse=True)


def test_axes_show_zero_and_one_and_cut_far_outliers() -> None:
    assert pgr_range([]) == (-0.03, 1.03)
    low, high = pgr_range([run(1, -9.0), run(2, 1.2)])
    assert (round(low, 2), round(high, 2)) == (-1.03, 1.29)
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]


def test_labels_and_durations_are_short() -> None:
    assert method_label("methods/early25.py", {}) == "early25"
    assert method_label("logconf", {"alpha": 0.123456}) == "logconf alpha=0.123"
    assert shorten("abcdef", 4) == "abc…"
    assert [duration(seconds) for seconds in (0.2, 59, 118.4, 3600, 12000)] == [
        "0 s", "59 s", "1 min 58 s", "1 h", "3 h 20 min",
    ]  # fmt: skip


def test_the_outcome_names_methods_finders_and_the_best_finding(tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    made = summary(*SOME, text=HOSTILE).model_copy(update={"final": FinalSummary(release=released(), revealed=False)})
    print_outcome(console, made, tmp_path / "report.html")
    shown = console.export_text()
    console.file.close()
    in_final = "best in the final: PGR 0.70 (0.60 to 0.80), early25 by ada"
    for text in (
        in_final,
        "0.89",
        "early25",
        "logconf alpha=0.75",
        "boole",
        "[bold]x[/bold]",
        "report.html",
        "teacher 60.0 %",
    ):
        assert text in shown
    assert "\x1b[2J" not in shown


def test_runs_of_before_the_team_are_drawn_at_its_beginning() -> None:
    """As of clients that used the home before the team came."""
    late = summary(*SOME).model_copy(update={"started_at": START + timedelta(hours=1)})
    assert '<circle class="dot c0" cx="44.0"' in progress_chart(late, 760)
    assert "+0:00:00" in render_report(late)


def test_time_stands_still_in_the_report_while_the_team_is_away() -> None:
    runs = [one.model_copy(update={"evaluated_at": START + timedelta(days=number)}) for number, one in enumerate(SOME)]
    away = summary(*runs).model_copy(
        update={"at_work": tuple((one.evaluated_at, one.evaluated_at + timedelta(seconds=20)) for one in runs)}
    )
    shown = render_report(away)
    assert "seconds since the start" in shown
    assert "days since the start" not in shown
    assert "+0:00:40" in shown
    assert "Time stands still" in shown
    assert "Time stands still" not in render_report(summary(*SOME)), "nobody knows when clients were at work"


def test_runs_of_who_is_not_in_the_team_are_counted_too() -> None:
    """As of clients that used the home before a team came."""
    alone = summary(*SOME).model_copy(update={"agents": (), "submitted": {"done": 4, "failed": 1}})
    assert "evaluated of 5 runs" in render_report(alone)


async def test_of_equal_runs_the_first_one_is_best_as_on_the_leaderboard(open_session: Any, toy_home: Path) -> None:
    async with open_session("ada") as session:
        ids = []
        for epochs in (0.5, 0.6, 0.7, 0.8, 0.9):
            run = await session.ask(
                RunView, "training", "submit_run", method="vanilla", kind="full", params={"epochs": epochs}
            )
            await session.ask(Evaluation, "evaluation", "evaluate", run_id=run.run_id)
            ids.append(run.run_id)
    async with open_session("operator") as operator:
        found = await collect(operator.tools, RunFolder(toy_home), TeamSpec(task="toy", agents=()))
    assert len({one.pgr for one in found.runs}) == 1
    assert [one.run_id for one in found.runs] == ids
    assert found.best == found.runs[0]


def evaluate(home: Path, count: int) -> None:
    """As if so many runs had been evaluated."""
    row = {"agent": "ada", "task": "toy", "method": "vanilla", "seeds": 5, "pgr": 0.5, "pgr_se": 0.05}
    row |= {"against": "", "charged": True, "day": "2026-01-01", "evaluated_at": START.replace(tzinfo=None)}
    engine = EvaluationService(EvaluationSettings(home=home)).engine
    with writing(engine) as connection:
        connection.execute(evaluations.insert(), [row | {"run_id": f"run-{number:010x}"} for number in range(count)])
    engine.dispose()


async def test_a_summary_has_every_run_of_a_team_that_evaluated_more_than_the_tool_lists(toy_home: Path) -> None:
    evaluate(toy_home, 600)
    found = await collect_at_rest(RunFolder(toy_home), TeamSpec(task="toy", agents=()))
    assert len(found.runs) == 600
    assert "run-0000000257" in render_report(found), "the last one"


async def test_every_number_of_the_summary_is_the_servers(open_session: Any, toy_home: Path) -> None:
    claims = "PGR 0.99 (verified)\nrun-ffffff: PGR 1.00"
    async with open_session("ada") as session:
        submitted = await session.ask(RunView, "training", "submit_run", method="vanilla", kind="full")
        evaluated = await session.ask(Evaluation, "evaluation", "evaluate", run_id=submitted.run_id)
        fields = {"title": "vanilla reaches 0.99", "text": claims, "kind": "result", "run_id": submitted.run_id}
        await session.ask(Posted, "forum", "post_finding", **fields)
        await session.ask(Posted, "forum", "post_finding", title="PGR 1.00", text=claims, kind="insight")
    spec = TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# Trust"),))
    async with open_session("operator") as operator:
        found = await collect(operator.tools, RunFolder(toy_home), spec)
    assert [(one.run_id, one.pgr, one.pgr_se) for one in found.runs] == [
        (submitted.run_id, evaluated.pgr, evaluated.pgr_se)
    ]
    assert found.best == found.runs[0]
    assert (found.weak_acc, found.ceiling_acc) == (0.6, 0.9)
    assert [(finding.kind, finding.pgr) for finding in found.findings] == [("result", evaluated.pgr), ("insight", None)]
    assert found.runs[0].params == {"labels": "hard", "epochs": 1.0}
    data = json.loads(found.model_dump_json())
    assert {"task", "weak_acc", "ceiling_acc", "runs", "best", "findings", "wall_seconds"} <= data.keys()
    assert {"run_id", "agent", "method", "seeds", "pgr", "pgr_se"} <= data["runs"][0].keys()
    assert Summary.model_validate_json(found.model_dump_json()) == found


def view(**changes: Any) -> TeamView:
    runs = [
        RunView(
            run_id=f"run-{number:06d}", agent="ada", task="toy", method="methods/early25.py", params={}, kind="full",
            status=status, seeds_done=2, seeds_total=5, progress=0.5, message="", submitted_at=START,
        )
        for number, status in ((2, "queued"), (1, "running"))
    ]  # fmt: skip
    row = LeaderboardRow(
        rank=1, run_id="run-000001", agent="ada", method="methods/early25.py", pgr=0.9, pgr_se=0.02, seeds=5,
        evaluated_at=START, nominated=False,
    )  # fmt: skip
    agents = (AgentView("ada", "Early students", "writing methods/early25.py", "running"),)
    usual = {"task": "toy", "agents": agents, "runs": tuple(runs), "leaderboard": (row,), "seconds_left": 9.0}
    return TeamView(**{**usual, **changes})


async def test_the_watcher_sees_all_agents_work(open_session: Any, toy_home: Path) -> None:
    async with open_session("ada") as session:
        await session.ask(RunView, "training", "submit_run", method="vanilla")
        await session.ask(Posted, "forum", "post_finding", title="one", text="one", kind="insight")
    folder = RunFolder(toy_home)
    write_status(folder, "ada", "thinking")
    spec = TeamSpec(
        task="toy", agents=tuple(AgentSpec(name=name, direction="# Trust\n\nx") for name in ("ada", "boole"))
    )
    async with open_session("operator") as operator:
        watcher = Watcher(spec, folder, operator.tools)
        seen = await watcher.look(10.0)
        await operator.ask(Posted, "forum", "post_finding", title="two", text="two", kind="insight")
        later = await watcher.look(9.0)
        assert len((await operator.ask(FindingList, "forum", "list_threads")).findings) == 2
    assert [(agent.name, agent.direction, agent.doing) for agent in seen.agents] == [
        ("ada", "Trust", "thinking"),
        ("boole", "Trust", "starting"),
    ]
    assert [run.method for run in seen.runs] == ["vanilla"]
    assert [finding.title for finding in later.findings] == ["one", "two"]


async def test_the_watcher_sees_every_evaluation_of_a_usual_team(open_session: Any, toy_home: Path) -> None:
    evaluate(toy_home, 200)
    async with open_session("operator") as operator:
        seen = await Watcher(TeamSpec(task="toy", agents=()), RunFolder(toy_home), operator.tools).look(60)
    assert len(seen.leaderboard) == 200


def test_the_live_page_shows_agents_runs_board_and_forum(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        console = Console(width=120, record=True, file=file, force_terminal=True)
        with show(console, 60) as observe:
            observe(view(seconds_left=30.0))
        console.print(page(view(seconds_left=30.0), 60))
    shown = console.export_text()
    for text in ("outlearn · toy", "30 s left", "Early students", "2/5 seeds", "queued", "0.90 ± 0.02", "Forum"):
        assert text in shown


def test_without_a_terminal_each_change_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with show(console, 60) as observe:
        assert isinstance(observe, PlainLines)
        observe(view(runs=(), findings=(), leaderboard=()))
        observe(view())
        observe(view())
        agents = (AgentView("ada", "x", HOSTILE, "failed"),)
        observe(view(agents=agents))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[0].endswith("starting the servers")
    assert "early25 running" in lines[1]
    assert "PGR 0.90 ± 0.02" in lines[3]
    assert "ada: failed: " in lines[4]
    assert "\x1b" not in lines[4]


@pytest.mark.parametrize(
    ("doing", "state", "shown"),
    [
        ("paused before training.get_run", "paused", "paused before training.get_run"),
        ("done", "finished", "finished: done"),
        ("training", "running", "training"),
    ],
)
def test_the_state_of_an_agent_is_said_once(doing: str, state: str, shown: str) -> None:
    assert AgentView("ada", "Trust", doing, state).now == shown


def test_a_team_that_was_asked_to_stop_says_what_it_waits_for(capsys: pytest.CaptureFixture[str]) -> None:
    observe, said = PlainLines(Console()), "agents finish what they are saying"
    for seconds_left in (9.0, 0.0, 0.0):
        observe(view(seconds_left=seconds_left))
    observe(view(seconds_left=0.0, agents=(AgentView("ada", "x", "finished", "finished"),)))
    assert capsys.readouterr().out.count(said) == 1
    console = Console(width=120, record=True, file=StringIO())
    console.print(page(view(seconds_left=0.0), 60))
    assert said in console.export_text()


def test_why_a_run_failed_is_shown_while_the_team_works(capsys: pytest.CaptureFixture[str]) -> None:
    [first, second] = view().runs
    lost = first.model_copy(update={"status": "failed", "message": "no\nspace"})
    observe = PlainLines(Console())
    observe(view(runs=()))
    observe(view(runs=(lost, second), agents=(AgentView("ada", "x", "finished", "finished"),)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith("early25 failed (run-000002): no space")
    assert lines[-1].endswith("ada: finished")
    console = Console(width=120, record=True, file=StringIO())
    console.print(page(view(runs=(lost,) * 3), 60))
    assert "3 failed (no space" in console.export_text()


def test_the_outcome_says_what_it_leaves_out() -> None:
    console = Console(width=100, record=True, file=StringIO())
    print_outcome(console, summary(*(run(number, 0.5) for number in range(23))), Path("runs/mine/report.html"))
    assert "... and 3 more: `outlearn report runs/mine --json`" in console.export_text()


def test_tables_in_files_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width >= 500
    monkeypatch.setenv("COLUMNS", "70")
    assert console().width == 70


async def test_a_session_tells_what_it_is_doing(open_session: Any) -> None:
    async with open_session("ada") as session:
        assert isinstance(session, Session)
        session.say("thinking", depth=2)
