"""Prepared tasks: whole or not there, the same or refused."""

from pathlib import Path

import pytest

from outlearn.errors import ConflictError, IntegrityError, NotFoundError
from outlearn.prepared import Parts, card_markdown, load_prepared, read_prepared, write_prepared
from outlearn.sources import DataFacts, Lengths
from outlearn.tasks import TaskCard, fingerprint, load_card, load_public, load_secret

FACTS = DataFacts(
    source="local",
    licence="MIT",
    source_sha256="0" * 64,
    rows=300,
    skipped_rows=1,
    duplicates=2,
    contradictions=3,
    train_size=1,
    train_groups=1,
    pool_groups=48,
    test_groups=200,
    balanced=True,
    pool_characters=Lengths(median=8, p95=9, longest=9),
)


@pytest.fixture
def parts(toy_home: Path) -> Parts:
    """The toy task's parts, as another task."""
    task, secret = load_public(toy_home, "toy"), load_secret(toy_home, "toy")
    card = task.card.model_copy(update={"name": "mine", "seeds": (), "data": FACTS})
    return card.model_copy(update={"fingerprint": fingerprint(card, task.pool, secret)}), task.pool, secret


def renamed(parts: Parts, **changes: object) -> Parts:
    card = parts[0].model_copy(update=changes)
    return card.model_copy(update={"fingerprint": fingerprint(card, *parts[1:])}), *parts[1:]


def test_a_prepared_task_comes_back_as_it_was_and_is_not_public(tmp_path: Path, parts: Parts) -> None:
    card = write_prepared(tmp_path / "new", parts, {"seed": 0}, "{}")
    assert load_prepared(tmp_path / "new", "mine") == parts
    assert card == parts[0]
    assert not (tmp_path / "new" / "data").exists()
    assert (tmp_path / "new" / "vault").stat().st_mode & 0o077 == 0


def test_the_same_again_changes_nothing_and_another_is_refused(tmp_path: Path, parts: Parts) -> None:
    card = write_prepared(tmp_path / "new", parts, {"seed": 0}, "{}")
    assert write_prepared(tmp_path / "new", parts, {"seed": 1}, "[]") == card
    known = read_prepared(tmp_path / "new", "mine")
    assert known
    assert known.recipe == {"seed": 0}
    with pytest.raises(ConflictError, match="'mine'"):
        write_prepared(tmp_path / "new", renamed(parts, question="Or not?"), {}, "{}")


def test_a_calibrated_task_of_that_name_is_not_touched(toy_home: Path, parts: Parts) -> None:
    before = (toy_home / "vault" / "toy" / "secret.json").read_bytes()
    with pytest.raises(ConflictError, match="'toy'"):
        write_prepared(toy_home, renamed(parts, name="toy"), {}, "{}")
    assert (toy_home / "vault" / "toy" / "secret.json").read_bytes() == before


def test_a_missing_task_says_how_to_prepare_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="outlearn prepare mine --source"):
        load_prepared(tmp_path, "mine")
    assert read_prepared(tmp_path, "mine") is None


@pytest.mark.parametrize("file", ["prepared.json", "secret.json"])
def test_damaged_files_are_named(tmp_path: Path, parts: Parts, file: str) -> None:
    write_prepared(tmp_path, parts, {}, "{}")
    (tmp_path / "vault" / "mine" / file).write_text("{")
    with pytest.raises(IntegrityError, match=file):
        load_prepared(tmp_path, "mine")


def test_truth_that_was_exchanged_is_noticed(tmp_path: Path, parts: Parts) -> None:
    write_prepared(tmp_path, parts, {}, "{}")
    other = parts[2].model_copy(update={"pool_labels": tuple(1 - label for label in parts[2].pool_labels)})
    (tmp_path / "vault" / "mine" / "secret.json").write_text(other.model_dump_json())
    with pytest.raises(IntegrityError, match="do not belong together"):
        load_prepared(tmp_path, "mine")


def test_the_card_for_people_names_licence_and_source(parts: Parts) -> None:
    text = card_markdown(parts[0])
    for part in ("# Task mine", "MIT", "0" * 64, "300 (1 of them", parts[0].fingerprint):
        assert part in text
    assert "300" not in card_markdown(parts[0].model_copy(update={"data": None}))


def test_a_card_without_data_has_the_fingerprint_that_it_always_had(toy_home: Path) -> None:
    card, secret = load_card(toy_home, "toy"), load_secret(toy_home, "toy")
    pool = load_public(toy_home, "toy").pool
    as_before = TaskCard.model_validate(card.model_dump(exclude={"data"}))
    assert fingerprint(as_before, pool, secret) == card.fingerprint
    assert fingerprint(card.model_copy(update={"data": FACTS}), pool, secret) != card.fingerprint
