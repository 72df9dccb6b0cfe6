"""Students out of the store, as `transformers` and `peft` read them: for the operator, after the research."""

from collections.abc import Sequence
from pathlib import Path

from outlearn.errors import NotFoundError, OutlearnError
from outlearn.receipts import Receipt, read_receipts
from outlearn.tasks import load_card
from outlearn_training.model import LabelModel
from outlearn_training.students import parse_student
from outlearn_training.weights import weight_files


def export_students(home: Path, run_id: str, seed: int | None, folder: Path) -> list[Path]:
    """Write the students of a full run to folders `seed-K/student-J`, with their tokenizer and the task's card.

    Args:
        seed: one of the run's seeds; None: all of them.

    Raises:
        NotFoundError: the run has no such seed, or its students were removed to make room.
        OutlearnError: something is in the way at `folder`.
    """
    receipts = _receipts(home, run_id, seed)
    if folder.exists() and any(folder.iterdir()):
        raise OutlearnError(f"{str(folder)!r} is not empty; name a new folder")
    card, files = load_card(home, receipts[0].task), weight_files(home)
    if not all(files.has(digest) for receipt in receipts for digest in receipt.weights_sha256):
        raise NotFoundError(
            f"the students of run {run_id!r} were removed to make room (--keep-weights-gb of outlearn-training); have "
            f"{receipts[0].method!r} of {receipts[0].agent!r} run again, full and with the same params, and export that"
        )
    model, written = LabelModel(card.student, card.student_tuning), []
    for receipt in receipts:
        for index, digest in enumerate(receipt.weights_sha256):
            place = folder / f"seed-{receipt.seed}" / f"student-{index}"
            model.save(parse_student(files.get(digest))[0], place)
            (place / "task.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
            written.append(place)
    return written


def _receipts(home: Path, run_id: str, seed: int | None) -> Sequence[Receipt]:
    found = read_receipts(home / "vault", run_id)
    if not found:
        raise NotFoundError(
            f"there is no run {run_id!r} with students in {str(home)!r}; only full runs that are done have any, and "
            "--home names the folder that they are in"
        )
    chosen = [receipt for receipt in found if seed in (None, receipt.seed)]
    if not chosen:
        has = ", ".join(str(one.seed) for one in found)
        raise NotFoundError(f"run {run_id!r} has no receipt for seed {seed!r}; it has {has}")
    return chosen
