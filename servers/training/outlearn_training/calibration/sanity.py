"""Sanity lines: what shortcuts score on the public half of the test items. Each is computed, none assumed."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from outlearn.shortcuts import FREQUENT, frequent_answer
from outlearn.tasks import Bits, Item, SanityLine, SecretTask
from outlearn_training.data.templates import responses

Shortcut = Callable[[SecretTask], Bits | None]


def shortcut_lines(secret: SecretTask) -> tuple[SanityLine, ...]:
    """The lines that need no model: majority class, length, most frequent answer (where the task has groups)."""
    shortcuts: dict[str, Shortcut] = {"majority class": majority, "length": length, FREQUENT: frequent_answer}
    found = {name: shortcut(secret) for name, shortcut in shortcuts.items()}
    return tuple(line(name, predicted, secret) for name, predicted in found.items() if predicted is not None)


def line(name: str, predicted: Bits, secret: SecretTask) -> SanityLine:
    """The accuracy of predictions (n,) for the test items, on their public half."""
    correct = (predicted == secret.test_labels)[secret.public_mask()]
    return SanityLine(name=name, accuracy=float(correct.mean()))


def majority(secret: SecretTask) -> Bits:
    """The class that most training items have, for every test item."""
    share = np.mean([item.label for item in secret.train])
    return np.full(len(secret.test), share > 0.5)


def length(secret: SecretTask) -> Bits:
    """A threshold on length in characters, and a direction, that fit the training items best.

    The length is the text's; in comparisons, how much longer B is than A.
    """
    sizes, labels = _lengths((*secret.train, *secret.test)), np.array([item.label for item in secret.train], dtype=bool)
    train, test = sizes[: len(labels)], sizes[len(labels) :]
    best = max(
        ((float(((train > cut) ^ flip == labels).mean()), int(cut), flip) for cut in set(train) for flip in (0, 1)),
    )
    _, cut, flip = best
    return np.asarray((test > cut) ^ bool(flip))


def _lengths(items: Sequence[Item]) -> NDArray[np.int64]:
    """Of each item's text, or, where all are comparisons, of B less A. Shape (n,)."""
    pairs = [responses(item.text) for item in items]
    whole = [len(item.text) for item in items]
    return np.array(whole if None in pairs else [len(b) - len(a) for a, b in filter(None, pairs)], dtype=np.int64)
