"""Receipts that somebody else than the predictor wrote."""

from pathlib import Path

from outlearn.receipts import Receipt


def turn_around(path: Path) -> None:
    """Have a receipt's file say the opposite of each prediction, under the signature that it had."""
    receipt = Receipt.model_validate_json(path.read_bytes())
    opposite = receipt.model_copy(update={"predictions": tuple(1 - one for one in receipt.predictions)})
    path.write_text(opposite.model_dump_json())
