"""Students out of the artifact store, as `transformers` and `peft` read them: for the operator, after the research."""

from pathlib import Path

from outlearn.artifacts import LocalArtifactStore
from outlearn.errors import NotFoundError, OutlearnError
from outlearn.receipts import ReceiptBook
from outlearn.tasks import load_card
from outlearn_training.model import LabelModel
from outlearn_training.students import parse_student


def export_students(home: Path, run_id: str, seed: int | None, folder: Path) -> list[Path]:
    """Write the students of a full run to folders of their own, with their tokenizer and the task's card.

    Args:
        seed: one of the run's seeds; None: its first.

    Raises:
        NotFoundError: the run has no such seed.
        OutlearnError: something is in the way at `folder`.
    """
    receipts = {receipt.seed: receipt for receipt in ReceiptBook(home / "vault").read(run_id)}
    chosen = receipts.get(min(receipts, default=0) if seed is None else seed)
    if chosen is None:
        has = f"it has {', '.join(map(str, receipts))}" if receipts else "only full runs that are done have students"
        raise NotFoundError(f"run {run_id!r} has no receipt for seed {seed!r}; {has}")
    if folder.exists() and any(folder.iterdir()):
        raise OutlearnError(f"{str(folder)!r} is not empty; name a new folder")
    card, store = load_card(home, chosen.task), LocalArtifactStore(home / "artifacts")
    model = LabelModel(card.student, card.student_tuning)
    written = []
    for index, digest in enumerate(chosen.weights_sha256):
        weights, _ = parse_student(store.get(digest))
        place = folder / f"student-{index}"
        model.save(weights, place)
        (place / "task.json").write_text(card.model_dump_json(indent=1), encoding="utf-8")
        written.append(place)
    return written
