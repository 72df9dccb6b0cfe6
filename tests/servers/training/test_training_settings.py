"""How runs are done again: as they were done, unless somebody says otherwise."""

import stat
from pathlib import Path

import pytest

from outlearn.errors import IntegrityError
from outlearn_training.settings import TrainingSettings


def test_what_is_given_wins_over_the_environment_and_that_over_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TrainingSettings.as_kept(tmp_path) == TrainingSettings(home=tmp_path)
    TrainingSettings(
        home=tmp_path, seed_seconds=1, threads=2, memory_gb=3, max_waiting=4, unsafe_no_sandbox=True
    ).keep()
    monkeypatch.setenv("OUTLEARN_SEED_SECONDS", "5")
    monkeypatch.setenv("OUTLEARN_THREADS", "6")
    again = TrainingSettings.as_kept(tmp_path, threads=7)
    assert (again.seed_seconds, again.threads, again.memory_gb, again.unsafe_no_sandbox) == (5, 7, 3, True)
    assert (again.home, again.max_waiting) == (tmp_path, 20)


def test_what_is_kept_is_for_the_operator_and_names_no_database(tmp_path: Path) -> None:
    TrainingSettings(home=tmp_path, database_url="postgresql://me:secret@there/db").keep()
    [kept] = (tmp_path / "vault").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "secret" not in kept.read_text()


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    TrainingSettings(home=tmp_path).keep()
    (tmp_path / "vault" / "training.json").write_text('{"threads": "many"}')
    with pytest.raises(IntegrityError, match=r"training.json' is damaged; remove it: threads"):
        TrainingSettings.as_kept(tmp_path)
