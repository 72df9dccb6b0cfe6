"""Parts of error messages: what is wrong with an input, and the command that mends it."""

import shlex

from pydantic import ValidationError

MOST = 5


def command_line(*words: object) -> str:
    """A command to copy into a shell, whatever is in its words."""
    return shlex.join(map(str, words))


def problems(error: ValidationError) -> str:
    """What is wrong, field by field, without the words of pydantic's that are for programmers."""
    found = [f"{'.'.join(map(str, one['loc']))}: {_plain(one['msg'])}".removeprefix(": ") for one in error.errors()]
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(found[:MOST]) + more


def _plain(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
