"""Which items go where: whole groups to a split, as many items as wanted, the classes evenly."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outlearn.errors import InvalidInputError

Split = Literal["test", "train", "pool"]
ORDER: tuple[Split, ...] = ("test", "train", "pool")


def fill(
    groups: Sequence[Sequence[int]], labels: Mapping[int, int], sizes: Mapping[Split, int], *, balanced: bool
) -> dict[Split, list[int]]:
    """Fill the splits one after another with whole groups, in the order given.

    What a split has no more room for is left out: a group never goes to two splits.

    Args:
        groups: item numbers, by group.
        labels: of each item; used where `balanced`, which gives each split half of each label.

    Raises:
        InvalidInputError: there are not enough items.
    """
    rest = iter(groups)
    splits: dict[Split, list[int]] = {}
    for name in ORDER:
        size = sizes[name]
        room = [size - size // 2, size // 2] if balanced else [size]
        chosen: list[int] = []
        while any(room):
            group = next(rest, None)
            if group is None:
                raise InvalidInputError(_shortage(name, chosen, room, sizes, balanced))
            for item in group:
                label = labels[item] if balanced else 0
                if room[label]:
                    room[label] -= 1
                    chosen.append(item)
        splits[name] = chosen
    return splits


def _shortage(
    name: Split, chosen: Sequence[int], room: Sequence[int], sizes: Mapping[Split, int], balanced: bool
) -> str:
    lacking = f"{room[0]} of label 0 and {room[1]} of label 1" if balanced else f"{room[0]}"
    advice = "ask for fewer with these options" + (", or give the balance up with --no-balance" if balanced else "")
    wanted = " ".join(f"--{split} {sizes[split]}" for split in ORDER)
    return f"too few items for {wanted}: the {name} split has {len(chosen)} and lacks {lacking}; {advice}"


def needed(groups: NDArray[np.int64], labels: NDArray[np.uint8], total: int, reserve: float, *, balanced: bool) -> int:
    """How many groups, from the first on, hold `total` items and a reserve, with half of each label where `balanced`.

    Args:
        groups: (n,) the rank of each item's group, from 0; or its turn in its group, to ask how many turns are needed.
        labels: (n,).
        reserve: 0.2 asks for 20 % more than needed.

    Returns:
        A number of groups; all of them where that is still too few.
    """
    count = int(groups.max()) + 1 if len(groups) else 0
    ones = np.cumsum(np.bincount(groups, weights=labels, minlength=count))
    sizes = np.cumsum(np.bincount(groups, minlength=count))
    enough = 2 * np.minimum(ones, sizes - ones) if balanced else sizes
    return min(count, int(np.searchsorted(enough, total * (1 + reserve))) + 1)


def turns_in_group(groups: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each item, how many of its group and label stand before it. All shapes (n,)."""
    classes = 2 * groups.astype(np.int64) + labels
    order = np.argsort(classes, kind="stable")
    _, first, counts = np.unique(classes[order], return_index=True, return_counts=True)
    turns = np.empty(len(classes), dtype=np.int64)
    turns[order] = np.arange(len(classes)) - np.repeat(first, counts)
    return turns


def winners(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The positions at which the better responses of n comparisons are shown: each n / 2 times, in random order."""
    return rng.permutation(np.arange(n) % 2)
