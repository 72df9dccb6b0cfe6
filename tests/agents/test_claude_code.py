"""Claude Code as a researcher: the brief for it, and the real thing where OUTLEARN_CLAUDE_CODE names its executable."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from messages_api import MessagesApi, Moody
from typer.testing import CliRunner

from outlearn.errors import NotFoundError
from outlearn.tasks import TaskCard
from outlearn_agents import cli

ROOT = Path(__file__).parents[2]
CLAUDE = os.environ.get("OUTLEARN_CLAUDE_CODE", "")
SERVERS = ("training", "evaluation", "forum", "filesystem")


def brief(*arguments: str) -> str:
    return CliRunner().invoke(cli.app, ["brief", *arguments], catch_exceptions=False).stdout


def the_command() -> list[str]:
    """The command that `outlearn brief --help` shows, split into words."""
    shown = CliRunner().invoke(cli.app, ["brief", "--help"]).output
    return shlex.split(shown[shown.index("MCP_CONNECTION") : shown.index("\nOptions")].replace("\\\n", " "))


def test_the_brief_names_tools_as_claude_code_does_and_has_its_direction(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("Ask why.")
    home = ("--home", str(tmp_path / "home"))
    said = brief("--agent", "ada", "--direction", str(tmp_path / "mine.md"), "--minutes", "7", *home)
    for part in ("You are ada,", "Ask why.", "mcp__SERVER__TOOL", "`mcp__training__describe_task`", "about 7 minutes"):
        assert part in said
    assert "`training__" not in said


def test_the_command_takes_claude_codes_own_tools_away() -> None:
    words = the_command()
    assert words[words.index("--tools") + 1] == ""
    assert "--strict-mcp-config" in words
    assert words[words.index("--allowedTools") + 1 :] == [f"mcp__{server}" for server in SERVERS]


def test_the_brief_warns_where_the_vault_is_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ask = CliRunner().invoke
    assert ask(cli.app, ["brief"]).stderr == ""
    (tmp_path / "runs" / "other" / "vault").mkdir(parents=True)
    said = ask(cli.app, ["brief"])
    assert '--tools ""' in said.stderr
    assert str(Path("runs", "other", "vault")) in said.stderr
    assert "note:" not in said.stdout
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert ask(cli.app, ["brief", "--home", str(tmp_path / "runs" / "other")]).stderr == ""


def test_the_brief_is_about_the_homes_own_task(
    toy_home: Path, tmp_path: Path, write_task_for: Callable[..., TaskCard]
) -> None:
    assert "The task is `math`." in brief("--home", str(tmp_path / "new"))
    assert "The task is `toy`." in brief("--home", str(toy_home))
    refused = CliRunner().invoke(cli.app, ["brief", "--home", str(toy_home), "--task", "nosuch"])
    assert isinstance(refused.exception, NotFoundError)
    assert "no task 'nosuch'" in str(refused.exception)
    assert "outlearn prepare nosuch --home" in str(refused.exception)
    write_task_for(toy_home, "toy/student", "a-newer-one")
    assert "The task is `a-newer-one`." in brief("--home", str(toy_home))


@pytest.mark.skipif(not CLAUDE, reason="set OUTLEARN_CLAUDE_CODE to the executable of Claude Code")
def test_claude_code_does_research_with_the_servers_of_mcp_json(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mcp.json", tmp_path)
    words = the_command()
    begins = words.index("claude")
    patience = dict(word.split("=") for word in words[:begins])
    told = brief("--home", str(tmp_path / "home"))
    command = [CLAUDE, *(told if word == "$(outlearn brief)" else word for word in words[begins + 1 :])]
    command += ["--max-turns", "60", "--output-format", "stream-json", "--verbose"]
    with MessagesApi(model=Moody(0.0, 0)).serve() as url:
        mine = {"OUTLEARN_BIN": str(Path(sys.executable).parent), "OUTLEARN_HOME": str(tmp_path / "home")}
        api = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test", "ENABLE_TOOL_SEARCH": "false"}
        environment = os.environ | mine | api | patience | {"HOME": str(tmp_path), "IS_SANDBOX": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begun = next(one for one in events if one.get("subtype") == "init")
    assert {server["name"]: server["status"] for server in begun["mcp_servers"]} == dict.fromkeys(SERVERS, "connected")
    own = [tool for tool in begun["tools"] if not tool.startswith("mcp__")]
    assert not own, own  # one that reads files would read the vault
    said = " ".join(str(one["message"]["content"]) for one in events if one["type"] == "user")
    assert re.search(r'PGR \S+ ± |"pgr":', said)
    assert '"post_id":"finding-' in said.replace("\\", "")
