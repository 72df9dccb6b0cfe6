"""A disguise of a pool's digits: methods meet other ones than the model does, in runs that the operator has done again.

Each of 1 to 9 stands for another one, the same in all items, and 0 stays, so that no number begins with it. Numbers
that were equal are equal, and others are not; sums no longer hold. A method that works answers out by a program gets
wrong ones, and one that passes items to the lab gets the students that it got before: the lab takes the disguise off.
"""

from pathlib import Path

from outlearn.files import write_atomic
from outlearn.tasks import Item, TaskCard

DIGITS = "123456789"


class Disguise:
    """What stands for the digits 1 to 9, such as "234567891". All that a method sees of a task has it on."""

    def __init__(self, digits: str) -> None:
        self._on, self._off = str.maketrans(DIGITS, digits), str.maketrans(digits, DIGITS)

    def put_on(self, text: str) -> str:
        """`text` as methods meet it."""
        return text.translate(self._on)

    def take_off(self, text: str) -> str:
        """`text` as the model reads it: what a method made of items, with digits of its own turned, too."""
        return text.translate(self._off)

    def item(self, item: Item) -> Item:
        """The item as methods meet it; ids and groups may be made of the text."""
        return Item(id=self.put_on(item.id), text=self.put_on(item.text), group=self.put_on(item.group))

    def card(self, card: TaskCard) -> TaskCard:
        """The card as methods meet it: they put its words into prompts, which lose the disguise as a whole."""
        texts = {name: self.put_on(getattr(card, name)) for name in ("question", "template")}
        words = {name: tuple(map(self.put_on, getattr(card, name))) for name in ("label_words", "zero_shot_words")}
        return card.model_copy(update=texts | words)


def write_digits(home: Path, task: str, digits: str) -> None:
    """Have methods in this home meet the task's pool, which lies there in its disguise, with these digits."""
    write_atomic(_path(home, task), digits.encode(), mode=0o600)


def read_digits(home: Path, task: str) -> str | None:
    """The digits of the disguise that the task's pool has in this home; None, as almost always, where it has none."""
    try:
        return _path(home, task).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _path(home: Path, task: str) -> Path:
    return home / "vault" / task / "digits.txt"
