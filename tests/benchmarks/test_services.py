"""The benchmark of the services, at a size that says nothing."""

import json
import subprocess
import sys
from pathlib import Path

SERVICES = Path(__file__).parents[2] / "benchmarks" / "services.py"
SIZES = {"rounds": 1, "calls": 4, "clients": 2, "findings": 20, "runs": 20}
LITTLE = [
    "--quick",
    "--tools",
    "evaluate_new",
    "--transport",
    "http",
    *(f"--{name}={size}" for name, size in SIZES.items()),
]


def test_the_services_benchmark_holds_a_tool_against_both_echoes(tmp_path: Path) -> None:
    file = tmp_path / "services.json"
    subprocess.run([sys.executable, SERVICES, *LITTLE, "--json", file], check=True, capture_output=True, timeout=120)
    found = json.loads(file.read_text())
    rows = {tool: by_clients["2"] for tool, by_clients in found["http"].items()}
    assert set(rows) == {"bare_echo", "kit_echo", "bare_8_kb", "bare_echo_few", "kit_echo_few", "evaluate_new"}
    assert all(min(row["rps"], row["p50_ms"], row["vs_echo"], row["vs_kit_echo"]) > 0 for row in rows.values())
    assert rows["bare_echo"]["vs_echo"] == rows["kit_echo"]["vs_kit_echo"] == 1
    assert {"search", "leaderboard, 20 rows"} <= set(found["inside"])
