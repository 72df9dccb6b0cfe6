"""Runs done again in a derived home folder: with fresh seeds, with inverted weak labels, and after kills."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("statsmodels")

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError
from outlearn.identity import Caller
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.tasks import TaskCard, load_baselines, load_card, load_public
from outlearn.types import RunView
from outlearn_agents import cli
from outlearn_evaluation.release import Release
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.tables import Submission
from outlearn_training.rerun import rerun
from outlearn_training.sandbox.bubblewrap import wrap
from outlearn_training.sandbox.disguise import read_digits
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.borrowing import BorrowingExecutor
from outlearn_training.workers.executor import LocalExecutor
from outlearn_training.workers.slots import give_way, slot_is_held, slot_pid, take_slot, want_worker

FRESH = (101, 102, 103, 104, 105)
GOOD = "def method(lab, seed):\n    return lab.fit(lab.weak_labels())\n"
BAD = "def method(lab, seed):\n    raise ValueError('no luck with this seed')\n"
UNLUCKY = """
def method(lab, seed):
    if seed == 3:
        raise ValueError("no luck")
    return lab.fit(lab.weak_labels())
"""
SPY = """
from pathlib import Path
def method(lab, seed, places):
    for place in places:
        try:
            print(place, Path(place).read_bytes())
        except PermissionError:
            continue
        raise RuntimeError(f"{place} can be read")
    return lab.fit(lab.weak_labels())
"""


@pytest.fixture
def settings(home: Path) -> Iterator[TrainingSettings]:
    made = TrainingSettings(home=home, workers=1, worker_idle_seconds=30)
    yield made
    for derived in (made.vault / "toy").glob("*/workers"):
        LocalExecutor(made.model_copy(update={"home": derived.parent})).stop()


@pytest.fixture
def submit(settings: TrainingSettings) -> Callable[..., str]:
    """Files a run in the home folder, as if it had been done there."""

    def file(source: str, agent: str = "ada", kind: str = "full", **params: object) -> str:
        submission = Submission(
            agent=agent,
            task="toy",
            method="mine.py",
            source_sha256=LocalArtifactStore(settings.home / "artifacts").put(source.encode()),
            source_bytes=len(source.encode()),
            params=params,
            kind=kind,
            seeds=(0, 1, 2, 3, 4),
        )
        return RunQueue(settings.database("training")).submit(submission, max_waiting=9).run_id

    return file


def receipts(into: Path, run_id: str) -> tuple[Receipt, ...]:
    return ReceiptBook(into / "vault").read(run_id)


def logged_seeds(into: Path) -> Counter[tuple[str, str]]:
    """How often each seed of each run was tried in a derived home."""
    logs = (into / "logs" / "runs").glob("*.log")
    found = ((log.stem, line.split(",")[0]) for log in logs for line in log.read_text().splitlines())
    return Counter((run_id, line) for run_id, line in found if line.startswith("# seed "))


def nominate(home: Path, card: TaskCard, agent: str, *run_ids: str) -> None:
    """Has an agent evaluate and nominate its runs, whose students answered at random."""
    service = EvaluationService(EvaluationSettings(home=home))
    for place, run_id in enumerate(run_ids):
        for seed in card.seeds:
            answers = np.random.default_rng([place, seed, *agent.encode()]).uniform(size=card.test_size).round(3)
            ReceiptBook(home / "vault").issue(
                Receipt(
                    run_id=run_id,
                    agent=agent,
                    method="mine.py",
                    method_sha256="0" * 64,
                    task="toy",
                    task_fingerprint=card.fingerprint,
                    seed=seed,
                    weights_sha256=("1" * 64,),
                    predictions=tuple(answers.tolist()),
                )
            )
        service.evaluate(Caller(agent=agent), run_id, None)
    service.nominate(Caller(agent=agent), run_ids)
    service.engine.dispose()


def test_a_final_does_nominated_runs_again_with_fresh_seeds_where_no_vault_can_be_read(
    settings: TrainingSettings, submit: Callable[..., str], card: TaskCard, capsys: pytest.CaptureFixture[str]
) -> None:
    home, into = settings.home, settings.vault / "toy" / "final"
    notes = home / "workspaces" / "bob" / "notes.md"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    secrets = [one / "vault" / "toy" / "secret.json" for one in (home, into)]
    places = [notes, *secrets, into / "training.sqlite", into / "vault" / "signing.key"]
    spy, bad, good = submit(SPY, places=[str(one.resolve()) for one in places]), submit(BAD), submit(GOOD, "bob")
    nominate(home, card, "ada", spy, bad)
    nominate(home, card, "bob", good)
    command = ["finalize", str(home), "--workers", "1", "--json"]
    with pytest.raises(ConflictError, match=f"1 of 3 re-runs failed, .*: {bad} .*no luck with this seed"):
        cli.app(command, standalone_mode=False)
    assert not (home / "vault" / "toy" / "release.json").exists()
    tried = logged_seeds(into)
    cli.app([*command, "--accept-failed"], standalone_mode=False)
    assert logged_seeds(into) == tried  # what failed is taken as it is
    release = Release.model_validate_json(capsys.readouterr().out)
    found = {one.run_id: one for one in release.finalists}
    assert found[good].failed == ""
    assert found[spy].failed.startswith("withheld")  # it ended well, having read nothing, and was seen trying
    assert "no luck with this seed" in found[bad].failed
    assert all(one.exists() for one in places)
    assert (len(release.seeds), release.items) == (5, 100)
    assert not set(release.seeds) & set(card.seeds)
    signed = receipts(into, str(found[good].rerun_id))
    assert tuple(one.seed for one in signed) == release.seeds == load_baselines(into, "toy").seeds
    assert {(one.agent, one.task_fingerprint) for one in signed} == {("bob", card.fingerprint)}
    assert load_card(home, "toy") == card
    assert not any(slot_is_held(one, 0) for one in (home, into))


def test_a_rerun_with_inverted_labels_that_was_killed_goes_on_where_it_was(
    settings: TrainingSettings, submit: Callable[..., str], home: Path
) -> None:
    run_id, into, seeds = submit(GOOD), settings.vault / "toy" / "inverted", (0, 1, 3)
    call = (
        "import sys\nfrom pathlib import Path\nfrom outlearn_training.rerun import rerun\n"
        "from outlearn_training.settings import TrainingSettings\n"
        "settings = TrainingSettings.model_validate_json(sys.argv[1])\n"
        f"rerun(settings, 'toy', [sys.argv[2]], Path(sys.argv[3]), seeds={seeds}, invert=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", call, settings.model_dump_json(), run_id, str(into)])
    deadline = time.monotonic() + 120
    while not (signed := list((into / "vault").glob("receipts-*/*/*.json"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    worker = slot_pid(into, 0)
    assert worker
    for pid in (process.pid, worker):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    first, heard = {path: path.read_bytes() for path in signed}, list[tuple[str, float]]()

    def again() -> dict[str, RunView]:
        said = lambda what, share: heard.append((what, share))  # noqa: E731
        return rerun(settings, "toy", [run_id], into, seeds=seeds, invert=True, on_progress=said)

    views = again()
    assert tuple(one.seed for one in receipts(into, views[run_id].run_id)) == seeds
    assert {path: path.read_bytes() for path in first} == first
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert heard[-1] == ("done", 1.0)
    assert again() == views
    theirs, ours = load_public(home, "toy"), load_public(into, "toy")
    assert np.array_equal(ours.weak_labels(3), 1 - theirs.weak_labels(3))
    assert [one.seed for one in load_baselines(into, "toy").per_seed] == list(seeds)


def test_what_failed_is_tried_again_on_the_seeds_that_have_no_receipt_and_nothing_else_is(
    settings: TrainingSettings, submit: Callable[..., str]
) -> None:
    unlucky, good, into = submit(UNLUCKY), submit(GOOD), settings.vault / "toy" / "inverted"

    def again(retry_failed: bool = True, **limits: float) -> tuple[RunView, RunView]:
        how = {"seeds": (0, 1, 3), "invert": True, "retry_failed": retry_failed}
        views = rerun(settings.model_copy(update=limits), "toy", [unlucky, good], into, **how)
        return views[unlucky], views[good]

    assert ["longer than the 0.001 seconds" in view.message for view in again(seed_seconds=0.001)] == [True, True]
    views, tried = again(), logged_seeds(into)
    assert [(view.status, view.seeds_done) for view in views] == [("failed", 2), ("done", 3)]
    signed = [receipts(into, view.run_id) for view in views]
    assert again(retry_failed=False) == views
    assert logged_seeds(into) == tried
    second, done = again()
    assert (second.run_id, second.status, second.message) == (views[0].run_id, "failed", "ValueError: no luck")
    assert done == views[1]
    assert logged_seeds(into) - tried == Counter({(second.run_id, "# seed 3"): 1})
    assert [receipts(into, view.run_id) for view in views] == signed


def test_a_plugin_that_does_not_load_fails_no_other_method(
    settings: TrainingSettings, submit: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "broken-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[outlearn.methods]\nbroken = nowhere:method\n")
    monkeypatch.setenv("PYTHONPATH", str(info.parent))
    run_id, into = submit(GOOD), settings.vault / "toy" / "inverted"
    assert rerun(settings, "toy", [run_id], into, seeds=(0, 1), invert=True)[run_id].message == "done: `evaluate` it"


def test_a_rerun_with_other_digits_that_was_killed_before_any_run_writes_the_same_task(
    settings: TrainingSettings,
) -> None:
    into, how = settings.vault / "toy" / "changed", {"seeds": (0, 1), "rows": (5, 3, 40)}
    first = [rerun(settings, "toy", [], into, **how, digits="359728461"), load_public(into, "toy")]
    assert [item.text for item in load_public(into, "toy").pool] == ["2 is odd", "9 is odd", "70 is odd"]
    digits = next((into / "vault" / "toy").glob("digits*"))
    digits.unlink()
    assert [rerun(settings, "toy", [], into, **how, digits="359728461"), load_public(into, "toy")] == first
    with pytest.raises(ConflictError, match="with other contents"):
        rerun(settings, "toy", [], into, **how, digits="234567891")
    assert read_digits(into, "toy") == "359728461"


def test_workers_borrow_free_slots_and_leave_them_to_runs_that_wait(
    settings: TrainingSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, into = settings.home, settings.vault / "toy" / "final"
    started: list[int] = []

    def start(_executor: LocalExecutor, slot: int) -> int:
        started.append(os.posix_spawn("/bin/sleep", ["sleep", "60"], {}))  # it has the lock that a worker would have
        return started[-1]

    monkeypatch.setattr(LocalExecutor, "_start", start)
    executor = BorrowingExecutor(settings.model_copy(update={"home": into}), lender=home)
    busy = take_slot(home, 0, "12345")
    assert busy
    executor.ensure()
    assert (started, give_way(home, idle=False)) == ([], True)
    busy.close()
    executor.ensure()
    executor.ensure()
    assert len(started) == 1
    assert slot_is_held(home, 0)
    assert not give_way(home, idle=True)
    os.kill(started[0], signal.SIGKILL)
    os.waitid(os.P_PID, started[0], os.WEXITED | os.WNOWAIT)
    want_worker(home)
    executor.ensure()
    assert (len(started), give_way(into, idle=False)) == (1, False)
    executor.stop()
    assert not slot_is_held(home, 0)


def test_bubblewrap_hides_the_home_that_one_is_derived_from(home: Path) -> None:
    into = home / "vault" / "toy" / "final"
    (home / "vault" / "signing.key").touch()
    command = wrap(into)
    assert command[command.index("--tmpfs") + 1] == str(home.resolve())
    shown = [command[place + 1] for place, word in enumerate(command) if word == "--ro-bind-try"]
    assert str(into / "data") in shown
    assert not any(str(one).startswith(shown_one) for shown_one in shown for one in (home / "vault", into / "vault"))


def test_only_full_runs_of_the_task_are_done_again_and_only_in_the_vault(
    settings: TrainingSettings, submit: Callable[..., str]
) -> None:
    into, pilot = settings.vault / "toy" / "final", submit(GOOD, kind="pilot")
    with pytest.raises(InvalidInputError, match="is a pilot run of task 'toy'"):
        rerun(settings, "toy", [pilot], into, seeds=FRESH)
    with pytest.raises(NotFoundError, match="run-unknown"):
        rerun(settings, "toy", ["run-unknown"], into, seeds=FRESH)
    with pytest.raises(InvalidInputError, match="is not in the vault"):
        rerun(settings, "toy", [], settings.home / "final", seeds=FRESH)
    with pytest.raises(InvalidInputError, match=r"has the seeds \[3\] already"):
        rerun(settings, "toy", [], into, seeds=(*FRESH, 3))
