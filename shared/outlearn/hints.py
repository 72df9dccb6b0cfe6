"""Parts of error messages: what is wrong with an input, and the command that mends it."""

import shlex

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MOST = 5
PLAIN = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
}


def command_line(*words: object) -> str:
    """A command to copy into a shell, whatever is in its words."""
    return shlex.join(map(str, words))


def problems(error: ValidationError) -> str:
    """What is wrong, field by field, without the words of pydantic's that are for programmers."""
    found = [f"{'.'.join(map(str, one['loc']))}: {plain(one)}".removeprefix(": ") for one in error.errors()]
    more = f"; and {len(found) - MOST} more" if len(found) > MOST else ""
    return "; ".join(found[:MOST]) + more


def plain(error: ErrorDetails) -> str:
    """What is wrong with one field."""
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    message = PLAIN.get(error["type"], message)
    return message[:1].lower() + message[1:]
