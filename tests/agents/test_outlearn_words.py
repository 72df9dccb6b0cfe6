"""What commands say: help with examples, hints to copy, errors in plain words, progress where nobody watches."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from outlearn.errors import ConfigError, ConflictError, IntegrityError, InvalidInputError, NotFoundError, OutlearnError
from outlearn.types import RunView
from outlearn_agents import cli
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.team.live import PlainLines
from outlearn_agents.team.watch import AgentView, TeamView
from outlearn_agents.terminal.progress import PlainProgress, progress_bar

runner = CliRunner()
WITHOUT_JSON = {"brief"}
"""It prints a text for a model."""


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in getattr(group, "commands", {}).items():
        yield (*path, name), command
        yield from commands(command, (*path, name))


ALL = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_teaches_by_an_example_and_can_speak_json(path: tuple[str, ...]) -> None:
    shown = " ".join(runner.invoke(cli.app, [*path, "--help"]).output.split())
    assert re.search(rf"outlearn {' '.join(path).replace('team start', 'team')} [a-z\-]|\(outlearn brief\)", shown), (
        shown
    )
    assert hasattr(ALL[path], "commands") or path[-1] in WITHOUT_JSON or "--json" in shown


def said(*arguments: str) -> str:
    """What a command that cannot work says."""
    error = runner.invoke(cli.app, arguments).exception
    assert isinstance(error, OutlearnError), error
    return str(error)


@pytest.fixture
def folder(toy_home: Path) -> RunFolder:
    home = toy_home.rename(toy_home.parent / "my home")
    folder = RunFolder(home)
    folder.write_spec(TeamSpec(task="toy", agents=(AgentSpec(name="ada", direction="# Trust"),)))
    return folder


def test_a_kind_or_an_agent_that_the_audit_log_cannot_have_is_an_error_that_names_the_kinds(folder: RunFolder) -> None:
    run = str(folder.root)
    assert "there are: canary, " in said("audit", run, "--kind", "nope")
    assert "no agent 'zoe' ever worked" in said("audit", run, "--agent", "zoe")
    assert "no run 'run-000'" in said("audit", run, "--run", "run-000")
    assert runner.invoke(cli.app, ["audit", run, "--kind", "random masks", "--json"]).output == "[]\n"


def test_hints_can_be_copied_into_a_shell(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(folder.root)
    assert f"`outlearn team resume '{run}'`" in said("team", "pause", run)
    assert f"`outlearn team '{run}' --agent-budget evaluations=NUMBER`" in said(
        "team", "budget", run, "--agent-budget", "evaluations=3"
    )
    monkeypatch.setattr(RunFolder, "is_at_work", True)
    assert f"`outlearn team resume '{run}'`" in runner.invoke(cli.app, ["team", "pause", run]).output
    shown = runner.invoke(cli.app, ["team", "stop", run, "--json"]).output
    assert json.loads(shown) == {"agents": ["ada"], "state": "finishing"}


def test_a_folder_that_is_compared_with_itself_is_named(folder: RunFolder) -> None:
    assert f"{str(folder.root)!r} is given twice" in said("compare", str(folder.root), f"{folder.root}/../my home")


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("team", "status", "{broken}"), IntegrityError),
        (("team", "{home}", "--agent-budget", "dollars=many"), InvalidInputError),
        (("team", "{home}", "--agent-budget", "dollars=-1"), InvalidInputError),
        (("team", "{new}", "--researcher", "claude", "--option", "max_tokens=x"), ConfigError),
        (("team", "{new}", "--researcher", "claude", "--option", "price={broken}/team.json"), ConfigError),
        (("prepare", "x", "--source", "local", "--train", "2", "--kind", "nope"), OutlearnError),
        (("prepare", "X y", "--source", "local"), OutlearnError),
        (("calibrate", "nope", "--home", "{home}"), OutlearnError),
        (("calibrate", "toy", "--home", "{home}", "--set", "student_tuning.lr=x"), OutlearnError),
        (("export", "run-1", "{new}", "--home", "{home}"), OutlearnError),
        (("inspect", "{broken}"), IntegrityError),
        (("report", "{new}"), NotFoundError),
        (("finalize", "{home}", "--task", "nope"), NotFoundError),
        (("verify-commitment", "{broken}/team.json", "0"), IntegrityError),
        (("reveal", "toy", "--out", "{new}", "--home", "{home}"), ConflictError),
        (("reveal", "toy", "--out", "{new}", "--home", "{broken}"), NotFoundError),
        (("review", "{home}", "release", "run-123"), OutlearnError),
        (("brief", "--direction", "nope"), NotFoundError),
        (("token", "ada", "--tokens", "{broken}/team.json"), ConfigError),
    ],
    ids=lambda one: " ".join(one) if isinstance(one, tuple) else "",
)
def test_wrong_inputs_are_answered_in_one_plain_line(
    folder: RunFolder, tmp_path: Path, arguments: tuple[str, ...], kind: type[OutlearnError]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "team.json").write_text('{"task": 7, "agents": [{"name": "Ada Lovelace"}]}')
    names = {"home": folder.root, "broken": broken, "new": tmp_path / "new"}
    result = runner.invoke(cli.app, [one.format(**names) for one in arguments])
    assert isinstance(result.exception, kind), result.exception
    words = str(result.exception)
    assert "\n" not in words
    assert not re.search("pydantic|validation error|type=|input_value|Traceback", words)
    assert result.output == "", "no bar or banner before an error in the input"


def test_long_work_that_nobody_watches_tells_in_lines_how_far_it_is() -> None:
    now, lines = 0.0, list[str]()
    progress = PlainProgress("math", lines.append, clock=lambda: now)
    for step in range(100):
        now = float(step)
        progress("seed 0" if step % 2 else "seed 1", step / 100)
    progress("done", 1.0)
    told = [line.split("] ")[1] for line in lines]
    assert told == ["seed 1, 0 %", "seed 0, 1 %", "seed 0, 31 %", "seed 0, 61 %", "seed 0, 91 %", "done, 100 %"]


def test_a_bar_that_has_nothing_to_show_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInputError), progress_bar("math"):
        raise InvalidInputError("no")
    with progress_bar("math") as report:
        report("teacher [bold]", 0.5)
    assert capsys.readouterr().err == "math: [   0.0 s] teacher [bold], 50 %\n"


def test_a_team_that_goes_on_tells_only_what_is_new() -> None:
    out = io.StringIO()
    lines = PlainLines(Console(file=out, width=200))

    def view(state: str, *runs: RunView) -> TeamView:
        return TeamView(task="toy", agents=(AgentView("ada", "Trust", "before forum.vote", state),), runs=runs)

    def run(run_id: str) -> RunView:
        return RunView.model_construct(run_id=run_id, agent="ada", method="vanilla", params={}, status="done")

    lines(view("running", run("run-1")))
    lines(view("paused", run("run-1"), run("run-2")))
    lines(view("running"))
    lines(view("paused"))
    shown = out.getvalue()
    assert "run-1" not in shown
    assert shown.count("run-2") == 1
    assert shown.count("ada: paused: before forum.vote") == 2
