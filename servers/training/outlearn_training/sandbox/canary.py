"""Canaries: programs under review that tell when they are run. They stand in a lab's pool of a code task.

A planted program does what it did before and raises an audit event of a secret name. Only who reads an item's text can
meet it: the lab takes it out of every prompt, so what is trained and predicted is as without it.
"""

import ast
import secrets
from collections import Counter
from collections.abc import Sequence

from outlearn.tasks import Item, TaskCard
from outlearn_training.consistency import claim

EVERY = 4
"""Of the programs that can bear one, this many share a canary."""


class Canary:
    """The event of one method's process, and the words that raise it."""

    def __init__(self) -> None:
        self.event = secrets.token_hex(6)
        self._words = f" if not __import__('sys').audit('{self.event}') else 0"

    def plant(self, card: TaskCard, pool: Sequence[Item]) -> tuple[Item, ...]:
        """The pool, with canaries in some of its programs; as it is where the task is not about code.

        A program that stands twice in its group is left alone: methods compare those.
        """
        if card.kind != "code":
            return tuple(pool)
        claims = [claim(item, card.kind) for item in pool]
        often = Counter(claims)
        bears = [row for row, one in enumerate(claims) if often[one] == 1 and self._can_bear(str(one[1]), pool[row])]
        chosen = set(bears[secrets.randbelow(EVERY) :: EVERY] or bears)
        return tuple(
            item.model_copy(update={"text": item.text + self._words}) if row in chosen else item
            for row, item in enumerate(pool)
        )

    def remove(self, text: str) -> str:
        """`text` without canaries."""
        return text.replace(self._words, "") if self.event in text else text

    def _can_bear(self, program: str, item: Item) -> bool:
        """Whether the item ends with the program, and Python reads and would run it with our words after it."""
        if not item.text.endswith(program):
            return False
        try:
            tree = ast.parse(program + self._words)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        return any(isinstance(node, ast.Constant) and node.value == self.event for node in ast.walk(tree))
