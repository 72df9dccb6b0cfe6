"""Tasks on disk: the truth stays in the vault, and a task is there whole, unchanged, or not at all."""

import math
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import outlearn.tasks
from outlearn.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError, OutlearnError
from outlearn.files import write_atomic
from outlearn.tasks import (
    Item,
    SecretTask,
    TaskCard,
    default_task,
    fingerprint,
    load_baselines,
    load_public,
    load_secret,
    prepared_names,
    split_in_halves,
    task_names,
    write_task,
)


def parts(home: Path) -> dict[str, Any]:
    """The arguments that wrote the toy task."""
    public = load_public(home, "toy")
    return {
        "card": public.card,
        "pool": public.pool,
        "secret": load_secret(home, "toy"),
        "weak_labels": {seed: public.weak_labels(seed) for seed in public.card.seeds},
        "baselines": load_baselines(home, "toy"),
    }


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_nothing_of_the_truth_lies_among_the_public_files(toy_home: Path) -> None:
    secret = load_secret(toy_home, "toy")
    public = b"".join((toy_home / "data" / "toy" / name).read_bytes() for name in ("card.json", "pool.json"))
    assert sorted(path.name for path in (toy_home / "data" / "toy").iterdir()) == [
        "card.json",
        "pool.json",
        "weak_labels.npz",
    ]
    assert not any(item.text.encode() in public or f'"{item.id}"'.encode() in public for item in secret.test)
    assert b'"label"' not in public
    assert b"label" not in (toy_home / "data" / "toy" / "pool.json").read_bytes()
    for word in (b"weak_public", b"ceiling", b"public_half", b"0.6", b"0.9"):
        assert word not in public
    with np.load(toy_home / "data" / "toy" / "weak_labels.npz") as arrays:
        assert sorted(arrays) == [f"seed_{seed}" for seed in range(5)]
        assert all(arrays[name].shape == (48,) for name in arrays)


def test_the_default_task_is_the_only_one_or_the_newest(
    toy_home: Path, write_task_for: Callable[[Path, str, str], TaskCard]
) -> None:
    assert default_task(toy_home) == "toy"
    write_task_for(toy_home, "toy/student", "apples")
    assert default_task(toy_home) == "apples"
    write_task_for(toy_home, "toy/student", "zebras")
    write_task_for(toy_home, "toy/student", "apples")
    assert default_task(toy_home) == "apples"
    shutil.rmtree(toy_home / "data" / "apples")
    with pytest.raises(InvalidInputError, match="name one of them: toy, zebras"):
        default_task(toy_home)
    for name in ("toy", "zebras"):
        shutil.rmtree(toy_home / "data" / name)
    with pytest.raises(NotFoundError, match="there is no task yet"):
        default_task(toy_home)
    (toy_home / "vault" / "mine").mkdir()
    (toy_home / "vault" / "mine" / "prepared.json").write_text("{}")
    assert prepared_names(toy_home) == ["mine"]
    with pytest.raises(NotFoundError, match="mine is prepared and has to be calibrated"):
        default_task(toy_home)


def test_the_vault_is_closed_to_others(toy_home: Path) -> None:
    assert stat.S_IMODE((toy_home / "vault").stat().st_mode) == 0o700
    for path in (toy_home / "vault").rglob("*.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_task_is_read_back_as_it_was_written(toy_home: Path) -> None:
    assert task_names(toy_home) == ["toy"]
    task = parts(toy_home)
    assert task["card"].seeds == (0, 1, 2, 3, 4)
    assert task["card"].fingerprint == fingerprint(task["card"], task["pool"], task["secret"])
    assert task["baselines"].weak_acc == pytest.approx(0.6)
    assert task["baselines"].ceiling_acc == pytest.approx(0.9)
    mask = task["secret"].public_mask()
    assert (mask.sum(), task["secret"].test_labels[mask].mean()) == (100, 0.5)
    with pytest.raises(NotFoundError, match="no weak labels for seed 7"):
        load_public(toy_home, "toy").weak_labels(7)


def test_writing_it_again_changes_nothing(toy_home: Path) -> None:
    before = files(toy_home)
    write_task(toy_home, **parts(toy_home))
    assert files(toy_home) == before


def other_item(task: dict[str, Any]) -> None:
    task["pool"] = (Item(id="p0", text="7 is odd", group="g0"), *task["pool"][1:])


def other_label(task: dict[str, Any]) -> None:
    first = task["secret"].test[0]
    test = (first.model_copy(update={"label": 1 - first.label}), *task["secret"].test[1:])
    task["secret"] = task["secret"].model_copy(update={"test": test})


def other_tuning(task: dict[str, Any]) -> None:
    tuning = task["card"].student_tuning.model_copy(update={"lr": 0.5})
    task["card"] = task["card"].model_copy(update={"student_tuning": tuning})


def other_weak_labels(task: dict[str, Any]) -> None:
    task["weak_labels"] = task["weak_labels"] | {0: 1 - task["weak_labels"][0]}


def other_baselines(task: dict[str, Any]) -> None:
    first = task["baselines"].per_seed[0].model_copy(update={"ceiling_public": 0.8})
    task["baselines"] = task["baselines"].model_copy(update={"per_seed": (first, *task["baselines"].per_seed[1:])})


def fewer_seeds(task: dict[str, Any]) -> None:
    del task["weak_labels"][4]
    task["baselines"] = task["baselines"].model_copy(update={"per_seed": task["baselines"].per_seed[:4]})


CHANGES = [other_item, other_label, other_tuning, other_weak_labels, other_baselines, fewer_seeds]


@pytest.mark.parametrize("change", CHANGES)
def test_a_task_with_other_contents_is_a_conflict_and_leaves_the_first(toy_home: Path, change: Any) -> None:
    task, before = parts(toy_home), files(toy_home)
    change(task)
    task["baselines"] = task["baselines"].model_copy(
        update={"fingerprint": fingerprint(task["card"], task["pool"], task["secret"])}
    )
    with pytest.raises(ConflictError, match=r"task 'toy' is in .* with other contents; use another home"):
        write_task(toy_home, **task)
    assert files(toy_home) == before


def test_baselines_for_other_data_or_seeds_are_not_written(toy_home: Path, tmp_path: Path) -> None:
    for changes in ({"fingerprint": "0" * 64}, {"per_seed": load_baselines(toy_home, "toy").per_seed[:3]}):
        task = parts(toy_home)
        task["baselines"] = task["baselines"].model_copy(update=changes)
        with pytest.raises(IntegrityError, match="for other data or seeds"):
            write_task(tmp_path / "new", **task)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("survivors", range(5))
def test_a_crash_between_two_files_leaves_no_half_task(
    toy_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survivors: int
) -> None:
    task, written = parts(toy_home), 0

    def crashing(path: Path, data: bytes, **options: int) -> None:
        nonlocal written
        if written == survivors:
            raise KeyboardInterrupt
        written += 1
        write_atomic(path, data, **options)

    monkeypatch.setattr(outlearn.tasks, "write_atomic", crashing)
    home = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        write_task(home, **task)
    assert task_names(home) == []
    with pytest.raises(NotFoundError, match="no task 'toy'; there are: none yet"):
        load_public(home, "toy")
    monkeypatch.undo()
    write_task(home, **task)
    assert load_public(home, "toy").card == task["card"]


@pytest.mark.parametrize("name", ["nosuch", "", ".", "..", "../vault/toy", "toy/../toy", "toy\0", "x" * 300])
def test_a_task_name_cannot_be_a_path(toy_home: Path, name: str) -> None:
    for load in (load_public, load_secret, load_baselines):
        with pytest.raises(NotFoundError, match="there are: toy"):
            load(toy_home, name)


@pytest.mark.parametrize("file", ["data/toy/card.json", "data/toy/pool.json", "vault/toy/secret.json"])
@pytest.mark.parametrize("damage", [b"", b"[]x", None])
def test_damaged_and_missing_files_are_named(toy_home: Path, file: str, damage: bytes | None) -> None:
    path = toy_home / file
    path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(OutlearnError) as failed:
        load_secret(toy_home, "toy") if "secret" in file else load_public(toy_home, "toy")
    assert path.name in str(failed.value) or "no task 'toy'" in str(failed.value)


def test_baselines_of_other_data_are_not_used(toy_home: Path) -> None:
    path = toy_home / "vault" / "toy" / "baselines.json"
    changed = load_baselines(toy_home, "toy").model_copy(update={"fingerprint": "0" * 64})
    path.write_text(changed.model_dump_json())
    with pytest.raises(IntegrityError, match="run `outlearn calibrate toy`"):
        load_baselines(toy_home, "toy")


@pytest.mark.parametrize("labels", [[], [1], [0, 1], [0, 0, 1, 1, 1], [1, 0] * 50])
def test_the_public_half_has_half_of_each_class(labels: list[int]) -> None:
    half = split_in_halves(labels, seed=0)
    assert list(half) == sorted(set(half))
    assert half == split_in_halves(labels, seed=0)
    for label in (0, 1):
        assert abs(sum(labels[i] == label for i in half) - labels.count(label) / 2) <= 0.5
    assert abs(len(half) - len(labels) / 2) <= 1


def test_a_fingerprint_depends_on_everything_but_the_seeds(toy_home: Path) -> None:
    def digest(task: dict[str, Any]) -> str:
        card: TaskCard = task["card"]
        pool: tuple[Item, ...] = task["pool"]
        secret: SecretTask = task["secret"]
        return fingerprint(card, pool, secret)

    digests = {digest(parts(toy_home))}
    for change in (other_item, other_label, other_tuning):
        task = parts(toy_home)
        change(task)
        digests.add(digest(task))
    assert len(digests) == 4
    task = parts(toy_home)
    task["card"] = task["card"].model_copy(update={"seeds": (9,), "fingerprint": "x"})
    assert digest(task) in digests


def test_a_learning_rate_that_is_no_number_has_no_fingerprint(toy_home: Path) -> None:
    task = parts(toy_home)
    tuning = task["card"].student_tuning.model_copy(update={"lr": math.nan})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(task["card"].model_copy(update={"student_tuning": tuning}), task["pool"], task["secret"])
