"""A shortcut past the question that calibration measures and evaluation looks for."""

from collections import Counter, defaultdict

import numpy as np

from outlearn.final_answer import final_answer
from outlearn.tasks import Bits, Item, LabelledItem, SecretTask

FREQUENT = "frequent answer"
"""The name of its line among a task's baselines."""
SMALLEST_GROUP = 3


def frequent_answer(secret: SecretTask) -> Bits | None:
    """Right where an item's final answer is the most frequent one in its group of at least three items.

    Returns None where fewer than half of the test items are in such groups.
    """
    groups: defaultdict[str, list[LabelledItem]] = defaultdict(list)
    for item in secret.test:
        groups[item.group].append(item)
    large = {name: items for name, items in groups.items() if len(items) >= SMALLEST_GROUP}
    if 2 * sum(len(items) for items in large.values()) < len(secret.test):
        return None
    modes = {name: Counter(map(_answer, items)).most_common(1)[0][0] for name, items in large.items()}
    return np.array([item.group in modes and _answer(item) == modes[item.group] for item in secret.test])


def _answer(item: Item) -> float | str:
    found = final_answer(item.text)
    return found.value if found else ""
