"""Receipts: what the trusted predictor signs, and the only thing that the evaluation server scores."""

import base64
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer, StringConstraints

from outlearn.errors import IntegrityError, NotFoundError, OutdatedError
from outlearn.files import FileVersion, Versions, file_version, file_versions, write_atomic
from outlearn.identity import AgentName
from outlearn.signing import Signed, Signer, has_key, parse_signed, secret_name

RUN_ID = re.compile(r"run-[a-z0-9]{6,32}")
RunId = Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def _pack(values: tuple[float, ...]) -> str:
    return base64.b64encode(np.array(values, dtype="<f8").tobytes()).decode()


def _unpack(values: object) -> object:
    if not isinstance(values, str):
        return values
    return np.frombuffer(base64.b64decode(values, validate=True), dtype="<f8").tolist()


Predictions = Annotated[
    tuple[Probability, ...], BeforeValidator(_unpack), PlainSerializer(_pack, return_type=str, when_used="json")
]
"""In JSON the base64 of doubles, the same length whatever they are: a file's size tells nothing of hidden items."""


class Receipt(Signed):
    """The test predictions of the students that one run trained with one seed."""

    run_id: RunId
    agent: AgentName
    method: str
    method_sha256: str
    task: str
    task_fingerprint: str
    seed: int
    sandbox: str = Field(
        "", description="What confined the method, such as 'landlock+seccomp'; 'none' where nothing did."
    )
    weights_sha256: tuple[str, ...]
    predictions: Predictions = Field(description="P(label = 1) for each test item, in the vault's order.")
    signed_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class ReceiptBook:
    """The receipts of runs in the vault: one file for each run and seed, filed as soon as the seed is done.

    Their folder has a name that only those know who may read the vault: a method that Landlock confines can ask for the
    size of any file that it can name.
    """

    def __init__(self, vault: Path) -> None:
        self.folder = vault / f"receipts-{secret_name(vault, 'receipts')}"
        self._signer = Signer.from_vault(vault, "receipt")

    def issue(self, receipt: Receipt) -> None:
        """Sign and file a receipt."""
        signed = self._signer.sign(receipt)
        write_atomic(self._run(receipt.run_id) / f"{receipt.seed}.json", signed.model_dump_json().encode(), mode=0o600)

    def read(self, run_id: str) -> tuple[Receipt, ...]:
        """The receipts of a run, checked, sorted by seed; none where it is a pilot, has not begun or does not exist.

        Raises:
            OutdatedError: a receipt says that another version of outlearn signed it.
            IntegrityError: a receipt is forged, damaged, or belongs to another run.
        """
        receipts, outdated = list[Receipt](), None
        for path in self._run(run_id).glob("*.json"):
            try:
                receipts.append(self._load(path))
            except OutdatedError as error:  # a forged one must not hide behind it
                outdated = error
        if outdated:
            raise outdated
        owners = {(one.run_id, one.agent, one.method_sha256, one.task_fingerprint) for one in receipts}
        if len(owners) > 1 or len({one.seed for one in receipts}) < len(receipts):
            raise IntegrityError(f"the receipts filed under {run_id!r} are not of one run with distinct seeds")
        if receipts and receipts[0].run_id != run_id:
            raise IntegrityError(f"the receipts filed under {run_id!r} are of {receipts[0].run_id!r}")
        return tuple(sorted(receipts, key=lambda receipt: receipt.seed))

    def versions(self, run_id: str) -> Versions:
        """Are `unchanged` as long as no receipt of a run comes, goes or is written over."""
        folder = self._run(run_id)
        of_folder = file_versions(folder)  # before its files, or one that comes in between would stay unseen
        return of_folder + file_versions(*folder.glob("*.json"))

    def folder_version(self, run_id: str) -> FileVersion | None:
        """Changes when a receipt is filed: quicker than `versions`, and blind to a file that is written over."""
        return file_version(self._run(run_id))

    def run_ids(self) -> set[str]:
        """Every run that has receipts, or had."""
        try:
            names = os.listdir(self.folder)  # noqa: PTH208  (asked each second)
        except FileNotFoundError:
            return set()
        return {name for name in names if RUN_ID.fullmatch(name)}

    def _load(self, path: Path) -> Receipt:
        what = f"the receipt {path.name!r} of {path.parent.name!r}"
        receipt = parse_signed(Receipt, path.read_bytes(), what, "run it again")
        self._signer.check(receipt)
        return receipt

    def _run(self, run_id: str) -> Path:
        if not RUN_ID.fullmatch(run_id):
            raise NotFoundError(
                f"{run_id[:80]!r} is not a run id such as 'run-0123456789'; an agent's `list_runs` and a team's report "
                "show them"
            )
        return self.folder / run_id


def has_receipts(vault: Path, run_id: str) -> bool:
    """Whether a run ever had receipts, be they genuine. Nothing is made, nor read."""
    return has_key(vault) and run_id in ReceiptBook(vault).run_ids()


def read_receipts(vault: Path, run_id: str) -> tuple[Receipt, ...]:
    """As `ReceiptBook.read`, where nothing may be made: a vault without a key has no receipts, and gets no key."""
    return ReceiptBook(vault).read(run_id) if has_key(vault) else ()
