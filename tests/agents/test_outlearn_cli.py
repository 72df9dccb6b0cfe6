"""The `outlearn` command, as scripts and people call it."""

import ast
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, get_args

import anyio
import numpy as np
import pytest
from mcp.server.mcpserver.exceptions import ToolError
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from outlearn.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from outlearn.identity import TokenFile
from outlearn.prepared import load_prepared, write_prepared
from outlearn.receipts import Receipt
from outlearn.tasks import Baselines, TaskCard, load_public, load_secret, task_names
from outlearn.types import FindingKind, LineageNode, RunStatus
from outlearn_agents import cli
from outlearn_agents.commands import demo as demo_command
from outlearn_agents.commands import team as team_commands
from outlearn_agents.directions import choose_directions, direction_names, read_direction, read_prompt
from outlearn_agents.report.at_rest import Idle, collect_at_rest
from outlearn_agents.report.outcome import why_none
from outlearn_agents.report.summary import FindingSummary, RunSummary, Summary
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.tasks import next_commands
from outlearn_agents.team import runner as runner_module
from outlearn_agents.team.runner import make_team
from outlearn_agents.team.status import State, write_status
from outlearn_evaluation.release import Finalist, Release
from outlearn_training.calibration.seed_training import KeptSeeds, SeedPredictions
from outlearn_training.queue.seed_claims import Claims
from outlearn_training.server import build as build_training
from outlearn_training.settings import TrainingSettings

runner = CliRunner()


def test_help_names_the_commands_and_where_to_begin() -> None:
    shown = runner.invoke(cli.app, ["--help"]).output
    for word in ("demo", "team", "report", "prepare", "calibrate", "token", "plugins", "ANTHROPIC_API_KEY"):
        assert word in shown
    for command in ("demo", "team", "report", "prepare", "calibrate", "token", "plugins"):
        assert runner.invoke(cli.app, [command, "-h"]).exit_code == 0


@pytest.mark.parametrize("group", [[], ["team"]])
def test_help_lists_commands_in_whole_sentences_in_the_order_of_use(
    group: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = runner.invoke(cli.app, [*group, "--help"]).output
    lines = [line.split(maxsplit=1) for line in shown[shown.index("Commands:") :].splitlines()[1:]]
    assert [name for name, _ in lines][:2] == (["start", "resume"] if group else ["demo", "team"])
    assert not [text for _, text in lines if not text.endswith(".") or text.endswith("...")]


def test_each_command_is_in_a_module_of_its_own_and_the_report_knows_nothing_of_the_runner() -> None:
    source = Path(cli.__file__)
    defined = [one.name for one in ast.parse(source.read_text()).body if isinstance(one, ast.FunctionDef)]
    assert defined == ["_version", "_root", "main"]
    assert not [
        path for path in source.parent.joinpath("report").glob("*.py") if "outlearn_agents.team" in path.read_text()
    ]


def test_the_version_is_the_distributions() -> None:
    assert runner.invoke(cli.app, ["--version"]).output.startswith("outlearn 0")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from outlearn_agents.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'anthropic', 'optuna', 'jinja2'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_parts_for_third_parties_import_without_the_extras() -> None:
    code = (
        "import sys; import outlearn.researcher, outlearn.toolbox\n"
        "heavy = {'torch', 'anthropic', 'optuna', 'jinja2'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_token_is_shown_once_and_works(tmp_path: Path) -> None:
    made = json.loads(runner.invoke(cli.app, ["token", "ada", "--home", str(tmp_path), "--operator", "--json"]).output)
    caller = TokenFile(tmp_path / "tokens.json").verify(made["token"])
    assert caller
    assert (caller.agent, caller.role) == ("ada", "operator")
    second = runner.invoke(cli.app, ["token", "boole", "--home", str(tmp_path)]).output.strip()
    assert TokenFile(tmp_path / "tokens.json").verify(second)


def test_a_name_that_is_no_agents_is_refused(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["token", "Not A Name", "--home", str(tmp_path)])
    assert "'Not A Name' cannot be an agent's name" in str(result.exception)
    assert not (tmp_path / "tokens.json").exists()


def test_plugins_are_listed_for_people_and_scripts() -> None:
    found = json.loads(runner.invoke(cli.app, ["plugins", "--json"]).output)
    assert {"training", "evaluation", "forum", "filesystem"} <= {one["name"] for one in found["outlearn.servers"]}
    assert {"offline", "claude"} <= {one["name"] for one in found["outlearn.researchers"]}
    assert "outlearn.methods" in runner.invoke(cli.app, ["plugins"]).output


def test_errors_end_in_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("report", "finalize"):
        monkeypatch.setattr(sys, "argv", ["outlearn", command, str(tmp_path)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith(f"outlearn: {str(tmp_path)!r} is not a run folder")
        assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["team", "stats"], "outlearn team status"),
        (["team", "stauts", "runs/demo"], "outlearn team status"),
        (["stauts"], "outlearn team status"),
        (["pause", "runs/demo"], "outlearn team pause"),
        (["reprot", "runs/demo"], "outlearn report"),
    ],
)
def test_a_mistyped_command_is_told_with_the_one_that_is_meant_and_starts_no_team(
    words: list[str], meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(team_commands, "work", lambda *_: pytest.fail("a team works"))
    result = runner.invoke(cli.app, words)
    assert isinstance(result.exception, InvalidInputError)
    assert f"did you mean `{meant}`?" in str(result.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", ["./stats", "runs/start", "mine", "stats"])
def test_a_team_works_in_any_folder_that_is_there_or_is_not_like_a_command(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders: list[RunFolder] = []
    monkeypatch.setattr(team_commands, "work", lambda folder, *_: folders.append(folder))
    if run == "stats":
        Path(run).mkdir()
    assert runner.invoke(cli.app, ["team", run]).exit_code == 0
    assert [folder.root for folder in folders] == [Path(run)]


def test_what_the_system_refuses_is_told_in_one_line(tmp_path: Path) -> None:
    Path(tmp_path / "file").touch()
    inside = str(tmp_path / "file" / "x")
    for words, output in (
        (["token", "ada", "--home", inside], None),
        (["plugins", "--json"], "/dev/full"),
        (["plugins"], "/dev/full"),
    ):
        with Path(output or os.devnull).open("w") as out:
            ended = subprocess.run(
                [sys.executable, "-c", "from outlearn_agents.cli import main; main()", *words],
                stdout=out, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        what = "No space left on device" if output else f"Not a directory: '{tmp_path}/file"
        assert ended.stderr.startswith(f"outlearn: {what}")
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)


def test_a_wrong_variable_of_the_environment_is_named(
    toy_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTLEARN_SEED_SECONDS", "soon")
    monkeypatch.setattr(sys, "argv", ["outlearn", "report", str(toy_home)])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "outlearn: OUTLEARN_SEED_SECONDS: must be a number\n"


def test_a_database_that_fails_is_told_without_the_words_for_programmers(
    toy_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> NoReturn:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as patched:
        patched.setattr(cli, "app", full)
        with pytest.raises(SystemExit):
            cli.main()
    assert capsys.readouterr().err == "outlearn: the database does not answer: database or disk is full\n"
    (toy_home / "training.sqlite").write_bytes(b"no database" * 1000)
    said = str(runner.invoke(cli.app, ["report", str(toy_home)]).exception)
    assert "cannot open the database" in said
    assert said.endswith("file is not a database")


def test_a_team_keeps_its_members(tmp_path: Path) -> None:
    RunFolder(tmp_path).write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# x"),)))
    result = runner.invoke(cli.app, ["team", str(tmp_path), "--agents", "4"])
    assert isinstance(result.exception, InvalidInputError)
    assert "has another team already" in str(result.exception)


@pytest.mark.parametrize("again", [[], ["--agents", "2", "--seed", "7"]])
def test_the_same_command_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: list[str]) -> None:
    teams: list[TeamSpec] = []
    monkeypatch.setattr(team_commands, "work", lambda _folder, spec, *_: teams.append(spec))
    spec = make_team("math", choose_directions([], 2), seed=7)
    RunFolder(tmp_path).write_spec(spec)
    assert runner.invoke(cli.app, ["team", str(tmp_path), *again]).exit_code == 0
    assert teams == [spec]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--direction", "nowhere"], "no direction 'nowhere'"),
        (["--researcher", "nobody"], "no 'nobody' in 'outlearn.researchers'"),
        (["--option", "model"], "must look like NAME=VALUE"),
        (["--option", "model=x"], "no options; it got model"),
    ],
)
def test_a_team_that_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = runner.invoke(cli.app, ["team", str(tmp_path / "run"), *arguments])
    assert words in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_a_report_is_made_of_a_folder_where_nothing_runs(toy_home: Path) -> None:
    folder = RunFolder(toy_home)
    folder.write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# Trust"),), seconds_worked=7.0))
    result = runner.invoke(cli.app, ["report", str(toy_home), "--json"])
    assert result.exit_code == 0, result.output
    summary = Summary.model_validate_json(result.stdout)
    assert (summary.task, summary.runs, summary.best, summary.wall_seconds) == ("toy", (), None, 7.0)
    assert folder.summary.read_text() == summary.model_dump_json(indent=1)
    assert "No run was evaluated." in folder.report.read_text()
    assert "No run was evaluated." in runner.invoke(cli.app, ["report", str(toy_home)]).output


def test_a_team_without_a_result_is_told_how_far_its_runs_came_and_where_to_look(toy_home: Path) -> None:
    folder = RunFolder(toy_home)
    folder.write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# Trust"),)))
    queue = build_training(TrainingSettings(home=toy_home, agent="ada"), Idle())
    anyio.run(queue.call_tool, "submit_run", {"method": "vanilla"})
    shown = runner.invoke(cli.app, ["report", str(toy_home)]).output
    assert "No run was evaluated. Runs: 1 queued." in shown
    assert f"{toy_home}/logs/worker-*.log" in shown
    assert f"`outlearn team {toy_home} --minutes 10` goes on" in shown
    assert "No run was evaluated. Runs: 1 queued.</p>" in folder.report.read_text()
    summary = Summary.model_validate_json(folder.summary.read_text())
    assert summary.submitted == {"queued": 1}
    assert "1 cancelled (agents cancel" in why_none(
        summary.model_copy(update={"submitted": {"cancelled": 1}}), toy_home
    )
    assert "Runs: none was submitted." in why_none(summary.model_copy(update={"submitted": {}}), toy_home)


@pytest.mark.parametrize("states", [("failed", "failed"), ("failed", "finished")])
def test_a_team_of_which_all_agents_failed_ends_with_an_error_and_says_why(
    toy_home: Path, monkeypatch: pytest.MonkeyPatch, states: tuple[State, State]
) -> None:
    async def run_team(folder: RunFolder, spec: TeamSpec, *_: object) -> Summary:
        folder.write_spec(spec)
        for agent, state in zip(spec.agents, states, strict=True):
            write_status(folder, agent.name, "the API did not answer", state)
        return await collect_at_rest(folder, spec)

    monkeypatch.setattr(runner_module, "run_team", run_team)
    ended = runner.invoke(cli.app, ["team", str(toy_home), "--agents", "2", "--task", "toy"])
    all_failed = states == ("failed", "failed")
    assert ended.exit_code == int(all_failed), ended.output
    assert ("Agents: 2 failed (the API did not answer)." in ended.output) == all_failed
    assert ("--minutes 10" in ended.output) != all_failed


def test_a_home_that_clients_used_without_a_team_has_a_report_too(toy_home: Path) -> None:
    home = str(toy_home)
    assert "MCP client" not in runner.invoke(cli.app, ["report", home]).output
    queue = build_training(TrainingSettings(home=toy_home, agent="local"), Idle())
    anyio.run(queue.call_tool, "submit_run", {"method": "vanilla"})
    (toy_home / "workspaces" / "boole").mkdir(parents=True)
    summary = Summary.model_validate_json(runner.invoke(cli.app, ["report", home, "--json"]).stdout)
    assert (summary.task, summary.submitted) == ("toy", {"queued": 1})
    assert [(agent.name, agent.runs) for agent in summary.agents] == [("boole", 0), ("local", 1)]
    page = (toy_home / "report.html").read_text()
    assert "2 researchers.\n" in page
    assert "MCP client" in page
    refused = runner.invoke(cli.app, ["inspect", home])
    assert isinstance(refused.exception, NotFoundError)
    assert "`report`, `team status`, `audit`, `review` and `finalize` work without one" in str(refused.exception)


def test_a_team_without_a_result_is_told_why_its_runs_failed_or_that_none_can_be_scored(
    toy_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainingSettings(home=toy_home, agent="ada")
    queue = build_training(settings, Idle())
    for _ in range(3):
        anyio.run(queue.call_tool, "submit_run", {"method": "vanilla"})
    claims = Claims(settings.database("training"))
    for message in ("[Errno 28] No space left on device", "no such file", "[Errno 28] No space left on device"):
        claim = claims.claim(0, lambda _: False)
        assert claim
        claims.fail(claim.run.run_id, message)
    shown = runner.invoke(cli.app, ["report", str(toy_home)]).output
    assert "Runs: 3 failed (2 of them: [Errno 28] No space left on device).\n" in shown
    assert "What workers did is in " in shown
    assert "outlearn team" not in shown, "no team ever worked here"
    close_the_gap(toy_home)
    shown = runner.invoke(cli.app, ["report", str(toy_home)]).output
    assert "The ceiling is 0.1 points above the teacher, which is not significant: PGR is undefined. Cali" in shown
    assert "What workers did is in " not in shown
    monkeypatch.setattr(runner_module, "run_team", stop_here)
    warned = runner.invoke(cli.app, ["team", str(toy_home)])
    assert "warning: task toy: the ceiling is 0.1 points above the teacher" in warned.stderr


async def stop_here(*_: object) -> NoReturn:
    raise NotFoundError("it does not matter: the warning came before")


def close_the_gap(home: Path) -> None:
    """Bring the toy task's ceiling down to its teacher."""
    file = home / "vault" / "toy" / "baselines.json"
    baselines = Baselines.model_validate_json(file.read_text())
    near = tuple(one.model_copy(update={"ceiling_public": one.weak_public + 0.001}) for one in baselines.per_seed)
    file.write_text(baselines.model_copy(update={"per_seed": near}).model_dump_json())


def make_prepared(home: Path, name: str) -> None:
    """Have the home's toy task prepared under another name and not calibrated."""
    public, secret = load_public(home, "toy"), load_secret(home, "toy")
    write_prepared(home, (public.card.model_copy(update={"name": name}), public.pool, secret), {}, "{}")


def test_a_task_that_is_missing_is_told_with_the_commands_that_make_it_there(
    toy_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_prepared(toy_home, "mine")
    asked = runner.invoke(cli.app, ["team", str(toy_home), "--task", "mine"])
    assert f"has to be calibrated: `outlearn calibrate mine --home {toy_home}`" in str(asked.exception)
    toy_home.rename("runs-default")
    Path("runs").mkdir()
    Path("runs-default").rename("runs/default")
    for command in (["team", "runs/new", "--task", "mine"], ["calibrate", "mine", "--home", "runs/new"]):
        asked = runner.invoke(cli.app, command)
        assert isinstance(asked.exception, NotFoundError)
        for part in (
            "`outlearn prepare mine --home runs/new --source ...`",
            "`outlearn calibrate mine --home runs/new`",
        ):
            assert part in str(asked.exception)
        assert "'runs/default' has one: a team works in the home folder of its task" in str(asked.exception)
    assert not Path("runs/new").exists()


def test_what_comes_next_for_a_task_is_told_in_whole_commands(toy_home: Path) -> None:
    make_prepared(toy_home, "mine")
    team = f"outlearn team {toy_home} --task"
    assert next_commands(toy_home, "toy") == f"next: {team} toy"
    assert next_commands(toy_home, "mine") == f"next: outlearn calibrate mine --home {toy_home}\nthen: {team} mine"
    shown = runner.invoke(cli.app, ["prepare", "code", "--home", str(toy_home)]).output
    assert shown.endswith(f"next: {team} code\n")


@pytest.mark.parametrize("ceiling", [0.5, 0.9])
def test_calibration_without_a_significant_gap_does_not_send_a_team(toy_home: Path, ceiling: float) -> None:
    make_prepared(toy_home, "mine")
    card, _, secret = load_prepared(toy_home, "mine")
    rng, kept = np.random.default_rng(0), KeptSeeds(toy_home, card)
    for seed in range(5):
        right = rng.uniform(size=(4, card.test_size)) < np.array([[0.5], [ceiling], [0.5], [0.5]])
        kept.write(seed, SeedPredictions(rng.uniform(size=card.pool_size), *(right == secret.test_labels)))
    shown = runner.invoke(cli.app, ["calibrate", "mine", "--home", str(toy_home)]).output
    assert ("NOT significant" in shown) == (ceiling == 0.5)
    assert ("next: outlearn team" in shown) == (ceiling == 0.9)
    assert ("next: no team yet" in shown) == (ceiling == 0.5)
    assert next_commands(toy_home, "mine").startswith("next: no team yet: ") == (ceiling == 0.5)


def test_interrupted_training_says_how_to_go_on(toy_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    make_prepared(toy_home, "mine")
    monkeypatch.setattr("outlearn_training.calibration.calibrate.calibrate", stopped)
    result = runner.invoke(cli.app, ["calibrate", "mine", "--home", str(toy_home)])
    assert (result.exit_code, result.stdout) == (130, "")
    assert "the same command goes on where it was" in result.stderr
    monkeypatch.setattr("outlearn_evaluation.teacher_check.check_teacher", stopped)
    result = runner.invoke(cli.app, ["audit", str(toy_home), "--check-teacher", "run-0123456789"])
    assert (result.exit_code, result.stdout) == (130, "")
    assert "the same command goes on where it was" in result.stderr


def test_the_demo_names_the_tiny_tasks(tmp_path: Path) -> None:
    refused = runner.invoke(cli.app, ["demo", "--task", "maths", "--run", str(tmp_path / "run")])
    assert str(refused.exception) == "no tiny task 'maths'; there are: math, chat, code"
    assert not (tmp_path / "run").exists()


def test_a_demo_goes_on_with_its_own_team_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teams: list[TeamSpec] = []
    monkeypatch.setattr(demo_command, "work", lambda _folder, spec, *_: teams.append(spec))
    again = ["demo", "--run", str(tmp_path), "--agents", "2"]
    runner.invoke(cli.app, again)
    kept = teams[0].model_copy(update={"seconds_worked": 7.0})
    RunFolder(tmp_path).write_spec(kept)
    runner.invoke(cli.app, again)
    assert teams[1] == kept
    refused = runner.invoke(cli.app, ["demo", "--run", str(tmp_path), "--task", "chat"])
    assert isinstance(refused.exception, ConflictError)
    assert f"`outlearn team {tmp_path}` goes on with it" in str(refused.exception)


def test_directions_that_help_names_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = "".join(runner.invoke(cli.app, [*words, "--help"]).output for words in (["team", "add"], ["brief"]))
    named = re.findall(r"--direction (\w+)", shown)
    assert "confidence" in named
    assert {*named} - {"NAME"} <= {*direction_names()}


def test_what_ends_or_replaces_tokens_makes_no_folder(tmp_path: Path) -> None:
    for what in ("--revoke", "--rotate", "--list"):
        asked = runner.invoke(
            cli.app, ["token", *(["ada"] if what != "--list" else []), what, "--home", str(tmp_path / "x")]
        )
        assert "tokens.json" in str(asked.exception)
        assert not (tmp_path / "x").exists()


def test_a_team_works_on_the_task_of_its_folder(
    toy_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_task_for: Callable[..., TaskCard]
) -> None:
    teams: list[TeamSpec] = []
    monkeypatch.setattr(team_commands, "work", lambda _folder, spec, *_: teams.append(spec))
    runner.invoke(cli.app, ["team", str(tmp_path / "new")])
    runner.invoke(cli.app, ["team", str(toy_home)])
    write_task_for(toy_home, "toy/student", "a-newer-one")
    runner.invoke(cli.app, ["team", str(toy_home)])
    assert [team.task for team in teams] == ["math", "toy", "a-newer-one"]
    make_prepared(toy_home, "mine")
    for name in ("toy", "a-newer-one"):
        shutil.rmtree(toy_home / "data" / name)
    refused = runner.invoke(cli.app, ["team", str(toy_home)])
    assert "task 'mine' is prepared" in str(refused.exception)


def test_a_home_where_a_task_waits_for_calibration_gets_no_other_one(toy_home: Path) -> None:
    make_prepared(toy_home, "mine")
    shutil.rmtree(toy_home / "data" / "toy")
    server = build_training(TrainingSettings(home=toy_home), Idle())
    assert task_names(toy_home) == []
    with pytest.raises(ToolError, match="mine is prepared and has to be calibrated"):
        anyio.run(server.call_tool, "describe_task", {})


def test_directions_are_data_and_may_be_ones_own(tmp_path: Path) -> None:
    assert all(read_direction(name).startswith("# ") for name in direction_names())
    assert len(set(choose_directions([], 9))) == 9
    assert set(choose_directions([], 3, "same")) == {read_direction("open")}
    assert set(choose_directions(["trust"], 3, "same")) == {read_direction("trust")}
    assert set(choose_directions([], 3, "prescriptive")) == {read_direction("prescriptive")}
    with pytest.raises(InvalidInputError, match="leave out the direction 'trust'"):
        choose_directions(["trust"], 3, "prescriptive")
    own = tmp_path / "mine.md"
    own.write_text("# Mine\n\nLook at layers.\n")
    assert choose_directions([str(own)], 2) == ["# Mine\n\nLook at layers."] * 2
    own.write_text(" \n")
    with pytest.raises(InvalidInputError, match="is empty"):
        read_direction(str(own))
    with pytest.raises(NotFoundError, match="elicitation"):
        read_direction("nowhere")


def test_the_brief_has_a_place_for_the_agent_and_its_direction() -> None:
    brief = read_prompt("brief").format(agent="ada", direction="# Trust {braces}")
    assert "You are ada" in brief
    assert "# Trust {braces}" in brief


def test_the_summarys_documentation_names_every_field() -> None:
    text = Path(__file__).parents[2].joinpath("docs/summary.md").read_text(encoding="utf-8")
    schema = Summary.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    missing = {name for part in parts for name in part.get("properties", {}) if f"`{name}`" not in text}
    assert not missing
    assert Receipt.__name__.lower() in text.lower()
    documented = [
        {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ]
    models = (Summary, RunSummary, FindingSummary, Release, Finalist)
    assert documented == [set(model.model_fields) for model in models]
    for kind in (*get_args(FindingKind), *get_args(RunStatus), *get_args(LineageNode.model_fields["kind"].annotation)):
        assert kind in text


def test_a_commitment_is_opened_by_the_operator_and_checked_by_anybody(toy_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "revealed.json"
    reveal = ["reveal", "toy", "--out", str(file), "--home", str(toy_home)]
    early = runner.invoke(cli.app, reveal)
    assert isinstance(early.exception, ConflictError)
    assert not file.exists()
    shown = runner.invoke(cli.app, [*reveal, "--early"])
    assert isinstance(runner.invoke(cli.app, [*reveal, "--early"]).exception, ConflictError)  # the file exists
    published = shown.stdout.strip()
    assert f"`outlearn verify-commitment {file} {published}`" in shown.stderr
    assert (shown.exit_code, len(published), file.stat().st_mode & 0o777) == (0, 64, 0o600)
    checked = runner.invoke(cli.app, ["verify-commitment", str(file), published])
    assert (checked.exit_code, checked.output) == (0, "toy: 200 labels, split, noise and baselines are as committed\n")
    refused = runner.invoke(cli.app, ["verify-commitment", str(file), "0" * 64])
    assert isinstance(refused.exception, IntegrityError)
    missing = runner.invoke(cli.app, ["verify-commitment", str(tmp_path / "none.json"), published])
    assert "`outlearn reveal TASK --home RUN --out FILE`" in str(missing.exception)


def test_what_is_revealed_is_told_although_the_report_cannot_be_written(toy_home: Path, tmp_path: Path) -> None:
    RunFolder(toy_home).report.mkdir()
    shown = runner.invoke(
        cli.app, ["reveal", "toy", "--out", str(tmp_path / "x.json"), "--home", str(toy_home), "--early"]
    )
    assert (shown.exit_code, len(shown.stdout.strip())) == (0, 64)
    assert f"warning: the report is not up to date (Is a directory: '{toy_home}/report.html')" in shown.stderr
