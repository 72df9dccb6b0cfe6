"""A base install is light: what needs torch or anthropic imports them when it uses them."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "datasets", "safetensors", "anthropic", "optuna", "plotly", "jinja2")
LIGHT = (
    "outlearn",
    "outlearn.testing",
    "outlearn_evaluation.server",
    "outlearn_forum.server",
    "outlearn_filesystem.server",
    "outlearn_training.server",
)


def imported_by(module: str) -> set[str]:
    """Which of the heavy packages `import MODULE` imports, in a fresh interpreter."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_kit_and_the_servers_imports_nothing_heavy() -> None:
    assert imported_by(", ".join(LIGHT)) == set()


def test_importing_the_command_line_imports_neither_torch_nor_anthropic() -> None:
    pytest.importorskip("typer", reason="the command line needs outlearn[agents]")
    assert not imported_by("outlearn_agents.cli") & {"torch", "transformers", "anthropic"}
