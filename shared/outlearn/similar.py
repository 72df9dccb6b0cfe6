"""Texts that are nearly the same: MinHash with banding finds candidates, their true Jaccard similarity decides.

Source: Broder, "On the resemblance and containment of documents" (1997); banding as in Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"\w+|[^\w\s]")
SHINGLE_WORDS = 3
BANDS, ROWS = 16, 4  # texts of similarity 0.8 meet in a band with probability 0.9998, of 0.5 with 0.64
Shingles = frozenset[int]


def normal(text: str) -> str:
    """The text without what does not count: case and white space."""
    return " ".join(text.lower().split())


def shingles(text: str) -> Shingles:
    """Hashes of the runs of three words or signs; of the whole text where it is shorter."""
    words = WORD.findall(text.lower())
    runs = range(max(1, len(words) - SHINGLE_WORDS + 1))
    return frozenset(zlib.crc32(" ".join(words[at : at + SHINGLE_WORDS]).encode(errors="replace")) for at in runs)


def jaccard(one: Shingles, other: Shingles) -> float:
    """|A and B| / |A or B|, in [0, 1]; two texts without words are the same."""
    return len(one & other) / len(one | other) if one or other else 1.0


def band_keys(one: Shingles) -> list[int]:
    """A 32-bit number for each band: texts that share one are candidates for a comparison."""
    bands = _signatures([one]).reshape(BANDS, ROWS)
    return [zlib.crc32(bands[band].tobytes(), band) for band in range(BANDS)]


class Similar:
    """Texts to compare with those of other groups. Memory: about 100 bytes a word."""

    def __init__(self, texts: Sequence[str], groups: Sequence[Hashable]) -> None:
        self._shingles = [shingles(text) for text in texts]
        self._groups = groups

    def pairs(self, threshold: float) -> Iterator[tuple[int, int]]:
        """Indices (i, j), i < j, of texts of two groups whose similarity is at least `threshold`, in order.

        Of several copies of a text, the first one stands for all in comparisons with other texts.
        """
        for i, j in sorted({pair for bucket in self._buckets() for pair in self._across(bucket)}):
            if jaccard(self._shingles[i], self._shingles[j]) >= threshold:
                yield i, j

    def _across(self, bucket: list[int]) -> Iterator[tuple[int, int]]:
        members: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index in bucket:
            members[self._groups[index]].append(index)
        for some, others in combinations(members.values(), 2):
            yield from ((min(pair), max(pair)) for pair in product(some, others))

    def _buckets(self) -> Iterator[list[int]]:
        """Indices that agree in a band. Of texts with the same shingles, each bucket has the first and one other.

        Many copies of a text would else be compared all with all; this way each copy meets the first one.
        """
        first: dict[Shingles, int] = {}
        for index, one in enumerate(self._shingles):
            if first.setdefault(one, index) != index:
                yield [first[one], index]
        unique = sorted(first.values())
        bands = _signatures([self._shingles[index] for index in unique]).reshape(len(unique), BANDS, ROWS)
        for band in range(BANDS):
            buckets: defaultdict[bytes, list[int]] = defaultdict(list)
            for row, index in enumerate(unique):
                buckets[bands[row, band].tobytes()].append(index)
            yield from (bucket for bucket in buckets.values() if len(bucket) > 1)


def _signatures(sets: Sequence[Shingles]) -> NDArray[np.uint32]:
    """MinHash signatures, shape (n, BANDS * ROWS), by multiply-shift hashing with fixed constants."""
    factors, offsets = _constants()
    signatures = np.empty((len(sets), BANDS * ROWS), dtype=np.uint32)
    for row, one in enumerate(sets):
        values = np.fromiter(one, dtype=np.uint64, count=len(one))
        signatures[row] = ((factors * values + offsets) >> np.uint64(32)).min(axis=1)
    return signatures


@cache
def _constants() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rng = np.random.default_rng(0)
    factors = rng.integers(1, 2**63, size=(BANDS * ROWS, 1), dtype=np.uint64) | np.uint64(1)
    return factors, rng.integers(0, 2**63, size=(BANDS * ROWS, 1), dtype=np.uint64)


class Links:
    """Which things belong together, by linking pairs (union-find)."""

    def __init__(self, n: int) -> None:
        self._parents = list(range(n))

    def find(self, one: int) -> int:
        """The first of the things that `one` belongs with."""
        while self._parents[one] != one:
            self._parents[one] = self._parents[self._parents[one]]
            one = self._parents[one]
        return one

    def link(self, one: int, other: int) -> None:
        """Put two things, and what they belong with, together."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parents[high] = low
