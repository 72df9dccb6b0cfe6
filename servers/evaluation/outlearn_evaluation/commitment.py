"""The commitment: a hash over labels, split, noise and baselines, published at the start and checkable afterwards."""

import hashlib
import re
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from outlearn.errors import IntegrityError, NotFoundError
from outlearn.files import Versions, file_versions, unchanged
from outlearn.hints import problems
from outlearn.seal import Seal, read_seal, seal_path
from outlearn.shortcuts import FREQUENT, frequent_answer
from outlearn.signing import canonical_json
from outlearn.tasks import Baselines, Bits, Floats, Frozen, SecretTask, load_baselines, load_card, load_secret
from outlearn_evaluation.scoring import Judge, make_judge

MOST_OPENED = 32


class Opened(Frozen):
    """All that a commitment stands for: what the operator shows when the work is over."""

    task: str
    seal: Seal
    secret: SecretTask
    baselines: Baselines

    @cached_property
    def commitment(self) -> str:
        """SHA-256 of the nonce's bytes, then canonical JSON of task, secret part, baselines and noise."""
        fields = self.model_dump(mode="json")
        del fields["seal"]["nonce"]
        return hashlib.sha256(bytes.fromhex(self.seal.nonce) + canonical_json(fields)).hexdigest()

    @cached_property
    def weights(self) -> Floats:
        """`w = y + g` for each item of the public half, in its order; y is 1 for label 1, else -1. Shape (m,).

        Raises IntegrityError where the seal is for another number of items.
        """
        if len(self.seal.noise) != len(self.secret.public_half):
            raise IntegrityError(
                f"the seal of task {self.task!r} is for {len(self.seal.noise)} items, not "
                f"{len(self.secret.public_half)}; put the vault's own seal back"
            )
        signs = 2.0 * self.secret.test_labels[list(self.secret.public_half)] - 1
        return np.asarray(signs + np.array(self.seal.noise), dtype=np.float64)

    @cached_property
    def judge(self) -> Judge:
        """Who scores runs of this task. Raises InvalidInputError where PGR is undefined."""
        return make_judge(self.weights, self.baselines, self.secret, self.seal)

    @cached_property
    def frequent(self) -> Bits | None:
        """What the most frequent answer of each group says, where that is one of the task's lines. Shape (items,)."""
        has_line = any(line.name == FREQUENT for line in self.baselines.lines)
        return frequent_answer(self.secret) if has_line else None


def open_task(home: Path, name: str) -> Opened:
    """Everything sealed of a task.

    Raises:
        NotFoundError: there is no such task.
        IntegrityError: a file is damaged, or the baselines are for other data.
    """
    known = _opened.get((home, name))
    if known is None or not unchanged(known[0]):
        known = _opened[home, name] = _read(home, name)
        if len(_opened) > MOST_OPENED:
            _opened.pop(next(iter(_opened)), None)
    return known[1]


def read_opened(path: Path) -> Opened:
    """A file that an operator revealed. Raises NotFoundError, or IntegrityError where it is none."""
    try:
        return Opened.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(
            f"no file {str(path)!r}: the operator writes it with `outlearn reveal TASK --home RUN --out FILE`"
        ) from None
    except ValidationError as error:
        raise IntegrityError(f"{str(path)!r} is not what `outlearn reveal` writes: {problems(error)}") from error


def verify(opened: Opened, published: str) -> None:
    """Raises IntegrityError unless `published` is the commitment to just this."""
    if not re.fullmatch(r"[0-9a-f]{64}", published) or opened.commitment != published:
        raise IntegrityError(
            f"what was revealed of task {opened.task!r} has the commitment {opened.commitment!r}, not "
            f"{published!r}: labels, split, noise or baselines are others than those committed to"
        )


_opened: dict[tuple[Path, str], tuple[Versions, Opened]] = {}


def _read(home: Path, name: str) -> tuple[Versions, Opened]:
    """With the versions of its files, each looked at before it is read."""
    load_card(home, name)  # no file is asked for by the name of no task
    vault, of_card = home / "vault" / name, file_versions(home / "data" / name / "card.json")
    fingerprint = load_card(home, name).fingerprint
    versions = of_card + file_versions(vault / "secret.json", vault / "baselines.json", seal_path(vault, fingerprint))
    secret, baselines = load_secret(home, name), load_baselines(home, name)
    seal = read_seal(vault, fingerprint)
    return versions, Opened(task=name, seal=seal, secret=secret, baselines=baselines)
