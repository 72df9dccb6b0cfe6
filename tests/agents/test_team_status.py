"""What the operator sees of a team from another terminal, and budgets at the command line."""

import json
import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from outlearn.audit import AuditLog
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError
from outlearn.receipts import ReceiptBook
from outlearn.researcher import Session
from outlearn.types import Evaluation, RunView
from outlearn_agents import cli
from outlearn_agents.commands import team as team_commands
from outlearn_agents.run_folder import AgentSpec, RunFolder, SessionFile, TeamSpec
from outlearn_agents.spending.ledger import Budget, Cost, Ledger, Limits
from outlearn_agents.team.control import read_control
from outlearn_agents.team.overview import Overview, look_over
from outlearn_agents.team.overview_table import print_overview
from outlearn_agents.team.runner import set_budget
from outlearn_agents.team.status import write_status
from outlearn_evaluation.commitment import open_task

runner = CliRunner()
AGENTS = (AgentSpec(name="ada", direction="# Trust\n\nx"), AgentSpec(name="boole", direction="# Time"))


def spend(folder: RunFolder, agent: str, dollars: float) -> None:
    with closing(Ledger(folder.spending)) as ledger:
        ledger.settle(ledger.reserve(agent, Cost()), Cost(nanodollars=round(1e9 * dollars), tokens=1000))


@pytest.fixture
def folder(toy_home: Path) -> RunFolder:
    folder = RunFolder(toy_home)
    spec = set_budget(folder, TeamSpec(task="toy", agents=AGENTS), Budget(team=Limits(dollars=10, evaluations=50)))
    folder.write_spec(spec)
    return folder


async def test_status_tells_spending_evaluations_and_what_each_agent_does(folder: RunFolder, open_session: Any) -> None:
    async with open_session("ada") as session:
        assert isinstance(session, Session)
        run = await session.ask(RunView, "training", "submit_run", method="vanilla", kind="full")
        await session.ask(Evaluation, "evaluation", "evaluate", run_id=run.run_id)
    write_status(folder, "ada", "thinking about \x1b[2J labels")
    spend(folder, "ada", 1.5)
    overview = look_over(folder)
    assert overview == Overview.model_validate_json(overview.model_dump_json())
    ada, boole = overview.agents
    assert (ada.state, ada.direction, ada.spent.dollars, ada.spent.tokens) == ("resting", "Trust", 1.5, 1000)
    assert (ada.evaluations_left, boole.evaluations_left) == (29, 30)
    assert (overview.spent.dollars, overview.spent.limits.dollars, overview.evaluations_left) == (1.5, 10, 49)
    assert overview.queue == ()
    console = Console(width=140, record=True, file=(folder.root / "out").open("w"))
    print_overview(console, overview)
    console.file.close()
    shown = console.export_text()
    assert "spent $1.50" in shown
    assert "evaluations left: 49" in shown
    assert "\x1b" not in shown


def test_the_forecast_stops_at_the_budget(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "is_at_work", True)
    now = datetime.now(UTC)
    note = SessionFile(started_at=now, ends_at=now + timedelta(hours=2), restarts={"ada": 3, "forum": 1})
    folder.session.write_text(note.model_dump_json())
    for name in ("ada", "boole"):
        write_status(folder, name, "thinking")
    spend(folder, "ada", 2.0)
    with closing(Ledger(folder.spending)) as ledger, ledger._engine.begin() as connection:
        connection.exec_driver_sql("insert into shifts (agent, started_at, seen_at) values ('ada', 0, 7200)")
    overview = look_over(folder)
    assert overview.spent.dollars_per_hour == 1.0
    assert overview.forecast_dollars == pytest.approx(6.0, abs=0.01)
    assert (overview.agents[0].restarts, overview.server_restarts) == (3, {"forum": 1})
    spend(folder, "ada", 7.0)
    assert look_over(folder).forecast_dollars == 10


def test_a_pause_of_the_team_changes_neither_the_time_left_nor_the_forecast(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "is_at_work", True)
    then = datetime.now(UTC) - timedelta(days=3)
    note = SessionFile(started_at=then, ends_at=then + timedelta(hours=2), paused_at=then)
    folder.session.write_text(note.model_dump_json())
    for name in ("ada", "boole"):
        write_status(folder, name, "paused before forum.vote", "paused")
    spend(folder, "ada", 2.0)
    with closing(Ledger(folder.spending)) as ledger, ledger._engine.begin() as connection:
        connection.exec_driver_sql("insert into shifts (agent, started_at, seen_at) values ('ada', 0, 7200)")
    overview = look_over(folder)
    assert overview.seconds_left == 7200
    assert overview.forecast_dollars == pytest.approx(6.0)


def test_status_says_that_the_disk_is_full(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not look_over(folder).disk_is_full
    monkeypatch.setattr("outlearn_agents.team.processes.FULL_BYTES", 2**80)  # as if no disk had any room
    words = f"the disk of {folder.root} is full: nothing can be written until there is room"
    assert words in runner.invoke(cli.app, ["team", "status", str(folder.root)], catch_exceptions=False).output


def test_status_says_who_waits_for_a_review(folder: RunFolder) -> None:
    run, log = "run-0123456789", AuditLog(folder.root / "vault")
    log.append("random masks", "quarantine", agent="ada", run_id=run, task="toy", evidence={})
    shown = runner.invoke(cli.app, ["team", "status", str(folder.root)]).output
    assert f"ada gets no new answers: run '{run}' is withheld" in shown
    assert "release ada` lets it go on" in shown
    log.append("operator", "release", agent="ada")
    assert look_over(folder).refused == {}


def test_a_run_whose_receipts_are_forged_can_be_reviewed(folder: RunFolder) -> None:
    run, forged = "run-0123456789", ReceiptBook(folder.root / "vault").folder / "run-0123456789" / "0.json"
    for expected in (1, 0):
        done = runner.invoke(cli.app, ["review", str(folder.root), "release", run])
        assert (done.exit_code != 0) is bool(expected)
        forged.parent.mkdir(parents=True, exist_ok=True)
        forged.write_text("{}")
    [record] = AuditLog(folder.root / "vault").records()
    assert (record.action, record.run_id) == ("release", run)


def test_status_shows_the_published_commitment_whatever_becomes_of_the_vault(folder: RunFolder) -> None:
    published = look_over(folder).commitment
    assert published == open_task(folder.root, "toy").commitment
    secret = folder.root / "vault" / "toy" / "secret.json"
    secret.write_text(secret.read_text().replace("1 is odd", "1 is even"))
    assert look_over(folder).commitment == published
    assert str(published) in runner.invoke(cli.app, ["team", "status", str(folder.root)]).output


def test_status_tells_how_far_the_final_came(folder: RunFolder) -> None:
    vault, run = folder.root / "vault" / "toy", str(folder.root)

    def state() -> str:
        return runner.invoke(cli.app, ["team", "status", run]).output.splitlines()[0]

    assert state().endswith("· not at work")
    with folder.lock_for_final():
        assert state().endswith("its final is at work")
        refused = runner.invoke(cli.app, ["team", "pause", run])
        assert isinstance(refused.exception, ConflictError)
    (vault / "final-seeds.json").write_text("[]")
    assert state().endswith(f"not at work; the final has begun: `outlearn finalize {run}` goes on")
    (vault / "release.json").write_text("{}")
    assert state().endswith(f"the final was held: `outlearn finalize {run}` shows it")


def test_status_of_a_team_that_starts_or_was_killed_does_not_claim_that_it_works(folder: RunFolder) -> None:
    run = str(folder.root)
    write_status(folder, "ada", "running vanilla")
    with folder.lock():
        assert look_over(folder).seconds_left is None
        assert "· starting\n" in runner.invoke(cli.app, ["team", "status", run]).output
    shown = runner.invoke(cli.app, ["team", "status", run]).output
    assert re.search(r"ada +resting .*last: running vanilla \(\d+ s ago\)", shown)
    assert not re.search(r"boole .*ago", shown)


def test_status_of_a_budget_that_is_spent_says_so(folder: RunFolder) -> None:
    spend(folder, "ada", 12.0)
    with closing(Ledger(folder.spending)) as ledger, ledger._engine.begin() as connection:
        connection.exec_driver_sql("insert into shifts (agent, started_at, seen_at) values ('ada', 0, 7200)")
    assert look_over(folder).spent.hours_left == 0.0
    assert "; the budget is spent\n" in runner.invoke(cli.app, ["team", "status", str(folder.root)]).output
    assert str(Limits(hours=1, evaluations_a_day=1, device_seconds=2)) == "1 hour, 1 evaluation_a_day, 2 device_seconds"


@pytest.mark.parametrize(("seconds", "words"), [(72, "18 s"), (72_000, "5 h")])
def test_status_says_how_long_a_budget_lasts(folder: RunFolder, seconds: int, words: str) -> None:
    spend(folder, "ada", 8.0)
    with closing(Ledger(folder.spending)) as ledger, ledger._engine.begin() as connection:
        connection.exec_driver_sql(f"insert into shifts (agent, started_at, seen_at) values ('ada', 0, {seconds})")
    shown = runner.invoke(cli.app, ["team", "status", str(folder.root)]).output
    assert f"; the budget lasts for {words} of an agent's work\n" in shown


def test_seconds_of_work_are_no_pace(folder: RunFolder) -> None:
    """As after a kill: $8 in some seconds would be thousands an hour."""
    spend(folder, "ada", 8.0)
    with closing(Ledger(folder.spending)) as ledger, ledger._engine.begin() as connection:
        connection.exec_driver_sql("insert into shifts (agent, started_at, seen_at) values ('ada', 0, 5)")
    spent = look_over(folder).spent
    assert (spent.dollars_per_hour, spent.hours_left) == (None, None)
    spend(folder, "ada", 2.0)
    assert look_over(folder).spent.hours_left == 0.0


def test_status_is_of_homes_without_a_team_too(toy_home: Path) -> None:
    (toy_home / "workspaces" / "local").mkdir(parents=True)
    shown = runner.invoke(cli.app, ["team", "status", str(toy_home)]).output
    assert "· toy · no team\n" in shown
    assert re.search(r"local +client .*30 \(6 today\)", shown)


def test_status_is_for_people_and_scripts(folder: RunFolder) -> None:
    shown = runner.invoke(cli.app, ["team", "status", str(folder.root), "--json"])
    assert json.loads(shown.output)["task"] == "toy"
    assert "not at work" in runner.invoke(cli.app, ["team", "status", str(folder.root)]).output
    result = runner.invoke(cli.app, ["team", "status", str(folder.root / "nowhere")])
    assert isinstance(result.exception, NotFoundError)


def test_commands_change_what_is_asked_of_a_team_at_work(folder: RunFolder) -> None:
    run = str(folder.root)
    refused = runner.invoke(cli.app, ["team", "pause", run])
    assert isinstance(refused.exception, ConflictError)
    for agent, words in (("zoe", "no agent 'zoe'"), ("ada", f"`outlearn team resume {run}` starts all of them")):
        refused = runner.invoke(cli.app, ["team", "resume", run, "--agent", agent])
        assert words in str(refused.exception)
    with folder.lock():
        assert "ada: pausing" in runner.invoke(cli.app, ["team", "pause", run, "--agent", "ada"]).output
        assert "ada: paused already" in runner.invoke(cli.app, ["team", "pause", run, "--agent", "ada"]).output
        assert read_control(folder).paused == {"ada"}
        runner.invoke(cli.app, ["team", "pause", run])
        assert read_control(folder).paused == {"ada", "boole"}
        assert "boole: going on" in runner.invoke(cli.app, ["team", "resume", run, "--agent", "boole"]).output
        assert read_control(folder).paused == {"ada"}
        assert "curie: starting" in runner.invoke(cli.app, ["team", "add", run, "--direction", "trust"]).output
        runner.invoke(cli.app, ["team", "stop", run, "--agent", "ada"])
        assert (read_control(folder).stopped, read_control(folder).stop) == ({"ada"}, False)
        runner.invoke(cli.app, ["team", "stop", run])
        assert read_control(folder).stop
        unknown = runner.invoke(cli.app, ["team", "pause", run, "--agent", "zoe"])
        assert isinstance(unknown.exception, NotFoundError)


def test_budgets_are_given_at_the_command_line_and_kept(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[Budget | None] = []
    monkeypatch.setattr(team_commands, "work", lambda *arguments: budgets.append(arguments[-1]))
    run = str(folder.root)
    arguments = ["--dollars", "20", "--hours", "3", "--agent-budget", "dollars=5", "--agent-budget", "evaluations=7"]
    assert runner.invoke(cli.app, ["team", run, *arguments]).exit_code == 0
    assert runner.invoke(cli.app, ["team", run]).exit_code == 0
    team = Limits(dollars=20, hours=3, evaluations=50)
    assert budgets == [Budget(team=team, agent=Limits(dollars=5, evaluations=7)), None]
    spec = set_budget(folder, folder.read_spec(), budgets[0] or Budget())
    assert spec.server_options["evaluation"] == ("--team-evaluations", "50", "--agent-evaluations", "7")
    assert runner.invoke(cli.app, ["team", run, "--agent-budget", "evaluations_a_day=9"]).exit_code == 0
    folder.write_spec(set_budget(folder, spec, budgets[-1] or Budget()))
    assert look_over(folder).evaluations_a_day == 9
    assert "50, 9 a day for each agent" in runner.invoke(cli.app, ["team", "status", run]).output
    wrong = runner.invoke(cli.app, ["team", run, "--agent-budget", "euros=5"])
    assert isinstance(wrong.exception, InvalidInputError)
    assert "euros" in str(wrong.exception)


def test_a_budget_changes_while_the_team_is_at_work(folder: RunFolder) -> None:
    run = str(folder.root)
    with folder.lock():
        shown = runner.invoke(cli.app, ["team", "budget", run, "--dollars", "25", "--agent-budget", "tokens=1000"])
    assert shown.output == "team: 25 dollars, 50 evaluations; each agent: 1000 tokens\n"
    with closing(Ledger(folder.spending)) as ledger:
        assert ledger.budget() == Budget(team=Limits(dollars=25, evaluations=50), agent=Limits(tokens=1000))
    for wrong in ([], ["--agent-budget", "evaluations=3"], ["--agent-budget", "evaluations_a_day=3"]):
        assert isinstance(runner.invoke(cli.app, ["team", "budget", run, *wrong]).exception, InvalidInputError)
