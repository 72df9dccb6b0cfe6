"""Programs are varied and really run; a program that is run reaches nothing."""

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from outlearn.errors import ConfigError, InvalidInputError
from outlearn.sources import BAD_SYNTAX, MISSING_COLUMN, UNUSABLE, BadRow, Example, SourceRequest
from outlearn_training.data import execution, executions
from outlearn_training.data.execution import Limits, run_programs
from outlearn_training.data.executions import Executions
from outlearn_training.data.humaneval import SOURCE, variants
from outlearn_training.data.mutation import FAULTS, REWRITES, variant
from outlearn_training.data.runner import Outcome
from outlearn_training.sandbox.landlock import landlock_version

PROGRAM = '''
def total(numbers: list[int], skip: int = 0) -> int:
    """Add up."""
    count = 0
    for index, number in enumerate(numbers):
        if index >= skip and number > 0:
            count += number
        else:
            continue
    return max(count, 0) if len(numbers[1:]) < 9 else count * 1
'''
PROBLEM = {
    "task_id": "made/0",
    "prompt": 'def total(numbers, skip=0):\n    """Add up."""\n',
    "canonical_solution": "    count = 0\n    for i, n in enumerate(numbers):\n        if i >= skip:\n"
    "            count += n\n    return count + 0\n",
    "test": "def check(f):\n    assert f([1, 2, 3]) == 6\n    assert f([1, 2, 3], 1) == 5\n    assert f([-1]) == -1\n",
    "entry_point": "total",
}
LIMITS = Limits(cpu_seconds=1, wall_seconds=20, memory_bytes=2**28)
needs_landlock = pytest.mark.skipif(not landlock_version(), reason="programs are run only where Landlock confines them")


def problems(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "problems.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_variants_parse_differ_and_follow_from_the_seed() -> None:
    found = variants(PROGRAM, 40, random.Random(1))
    assert len(set(found)) == len(found) == 40
    assert found == variants(PROGRAM, 40, random.Random(1))
    assert '"""' not in found[0]
    for program in found:
        compile(program, "program.py", "exec")
        assert "numbers: list[int]" in program or ": list[int]" in program


@pytest.mark.parametrize("sites", [*FAULTS, *REWRITES], ids=lambda sites: sites.__name__)
def test_every_kind_of_edit_changes_the_program(sites: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn_training.data.mutation.FAULTS", (sites,))
    more = """
def other(x, y):
    x += y[x]
    if x and y or x:
        return x + y
    else:
        return x(y, x)
"""
    source = PROGRAM + more
    assert variant(source, random.Random(0), fault=True, rewrites=0) != variant(
        source, random.Random(0), fault=False, rewrites=0
    )


@needs_landlock
def test_programs_pass_fail_or_take_too_long(tmp_path: Path) -> None:
    programs = {
        "assert 1 + 1 == 2": "passed",
        "assert 1 + 1 == 3": "failed",
        "import sys; sys.exit(0)": "failed",
        "import os; os._exit(0)": "failed",
        "while True: pass": "timeout",
        "x = [0] * 10**9": "failed",
        "print('x' * 100)": "passed",
        "this is no program": "failed",
    }
    assert run_programs(list(programs), tmp_path, LIMITS) == list(programs.values())


@needs_landlock
def test_a_program_that_sleeps_is_ended_by_the_clock(tmp_path: Path) -> None:
    assert run_programs(["import time; time.sleep(60)"], tmp_path, Limits(wall_seconds=0.3)) == ["timeout"]


@needs_landlock
def test_a_program_reaches_no_file_no_secret_and_no_network(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("labels")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        attempts = [
            f"open({str(tmp_path / 'secret')!r})",
            f"open({str(tmp_path / 'new')!r}, 'w')",
            f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)",
            "import subprocess; subprocess.run(['/bin/true'], check=True)",
        ]
        assert run_programs(attempts, tmp_path, LIMITS) == ["failed"] * 4
    assert not (tmp_path / "new").exists()


@needs_landlock
def test_what_a_program_leaves_running_is_ended(tmp_path: Path) -> None:
    program = "import os, time\nif not os.fork():\n    os.setsid()\n    time.sleep(600)"
    assert run_programs([program, "1"], tmp_path, LIMITS) == ["passed", "passed"]


@needs_landlock
def test_a_vault_that_programs_could_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="another home folder"):
        run_programs(["1"], Path(execution.__file__).parent / "vault", LIMITS)


def test_without_landlock_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        returncode = execution.NOT_CONFINED

    monkeypatch.setattr("subprocess.run", lambda *_, **__: Done)
    with pytest.raises(ConfigError, match="Landlock"):
        run_programs(["1"], tmp_path)


def pretend(monkeypatch: pytest.MonkeyPatch, *, stop_at: int = -1) -> list[str]:
    """Replace the running of programs: returns those that are "run"; number `stop_at` is interrupted instead."""
    ran: list[str] = []

    def run(programs: Sequence[str], _vault: Path, _limits: Limits) -> list[Outcome]:
        if len(ran) == stop_at:
            raise KeyboardInterrupt
        ran.extend(programs)
        return ["passed" if "good" in program else "failed" for program in programs]

    monkeypatch.setattr(executions, "run_programs", run)
    monkeypatch.setattr(executions, "count_cores", lambda: 1)
    return ran


def test_an_interrupted_preparation_runs_no_program_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [(f"good {i}", f"bad {i}") for i in range(5)]
    first, shares = pretend(monkeypatch, stop_at=6), list[float]()
    with pytest.raises(KeyboardInterrupt):
        list(Executions(tmp_path, LIMITS).run(batches, shares.append))
    assert (len(first), shares) == (6, [0.2, 0.4, 0.6])
    second = pretend(monkeypatch)
    assert list(Executions(tmp_path, LIMITS).run(batches, shares.append)) == [["passed", "failed"]] * 5
    assert first + second == [program for batch in batches for program in batch]
    assert shares[-1] == 1


def test_kept_outcomes_are_of_the_same_programs_limits_and_whole_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = pretend(monkeypatch)
    for batch, limits in ((["good"], LIMITS), (["good "], LIMITS), (["good"], Limits()), (["good"], LIMITS)):
        assert list(Executions(tmp_path, limits).run([batch], lambda _: None)) == [["passed"]]
    assert len(ran) == 3
    for path in (tmp_path / ".executions").iterdir():
        assert path.stat().st_mode & 0o077 == 0
        path.write_text('["pass')
    assert list(Executions(tmp_path, LIMITS).run([["good"]], lambda _: None)) == [["passed"]]
    assert len(ran) == 4


@needs_landlock
def test_programs_run_side_by_side_have_the_labels_that_they_have_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = problems(tmp_path, *(PROBLEM | {"task_id": f"made/{i}"} for i in range(4)))
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(executions, "count_cores", lambda cores=cores: cores)
        vault = tmp_path / str(cores) / "vault"
        found.append(list(SOURCE.rows(SourceRequest(files=(path,), options={"variants": "4"}, vault=vault))))
    assert found[0] == found[1]
    assert len(found[0]) == 16


@needs_landlock
def test_labels_are_what_the_tests_say(tmp_path: Path) -> None:
    path = problems(tmp_path, PROBLEM)
    request = SourceRequest(files=(path,), options={"variants": "24"}, vault=tmp_path / "vault")
    rows = [row for row in SOURCE.rows(request) if isinstance(row, Example)]
    assert len(rows) == 24
    assert {row.label for row in rows} == {0, 1}
    for row in rows:
        space: dict[str, object] = {}
        exec(row.responses[0] + "\n" + PROBLEM["test"], space)
        try:
            space["check"](space["total"])  # type: ignore[operator]
            passed = True
        except Exception:  # noqa: BLE001 - however it fails, it has failed
            passed = False
        assert passed == bool(row.label), row.responses[0]
    assert rows == list(SOURCE.rows(request))


@needs_landlock
def test_a_problem_that_cannot_be_used_is_a_bad_row(tmp_path: Path) -> None:
    path = problems(
        tmp_path,
        PROBLEM | {"canonical_solution": "    return 7\n"},
        PROBLEM | {"canonical_solution": "    return (\n"},
        {name: value for name, value in PROBLEM.items() if name != "test"},
    )
    rows = list(SOURCE.rows(SourceRequest(files=(path,), options={"variants": "2"}, vault=tmp_path / "vault")))
    assert [row.reason for row in rows if isinstance(row, BadRow)] == [UNUSABLE, BAD_SYNTAX, MISSING_COLUMN]


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_an_impossible_number_of_variants_is_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match="variants"):
        list(SOURCE.rows(SourceRequest(files=(Path("x"),), options={"variants": value})))
