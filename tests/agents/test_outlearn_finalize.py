"""`outlearn finalize`: what it prints, what it refuses, and that it can be stopped."""

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("statsmodels")

from outlearn.errors import NotFoundError
from outlearn.tasks import Baselines
from outlearn_agents import cli
from outlearn_agents.commands import finalize as command
from outlearn_agents.terminal.finals import print_release
from outlearn_evaluation import final as module
from outlearn_evaluation.release import Comparison, Finalist, Interval, Release, ReleaseBook
from outlearn_training.settings import TrainingSettings


def interval(value: float, se: float = 0.02) -> Interval:
    return Interval(value=value, low=value - 2 * se, high=value + 2 * se, se=se, se_items=se, se_seeds=0, df=8)


def finalist(run_id: str, pgr: float | None = None, failed: str = "") -> Finalist:
    return Finalist(
        run_id=run_id,
        rerun_id=f"{run_id}again",
        agent="ada",
        method="methods/early25.py",
        params={},
        told=0.9,
        told_at_most=False,
        failed=failed,
        accuracy=None if failed else 0.8,
        pgr=None if pgr is None else interval(pgr),
        fall=None if pgr is None else interval(0.1),
    )


def comparison(run_id: str, other: str, p: float) -> Comparison:
    return Comparison(
        run_id=run_id, other=other, difference=interval(0.05), p_value=p / 3, p_holm=p, significant=p < 0.05
    )


def a_release(*finalists: Finalist, comparisons: tuple[Comparison, ...] = (), gap: float = 0.3) -> Release:
    return Release(
        task="toy",
        task_fingerprint="f",
        commitment="c",
        seeds=(7, 8, 9, 10, 11),
        items=100,
        groups=40,
        weak_acc=0.6,
        ceiling_acc=0.9,
        gap=interval(gap),
        finalists=finalists,
        comparisons=comparisons,
        closed_at=datetime.now(UTC),
    )


def printed(release: Release) -> str:
    written = StringIO()
    print_release(Console(width=140, file=written), release, Path("runs/mine/vault/toy/release.json"))
    return written.getvalue()


def test_it_shows_intervals_and_marks_what_is_not_significant() -> None:
    finalists = finalist("run-aaaaaa", 0.8), finalist("run-bbbbbb", 0.7), finalist("run-cccccc", 0.6)
    pairs = comparison("run-aaaaaa", "run-bbbbbb", 0.4), comparison("run-aaaaaa", "run-cccccc", 0.01)
    lines = printed(a_release(*finalists, comparisons=pairs)).splitlines()
    [first] = [line for line in lines if "run-aaaaaa" in line]
    assert first.split()[:8] == ["1", "0.80", "[0.76,", "0.84]", "±0.02,", "±0.00", "0.90", "+0.10"]
    assert "run-aaaaaa by ada: early25" in first
    [doubtful] = [line for line in lines if line.strip().startswith("1 - 2")]
    [clear] = [line for line in lines if line.strip().startswith("1 - 3")]
    assert doubtful.rstrip().endswith("not significant")
    assert "significant" not in clear
    text = " ".join(" ".join(lines).split())
    assert "1 of 2 differences are significant" in text
    assert "100 private items in 40 groups, 5 fresh seeds" in text
    assert "outlearn reveal toy --home runs/mine --out revealed.json" in text


def test_it_says_why_there_is_no_score_or_no_pgr() -> None:
    failed = finalist("run-aaaaaa", failed="ValueError: \x1b[31mno luck")
    text = printed(a_release(finalist("run-bbbbbb"), failed, gap=0.01))
    assert "run-aaaaaa has no score: ValueError: " in text
    assert "\x1b" not in text
    assert "PGR is undefined: the gap between teacher and ceiling, 1.0 points [-3.00, 5.00], is not significant" in text


def test_a_release_that_is_kept_is_shown_again_without_training(
    toy_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "finalize")
    kept = ReleaseBook(toy_home / "vault", "toy").file(a_release(finalist("run-aaaaaa", 0.8)))
    cli.app(["finalize", str(toy_home), "--json"], standalone_mode=False)
    assert Release.model_validate(json.loads(capsys.readouterr().out)) == kept
    cli.app(["finalize", str(toy_home)], standalone_mode=False)
    assert "run-aaaaaa" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_release_is_shown_although_the_report_cannot_be_written(toy_home: Path, options: list[str]) -> None:
    ReleaseBook(toy_home / "vault", "toy").file(a_release(finalist("run-aaaaaa", 0.8)))
    (toy_home / "report.html").mkdir()
    result = CliRunner().invoke(cli.app, ["finalize", str(toy_home), *options])
    assert result.exit_code == 0
    assert "run-aaaaaa" in result.stdout
    assert "warning: the report is not up to date (Is a directory: " in result.stderr


def test_it_warns_before_it_trains_where_no_pgr_can_come_out(toy_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = toy_home / "vault" / "toy" / "baselines.json"
    baselines = Baselines.model_validate_json(file.read_text())
    low = tuple(one.model_copy(update={"ceiling_public": 0.5}) for one in baselines.per_seed)
    file.write_text(baselines.model_copy(update={"per_seed": low}).model_dump_json())
    monkeypatch.setattr(module, "finalize", lambda *_, **__: a_release(finalist("run-aaaaaa")))
    result = CliRunner().invoke(cli.app, ["finalize", str(toy_home)])
    assert "warning: task toy: the ceiling is -10.0 points above the teacher, which is not" in result.stderr


def test_ctrl_c_says_how_to_go_on(toy_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "finalize", stopped)
    result = CliRunner().invoke(cli.app, ["finalize", str(toy_home)])
    assert result.exit_code == 130
    assert f"`outlearn finalize {toy_home}` goes on where it was" in result.stderr


def test_it_does_runs_again_as_the_team_did_them(toy_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = {
        "workers": 3,
        "threads": 2,
        "seed_seconds": 7,
        "memory_gb": 2,
        "bubblewrap": False,
        "unsafe_no_sandbox": True,
    }
    TrainingSettings(home=toy_home, max_waiting=1, **team).keep()  # type: ignore[arg-type]
    monkeypatch.setenv("OUTLEARN_MEMORY_GB", "5")
    monkeypatch.setattr(command, "_rerunning", lambda settings, *_, **__: settings)
    monkeypatch.setattr(
        module, "finalize", lambda _evaluation, _task, settings, *_, **__: seen.append(settings) or shown
    )
    seen, shown = list[TrainingSettings](), a_release(finalist("run-aaaaaa", 0.8))
    for options in ([], ["--workers", "1"]):
        cli.app(["finalize", str(toy_home), *options, "--json"], standalone_mode=False)
    assert [one.workers for one in seen] == [3, 1]
    wanted = {**team, "memory_gb": 5, "max_waiting": 20, "home": toy_home}
    assert seen[0].model_dump(include=wanted.keys()) == wanted


def test_without_nominations_or_tasks_there_is_no_final(toy_home: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nobody has nominated a run of task 'toy'"):
        cli.app(["finalize", str(toy_home)], standalone_mode=False)
    with pytest.raises(NotFoundError, match="no task 'chess'"):
        cli.app(["finalize", str(toy_home), "--task", "chess"], standalone_mode=False)
    nowhere = tmp_path / "nowhere"
    with pytest.raises(NotFoundError, match="is not a run folder"):
        cli.app(["finalize", str(nowhere)], standalone_mode=False)
    with pytest.raises(NotFoundError, match="no task 'toy'"):
        cli.app(["finalize", str(nowhere), "--task", "toy"], standalone_mode=False)
    assert not nowhere.exists()
