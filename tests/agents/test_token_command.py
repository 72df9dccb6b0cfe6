"""`outlearn token`: make, rotate, revoke, list."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from outlearn.errors import InvalidInputError, OutlearnError
from outlearn.identity import TokenFile
from outlearn_agents import cli


def token(home: Path, *arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(cli.app, ["token", *arguments, "--home", str(home)])
    if result.exception:
        raise result.exception
    return result.output.strip()


def test_a_token_is_rotated_and_revoked_by_its_agents_name(tmp_path: Path) -> None:
    first = token(tmp_path, "ada")
    second = token(tmp_path, "ada", "--rotate")
    third = token(tmp_path, "ada", "--rotate", "--grace", "0")
    file = TokenFile(tmp_path / "tokens.json")
    assert [bool(file.verify(one)) for one in (first, second, third)] == [False, False, True]
    assert token(tmp_path, "ada", "--revoke") == "ada: 1 revoked"
    assert file.verify(third) is None
    with pytest.raises(OutlearnError, match="'ada' has no token"):
        token(tmp_path, "ada", "--rotate")


def test_a_further_token_says_that_the_first_one_goes_on_and_how_to_end_it(tmp_path: Path) -> None:
    home = tmp_path / "my home"
    runner = CliRunner()
    first = runner.invoke(cli.app, ["token", "ada", "--home", str(home)])
    assert first.stderr == ""
    second = runner.invoke(cli.app, ["token", "ada", "--home", str(home)])
    assert second.stdout.startswith("outlearn_")
    assert "ada had 1 token already" in second.stderr
    assert f"`outlearn token ada --tokens '{home}/tokens.json' --rotate`" in second.stderr
    assert json.loads(runner.invoke(cli.app, ["token", "ada", "--home", str(home), "--json"]).stdout)["tokens"] == 3
    assert runner.invoke(cli.app, ["token", "ada", "--home", str(home), "--rotate"]).stderr == ""


def test_the_list_shows_names_roles_and_times_and_never_a_token(tmp_path: Path) -> None:
    made = [token(tmp_path, "ada", "--days", "2"), token(tmp_path, "chief", "--operator")]
    ada, chief = json.loads(token(tmp_path, "--list", "--json"))
    assert (ada["agent"], ada["role"], chief["agent"], chief["role"]) == ("ada", "agent", "chief", "operator")
    assert datetime.fromisoformat(ada["expires_at"]) - datetime.now(UTC) < timedelta(days=2)
    table = token(tmp_path, "--list")
    assert "chief" in table
    assert not any(secret[9:20] in table + json.dumps(ada) for secret in made)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ada", "--list"],
        ["ada", "--rotate", "--revoke"],
        ["--rotate"],
        ["ada", "--rotate", "--operator"],
        ["--list", "--days", "1"],
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="`outlearn token AGENT` makes a token"):
        token(tmp_path, *arguments)
