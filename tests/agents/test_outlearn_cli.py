"""The `outlearn` command, as scripts and people call it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outlearn.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from outlearn.identity import TokenFile
from outlearn.receipts import Receipt
from outlearn_agents import cli
from outlearn_agents.commands import team as team_commands
from outlearn_agents.directions import choose_directions, direction_names, read_direction, read_prompt
from outlearn_agents.report.summary import Summary
from outlearn_agents.team.folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.team.runner import make_team

runner = CliRunner()


def test_help_names_the_commands_and_where_to_begin() -> None:
    shown = runner.invoke(cli.app, ["--help"]).output
    for word in ("demo", "team", "report", "prepare", "calibrate", "token", "plugins", "ANTHROPIC_API_KEY"):
        assert word in shown
    for command in ("demo", "team", "report", "prepare", "calibrate", "token", "plugins"):
        assert runner.invoke(cli.app, [command, "-h"]).exit_code == 0


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
    monkeypatch.setattr(sys, "argv", ["outlearn", "report", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("outlearn: ")
    assert "is not a run folder" in error
    assert error.count("\n") == 1


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


def test_a_commitment_is_opened_by_the_operator_and_checked_by_anybody(toy_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "revealed.json"
    reveal = ["reveal", "toy", "--out", str(file), "--home", str(toy_home)]
    early = runner.invoke(cli.app, reveal)
    assert isinstance(early.exception, ConflictError)
    assert not file.exists()
    shown = runner.invoke(cli.app, [*reveal, "--early"])
    assert isinstance(runner.invoke(cli.app, [*reveal, "--early"]).exception, ConflictError)  # the file exists
    published = shown.output.strip()
    assert (shown.exit_code, len(published), file.stat().st_mode & 0o777) == (0, 64, 0o600)
    checked = runner.invoke(cli.app, ["verify-commitment", str(file), published])
    assert (checked.exit_code, checked.output) == (0, "toy: 200 labels, split, noise and baselines are as committed\n")
    refused = runner.invoke(cli.app, ["verify-commitment", str(file), "0" * 64])
    assert isinstance(refused.exception, IntegrityError)
