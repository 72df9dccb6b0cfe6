"""A package of somebody else's, really installed, comes through the same doors as what ships with outlearn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "plugin_package"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the package is installed, without touching the one that runs the tests."""
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(target), str(PACKAGE)], check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": str(target)}


def python(environment: dict[str, str], code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout


def test_all_three_kinds_of_plugin_are_listed_and_load(environment: dict[str, str]) -> None:
    code = (
        "from outlearn.registry import *\n"
        "for group, name in ((SERVERS, 'coin'), (METHODS, 'early_stop'), (RESEARCHERS, 'impatient')):\n"
        "    registry = Registry(group); assert name in registry.names(); print(registry.load(name).__module__)\n"
    )
    expected = ["outlearn_coin.server", "outlearn_coin.early_stop", "outlearn_coin.researcher"]
    assert python(environment, code).split() == expected


def test_its_server_answers_a_client_over_stdio(environment: dict[str, str]) -> None:
    code = (
        "import asyncio, sys, json\n"
        "from mcp import Client, StdioServerParameters, stdio_client\n"
        "async def main():\n"
        "    parameters = StdioServerParameters(command=sys.executable, args=['-m', 'outlearn_coin.server',\n"
        "        '--agent', 'ada', '--sides', '6'], env={'PYTHONPATH': sys.path[1]})\n"
        "    async with Client(stdio_client(parameters)) as client:\n"
        "        result = await client.call_tool('toss', {'count': 3})\n"
        "        print(json.dumps(result.structured_content))\n"
        "asyncio.run(main())\n"
    )
    toss = json.loads(python(environment, code))
    assert (toss["agent"], toss["tosses_so_far"], len(toss["sides"])) == ("ada", 3, 3)
    assert all(0 <= side < 6 for side in toss["sides"])


def test_its_method_is_offered_with_its_parameters(environment: dict[str, str]) -> None:
    code = (
        "import json\n"
        "from outlearn_training.catalogue import find_method\n"
        "print(json.dumps(find_method('early_stop').info.params['properties']))\n"
    )
    assert json.loads(python(environment, code))["epochs"]["default"] == 0.25


def test_a_team_of_its_researchers_runs_its_method(environment: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("optuna")
    run = tmp_path / "run"
    command = [sys.executable, "-c", "from outlearn_agents.cli import main; main()", "team", str(run)]
    options = ["--researcher", "impatient", "--agents", "1", "--minutes", "4", "--json"]
    environment = environment | {"OUTLEARN_WORKERS": "1"}
    done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert [(one["method"], one["seeds"]) for one in summary["runs"]] == [("early_stop", 5)]
    assert 0.1 < summary["best"]["pgr"] < 1.5  # the server answers with noise: a good student may pass the ceiling
    assert summary["findings"][0]["title"] == "early_stop once"
