"""What is meant by a command that is mistyped, or that stands in the wrong place."""

from collections.abc import Iterable
from difflib import get_close_matches

from outlearn.errors import InvalidInputError


def refuse_mistyped(word: str, commands: Iterable[str], otherwise: str = "") -> None:
    """Raises InvalidInputError with the one of `commands` whose last word looks like `word`, where there is one."""
    by_last_word = {command.split()[-1]: command for command in commands}
    for close in get_close_matches(word, by_last_word, n=1):
        meant = f"did you mean `outlearn {by_last_word[close]}`?"
        raise InvalidInputError(f"there is no command {word!r}: {meant}{otherwise}")
