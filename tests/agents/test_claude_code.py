"""Claude Code as a researcher: the brief for it, and the real thing where OUTLEARN_CLAUDE_CODE names its executable."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from messages_api import MessagesApi, Moody
from typer.testing import CliRunner

from outlearn_agents import cli

ROOT = Path(__file__).parents[2]
CLAUDE = os.environ.get("OUTLEARN_CLAUDE_CODE", "")
SERVERS = ("training", "evaluation", "forum", "filesystem")


def brief(*arguments: str) -> str:
    return CliRunner().invoke(cli.app, ["brief", *arguments], catch_exceptions=False).stdout


def test_the_brief_names_tools_as_claude_code_does_and_has_its_direction(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("Ask why.")
    said = brief("--agent", "ada", "--direction", str(tmp_path / "mine.md"), "--minutes", "7")
    for part in ("You are ada,", "Ask why.", "mcp__SERVER__TOOL", "`mcp__training__describe_task`", "about 7 minutes"):
        assert part in said
    assert "`training__" not in said


@pytest.mark.skipif(not CLAUDE, reason="set OUTLEARN_CLAUDE_CODE to the executable of Claude Code")
def test_claude_code_does_research_with_the_servers_of_mcp_json(tmp_path: Path) -> None:
    shutil.copy(ROOT / "mcp.json", tmp_path)
    command = [CLAUDE, "-p", "Begin.", "--append-system-prompt", brief(), "--mcp-config", "mcp.json"]
    command += ["--strict-mcp-config", "--max-turns", "24", "--output-format", "stream-json", "--verbose"]
    command += ["--allowedTools", *(f"mcp__{server}" for server in SERVERS)]
    with MessagesApi(model=Moody(0.0, 0)).serve() as url:
        mine = {"OUTLEARN_BIN": str(Path(sys.executable).parent), "OUTLEARN_HOME": str(tmp_path / "home")}
        api = {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "sk-test", "ENABLE_TOOL_SEARCH": "false"}
        environment = os.environ | mine | api | {"HOME": str(tmp_path), "IS_SANDBOX": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    begun = next(one for one in events if one.get("subtype") == "init")
    assert {server["name"]: server["status"] for server in begun["mcp_servers"]} == dict.fromkeys(SERVERS, "connected")
    said = " ".join(str(one["message"]["content"]) for one in events if one["type"] == "user")
    assert re.search(r'PGR \S+ ± |"pgr":', said)
    assert '"post_id":"finding-' in said.replace("\\", "")
