"""From a scanned source to the items of each split: near duplicates, linked groups, splits, a check of the result."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import IntegrityError, InvalidInputError
from outlearn.similar import Links, Similar, normal
from outlearn.sources import Example
from outlearn_training.data.scan import Scan, keep_first
from outlearn_training.data.splits import ORDER, Split, fill, needed, turns_in_group

RESERVE = 0.25
MAX_RESERVE = 64.0


@dataclass(frozen=True)
class Chosen:
    """An example that was chosen, with the hashes that its public names are made of."""

    example: Example
    key: int
    group: int
    rank: int

    @property
    def text(self) -> str:
        """All that the example says, as it is compared with others."""
        return "\n".join((self.example.prompt, *sorted(self.example.responses)))


@dataclass(frozen=True)
class Selection:
    """What goes where, in random order, and what was left out on the way."""

    splits: dict[Split, list[Chosen]]
    duplicates: int
    near_duplicates: int
    contradictions: int
    linked_groups: int


@dataclass(frozen=True)
class Overlap:
    """Texts that stand in two splits: questions or whole items that are the same, or nearly."""

    exact: int
    near: int


def select(
    scan: Scan, sizes: dict[Split, int], threshold: float, rng: np.random.Generator, *, balanced: bool
) -> Selection:
    """Choose items at random, a group for one split only, from as many groups as there are: many items of few groups
    would tell less. Groups that have nearly the same text stay together.

    Texts are loaded, and compared with each other, only for as many items as are likely to be needed.

    Args:
        threshold: Jaccard similarity of three-word runs from which on texts are nearly the same.
        balanced: give each split half of each label. Comparisons are balanced later, by the order that they are
            shown in.

    Raises:
        InvalidInputError: there are not enough items.
        IntegrityError: the finished splits have a text in common, which would be a bug.
    """
    kept, duplicates, contradictions = keep_first(scan)
    _, inverse = np.unique(scan.groups[kept], return_inverse=True)
    total = int(inverse.max()) + 1 if len(inverse) else 0
    kept = kept[order := rng.permutation(len(kept))]
    ranks, classes = rng.permutation(total)[inverse][order], scan.labels[kept]
    balance, reserve, wanted = balanced and not scan.comparisons, RESERVE, sum(sizes.values())
    turns = turns_in_group(ranks, classes if balance else np.zeros_like(classes))
    while True:
        cap = needed(turns, classes, wanted, reserve, balanced=balance)
        few = turns < cap
        count = needed(ranks[few], classes[few], wanted, reserve, balanced=balance)
        candidates = np.flatnonzero(few & (ranks < count))
        pool = _load(scan, kept[candidates], ranks[candidates])
        links, repeated = compare(pool, threshold)
        labels = {index: one.example.label for index, one in enumerate(pool)}
        try:
            filled = fill(_groups(pool, links, repeated), labels, sizes, balanced=balance)
            break
        except InvalidInputError:
            if len(candidates) == len(kept) or reserve > MAX_RESERVE:
                raise
            reserve = 2 * reserve + 1
    splits = {name: [pool[index] for index in rng.permutation(filled[name])] for name in ORDER}
    overlap = check(splits, threshold)
    if overlap.exact or overlap.near:
        raise IntegrityError(
            f"the splits have texts in common ({overlap}); this is a bug in outlearn, please report it"
        )
    linked = sum(links.find(rank) != rank for rank in {one.rank for one in pool})
    return Selection(splits, duplicates, len(repeated), contradictions, linked)


def compare(pool: Sequence[Chosen], threshold: float) -> tuple[Links, set[int]]:
    """Find what is nearly the same in different groups.

    Returns:
        Which groups (by rank) belong together, as a question or an item of one is nearly one of the other; and the
        indices of items that repeat an earlier one with the same label.
    """
    links, repeated = Links(max((one.rank for one in pool), default=-1) + 1), set()
    questions = list(dict.fromkeys((one.rank, one.example.prompt) for one in pool if one.example.prompt.strip()))
    owners = [rank for rank, _ in questions]
    for i, j in Similar([prompt for _, prompt in questions], owners).pairs(threshold):
        links.link(owners[i], owners[j])
    for i, j in Similar([one.text for one in pool], [one.rank for one in pool]).pairs(threshold):
        links.link(pool[i].rank, pool[j].rank)
        if _verdict(pool[i]) == _verdict(pool[j]) and i not in repeated:
            repeated.add(j)
    return links, repeated


def check(splits: dict[Split, list[Chosen]], threshold: float) -> Overlap:
    """Compare the finished splits with each other, from their texts alone."""
    items = [(name, one) for name, chosen in splits.items() for one in chosen]
    exact = near = 0
    for texts in (
        [(name, one.text) for name, one in items],
        list(dict.fromkeys((name, one.example.prompt) for name, one in items if one.example.prompt.strip())),
    ):
        names = [name for name, _ in texts]
        contents = {name: {normal(text) for other, text in texts if other == name} for name in ORDER}
        exact += sum(len(contents[a] & contents[b]) for a in ORDER for b in ORDER if a < b)
        near += sum(1 for _ in Similar([text for _, text in texts], names).pairs(threshold))
    return Overlap(exact, near)


def _load(scan: Scan, numbers: NDArray[np.int64], ranks: NDArray[np.int64]) -> list[Chosen]:
    loaded = scan.examples(numbers.tolist())
    parts = (loaded, scan.keys[numbers].tolist(), scan.groups[numbers].tolist(), ranks.tolist())
    return [Chosen(*one) for one in zip(*parts, strict=True)]


def _groups(pool: Sequence[Chosen], links: Links, repeated: set[int]) -> list[list[int]]:
    """Indices of the items of each group, linked ones together, in the random order of their ranks."""
    groups: dict[int, list[int]] = {}
    for index, one in enumerate(pool):
        if index not in repeated:
            groups.setdefault(links.find(one.rank), []).append(index)
    return [groups[rank] for rank in sorted(groups)]


def _verdict(one: Chosen) -> object:
    """What an item's label says, whatever the order of its responses."""
    example = one.example
    return example.label if len(example.responses) == 1 else normal(example.responses[example.label])
