"""The hard answers of what calibration trained, beside the baselines: detectors take their thresholds from them.

They are in no fingerprint and no commitment, and nothing is scored by them. No agent is told any of them.
"""

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import IntegrityError
from outlearn.files import write_atomic
from outlearn.tasks import Bits

SHIPPED = "votes.npz"
_KINDS = ("teachers", "ceilings", "controls")
_DAMAGED = (KeyError, ValueError, TypeError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise where bytes are others than they were."""


@dataclass(frozen=True)
class BaselineVotes:
    """Answers (seeds, items) to all test items, in the order of `seeds`."""

    seeds: tuple[int, ...]
    teachers: Bits
    ceilings: Bits
    controls: Bits
    """Students of shuffled weak labels."""


def pack_votes(votes: BaselineVotes) -> bytes:
    """The file that keeps them, a bit an answer."""
    arrays: Mapping[str, NDArray[np.generic]] = {kind: np.packbits(getattr(votes, kind), axis=1) for kind in _KINDS}
    data = io.BytesIO()
    seeds, items = np.array(votes.seeds, dtype=np.int64), np.array(votes.teachers.shape[1])
    np.savez_compressed(data, allow_pickle=False, seeds=seeds, items=items, **arrays)
    return data.getvalue()


def unpack_votes(data: bytes) -> BaselineVotes:
    """What `pack_votes` packed. Raises IntegrityError where it is something else."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            seeds, items = tuple(arrays["seeds"].tolist()), int(arrays["items"])
            bits = [np.unpackbits(arrays[kind], axis=1, count=items).astype(np.bool_) for kind in _KINDS]
    except _DAMAGED as error:
        raise IntegrityError(f"the baselines' votes are damaged ({error!r}); run `outlearn calibrate` again") from error
    if {one.shape for one in bits} != {(len(seeds), items)}:
        raise IntegrityError("the baselines' votes are not of the same seeds; run `outlearn calibrate` again")
    return BaselineVotes(seeds, *bits)


def votes_path(vault: Path, fingerprint: str) -> Path:
    """Where those of this version of a task are; `vault` is the task's own part of it."""
    return vault / f"votes-{fingerprint[:16]}.npz"


def keep_votes(vault: Path, fingerprint: str, data: bytes) -> None:
    """Keep packed votes in the vault."""
    write_atomic(votes_path(vault, fingerprint), data, mode=0o600)


def load_votes(vault: Path, fingerprint: str) -> BaselineVotes | None:
    """The votes of a task's baselines; None where calibration kept none. Raises IntegrityError: they are damaged."""
    try:
        return unpack_votes(votes_path(vault, fingerprint).read_bytes())
    except FileNotFoundError:
        return None
