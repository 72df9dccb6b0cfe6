"""One pass over a source: every row checked, the good ones set aside on disk, forty bytes a row kept in memory."""

import hashlib
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from outlearn.similar import normal
from outlearn.sources import (
    BAD_LABEL,
    DUPLICATE_ID,
    EMPTY_TEXT,
    MISSING_COLUMN,
    NOT_UTF8,
    UNUSABLE,
    BadRow,
    Example,
    Row,
)

MAX_LISTED = 1000
Words = NDArray[np.uint64]


class Scan:
    """What a source holds. Examples are numbered from 0 in the source's order; a temporary file has their texts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._digest = hashlib.sha256()
        self._offsets, self._keys, self._groups, self._ids = (array("Q") for _ in range(4))
        self._lines = array("Q")
        self._labels = array("B")
        self.bad_rows: list[BadRow] = []
        self.bad_counts: Counter[str] = Counter()
        self.rows = 0
        self.comparisons: bool | None = None

    def read(self, rows: Iterable[Row]) -> None:
        """Take all rows of a source."""
        for row in rows:
            self.rows += 1
            bad = row if isinstance(row, BadRow) else self._check(row)
            if bad:
                self._note(bad)
            elif isinstance(row, Example):
                self._keep(row)
        self._file.flush()
        self._refuse_duplicate_ids()

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()

    def examples(self, numbers: Sequence[int]) -> list[Example]:
        """The examples with these numbers."""
        return [self._load(number) for number in numbers]

    @property
    def key(self) -> bytes:
        """A digest of all good rows with their labels. Who does not have the source cannot guess it: what is drawn at
        random is drawn with it, so that knowing the seed tells an agent nothing about labels."""
        return self._digest.digest()

    @property
    def sha256(self) -> str:
        """A digest of all good rows that may be shown; `key` cannot be found from it."""
        return hashlib.sha256(self.key).hexdigest()

    @property
    def keys(self) -> Words:
        """A hash of each example's content, whatever the order of its responses. Shape (n,)."""
        return _view(self._keys)

    @property
    def groups(self) -> Words:
        """A hash of each example's group. Shape (n,)."""
        return _view(self._groups)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Labels; for comparisons whether the response wins that comes later in the alphabet. Shape (n,)."""
        return np.array(self._labels, dtype=np.uint8)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which examples have no earlier one's id. Shape (n,)."""
        usable = np.ones(len(self._keys), dtype=np.bool_)
        usable[self._repeated_ids()] = False
        return usable

    def _check(self, row: Example) -> BadRow | None:
        texts = (row.prompt, row.group, row.id, *row.responses)
        if not all(isinstance(text, str) for text in texts):
            return BadRow(row.line, MISSING_COLUMN, "a text is no text")
        if row.label not in (0, 1):
            return BadRow(row.line, BAD_LABEL)
        if not all(text.strip() for text in row.responses) or (len(row.responses) == 2 and not row.prompt.strip()):
            return BadRow(row.line, EMPTY_TEXT)
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            return BadRow(row.line, NOT_UTF8, "half of a surrogate pair")
        if len(row.responses) == 2 and normal(row.responses[0]) == normal(row.responses[1]):
            return BadRow(row.line, UNUSABLE, "both responses are the same")
        if self.comparisons not in (None, len(row.responses) == 2) or len(row.responses) not in (1, 2):
            return BadRow(row.line, MISSING_COLUMN, "another number of responses than in the rows before")
        return None

    def _keep(self, row: Example) -> None:
        self.comparisons = len(row.responses) == 2
        data = json.dumps([row.line, row.group, row.prompt, row.responses, row.label, row.id]).encode()
        self._digest.update(data + b"\n")
        self._offsets.append(self._file.tell())
        self._file.write(data + b"\n")
        texts = [normal(text) for text in row.responses]
        ordered = sorted(texts)
        self._keys.append(_hash("\0".join([normal(row.prompt), *ordered])))
        self._groups.append(_hash(row.group))
        self._ids.append(_hash(row.id) if row.id else 0)
        self._lines.append(row.line)
        self._labels.append(int(texts[row.label] != ordered[0]) if self.comparisons else row.label)

    def _load(self, number: int) -> Example:
        self._file.seek(self._offsets[number])
        line, group, prompt, responses, label, name = json.loads(self._file.readline())
        return Example(line, group, prompt, tuple(responses), label, name)

    def _repeated_ids(self) -> list[int]:
        ids = _view(self._ids)
        _, first = np.unique(ids, return_index=True)
        repeated = ids != 0
        repeated[first] = False
        return [int(number) for number in np.flatnonzero(repeated)]

    def _refuse_duplicate_ids(self) -> None:
        for number in self._repeated_ids():
            self._note(BadRow(self._lines[number], DUPLICATE_ID))

    def _note(self, bad: BadRow) -> None:
        self.bad_counts[bad.reason] += 1
        if len(self.bad_rows) < MAX_LISTED:
            self.bad_rows.append(bad)


def keep_first(scan: Scan) -> tuple[NDArray[np.int64], int, int]:
    """The examples that are neither repeated nor contradicted.

    Returns:
        Their numbers, in order; how many repeat an earlier one; how many are of contents that occur with both labels.
    """
    usable = np.flatnonzero(scan.usable)
    _, first, inverse = np.unique(scan.keys[usable], return_index=True, return_inverse=True)
    labels = scan.labels[usable]
    ones = np.bincount(inverse, weights=labels, minlength=len(first))
    counts = np.bincount(inverse, minlength=len(first))
    mixed = (ones > 0) & (ones < counts)
    contradictions = int(counts[mixed].sum())
    kept = np.sort(usable[first[~mixed]])
    return kept, len(usable) - len(kept) - contradictions, contradictions


def _view(values: "array[int]") -> Words:
    return np.frombuffer(values, dtype=np.uint64) if values else np.zeros(0, dtype=np.uint64)


def _hash(text: str) -> int:
    """64 bits, never 0: among ten million texts, two share a hash with probability 3e-6."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") or 1
