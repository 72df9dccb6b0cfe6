"""What every tiny task consists of: labelled examples in three splits, and a corpus to pretrain on."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import Protocol, TypeVar

SIZES = {"train": 300, "pool": 2000, "test": 2000}
ENTRIES = 4
"""How many entries a pretraining document has."""


class Grouped(Protocol):
    """What examples are made from."""

    @property
    def group(self) -> str: ...


Source = TypeVar("Source", bound=Grouped)


@dataclass(frozen=True)
class Example:
    """One binary question.

    `group` names the fact that the text is about; no group occurs in two splits. `label` is 1 where the text is right.
    The id is a hash of the text, so it says nothing about the label.
    """

    id: str
    text: str
    group: str
    label: int


@dataclass(frozen=True)
class Splits:
    """`train` is for the teacher, `pool` (its labels hidden) for the student, `test` for neither."""

    train: list[Example]
    pool: list[Example]
    test: list[Example]


@dataclass(frozen=True)
class Corpus:
    """What the models read before they meet the task.

    `documents(seed, share_of_groups)` is endless. `statements(seed, count)` are texts in the form of the task's, half
    of them right, about facts outside the task. `words` are those that the tokenizer keeps whole. `decisions` are the
    tokens that judge: they weigh more in the loss.
    """

    documents: Callable[[int, float], Iterator[str]]
    statements: Callable[[int, int], list[str]]
    words: tuple[str, ...]
    decisions: tuple[str, ...]


def deal(sources: Sequence[Source], sizes: Sequence[int], rng: Random) -> list[list[Source]]:
    """Shuffle the groups of `sources`, which are sorted by group, and cut them into parts in the ratio of `sizes`."""
    groups = [list(group) for _, group in groupby(sources, key=lambda source: source.group)]
    rng.shuffle(groups)
    bounds = [len(sources) * sum(sizes[: index + 1]) / sum(sizes) for index in range(len(sizes))]
    parts: list[list[Source]] = [[] for _ in sizes]
    dealt, part = 0, 0
    for group in groups:
        while dealt >= bounds[part]:
            part += 1
        parts[part].extend(group)
        dealt += len(group)
    return parts


def make_splits(sources: Sequence[Source], make: Callable[[list[Source], int], list[Example]], rng: Random) -> Splits:
    """Deal the sources by group, and `make(part, size)` each split's examples, train first."""
    parts = deal(sources, list(SIZES.values()), rng)
    train, pool, test = (make(part, size) for part, size in zip(parts, SIZES.values(), strict=True))
    return Splits(train, pool, test)


def some_groups(sources: Sequence[Source], share: float, rng: Random) -> list[Source]:
    """The sources of a random `share` of the groups."""
    groups = sorted({source.group for source in sources})
    kept = set(rng.sample(groups, round(share * len(groups))))
    return [source for source in sources if source.group in kept]


def as_examples(task: str, seed: int, labelled: Mapping[str, tuple[str, int]], rng: Random) -> list[Example]:
    """The examples of a split, shuffled; `labelled` has the group and the label of each text."""
    examples = [
        Example(hashlib.sha256(f"{task}:{seed}:{text}".encode()).hexdigest()[:12], text, group, label)
        for text, (group, label) in labelled.items()
    ]
    rng.shuffle(examples)
    return examples


def mix_documents(shares: Mapping[str, float], entry: Callable[[str], str], rng: Random) -> Iterator[str]:
    """Endless documents of `entry(kind)`, all of one kind; `shares` says how often which kind."""
    kinds, weights = list(shares), list(shares.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        yield "\n".join(entry(kind) for _ in range(ENTRIES)) + "\n"


def is_chosen(name: str, share: float) -> bool:
    """Whether the hash of `name` falls into the lowest `share` of all hashes."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") < share * 2**32
