"""What every tiny task consists of: labelled examples in three splits, and a corpus to pretrain on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass


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
    of them right, about facts outside the task. `words` are those that the tokenizer keeps whole.
    """

    documents: Callable[[int, float], Iterator[str]]
    statements: Callable[[int, int], list[str]]
    words: tuple[str, ...]
