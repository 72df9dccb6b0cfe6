"""Receipts: what the trusted predictor signs, and the only thing that the evaluation server scores."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from outlearn.errors import IntegrityError, NotFoundError
from outlearn.files import write_atomic
from outlearn.identity import AgentName
from outlearn.signing import Signer

RunId = Annotated[str, StringConstraints(pattern=r"^run-[a-z0-9]{6,32}$")]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Receipt(BaseModel):
    """The test predictions of the students that one run trained with one seed."""

    model_config = ConfigDict(frozen=True)

    run_id: RunId
    agent: AgentName
    method: str
    method_sha256: str
    task: str
    task_fingerprint: str
    seed: int
    weights_sha256: tuple[str, ...]
    predictions: tuple[Probability, ...] = Field(description="P(label = 1) for each test item, in the vault's order.")
    signed_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    signature: str = ""


_RECEIPTS = TypeAdapter(tuple[Receipt, ...])


class ReceiptBook:
    """The receipts of finished runs, one file a run, in the vault."""

    def __init__(self, vault: Path) -> None:
        self._folder = vault / "receipts"
        self._signer = Signer.from_vault(vault, "receipt")

    def issue(self, receipts: list[Receipt]) -> None:
        """Sign and file the receipts of one finished run, one for each seed."""
        signed = tuple(self._signer.sign(receipt) for receipt in receipts)
        write_atomic(self._path(signed[0].run_id), _RECEIPTS.dump_json(signed), mode=0o600)

    def read(self, run_id: str) -> tuple[Receipt, ...]:
        """The receipts of a run, checked, sorted by seed.

        Raises:
            NotFoundError: the run has none (it is a pilot, is not finished, or does not exist).
            IntegrityError: a receipt is forged, damaged, or belongs to another run.
        """
        try:
            receipts = _RECEIPTS.validate_json(self._path(run_id).read_bytes())
        except FileNotFoundError:
            raise NotFoundError(
                f"run {run_id!r} has no receipts: pilots get none, and a full run gets them when it is done"
            ) from None
        except ValidationError as error:
            raise IntegrityError(f"the receipts of {run_id!r} are damaged: {error}") from error
        for receipt in receipts:
            self._signer.check(receipt)
        _check_one_run(receipts, run_id)
        return tuple(sorted(receipts, key=lambda receipt: receipt.seed))

    def _path(self, run_id: str) -> Path:
        if not re.fullmatch(r"run-[a-z0-9]{6,32}", run_id):
            raise NotFoundError(f"{run_id[:80]!r} is not a run id; `list_runs` shows yours")
        return self._folder / f"{run_id}.json"


def _check_one_run(receipts: tuple[Receipt, ...], run_id: str) -> None:
    """Receipts of other runs, of other agents or of a seed twice may not be mixed in."""
    owners = {(r.run_id, r.agent, r.method_sha256, r.task_fingerprint, len(r.predictions)) for r in receipts}
    seeds = [receipt.seed for receipt in receipts]
    if len(owners) != 1 or receipts[0].run_id != run_id or len(set(seeds)) != len(seeds):
        raise IntegrityError(f"the receipts filed under {run_id!r} are not of one run with distinct seeds")
