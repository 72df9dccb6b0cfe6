"""What a method carries in itself: answers of its author's own fit into constants and params, whatever their form.

Names, comments and docstrings carry nothing unless they are read (`signs.own_text_lines`). What a method *works out*,
such as the answer to a sum, no look at its text tells: for that there is `outlearn audit --check-teacher`, which shows
it other digits. Neither sees answers that are worked out from words, or from which numbers are the same.
"""

import ast
import re
import zlib
from collections.abc import Iterator
from typing import Any, TypeGuard

TABLE_LENGTH = 64
"""The most that one expression of the built-in methods has are 12 names and constants, and one block 13 statements."""
TABLE_BITS = 128
MOST_BYTES = 160
"""Carried by an ordinary method: twice what the largest of 12 built-in and 192 composed ones has (77; median 19)."""
PROSE = 4
"""Bytes of prose, such as a prompt, that count for one: bits hide in the choice of words, but take many of them."""
LONG_NAME = 32
LONGEST_WORD = 20
_DIGITS = re.compile(rf"[0-9A-Za-z+/=,]{{{TABLE_LENGTH},}}")
_WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")

Scalar = Any
"""A constant of Python or of JSON."""


def tables(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Constants that may be answers: long lists, long digits in a text, integers and bytes of many bits; and names or
    statements that say as much by their order.

    Yields their lines and what they are.
    """
    inner: set[int] = set()
    for node in ast.walk(tree):  # outer ones first
        if (count := _repeated(node)) >= TABLE_LENGTH:
            yield getattr(node, "lineno", 1), f"{count} statements that stand there before"
        if isinstance(node, ast.expr) and id(node) not in inner and (what := _table_of(node)):
            inner |= {id(one) for one in ast.walk(node)}
            yield node.lineno, what


def table_in(value: Scalar) -> str:
    """What a single constant holds, where that may be answers; empty where it does not."""
    if isinstance(value, str):
        found = _DIGITS.search(value)
        words = len(value.split())
        if found or (words >= TABLE_LENGTH and not _is_prose(value)):
            return f"{len(found[0]) if found else words} constants in a text"
    bits = 8 * len(value) if isinstance(value, bytes) else value.bit_length() if isinstance(value, int) else 0
    return f"a constant of {bits} bits" if bits > TABLE_BITS else ""


def carried_bytes(tree: ast.AST, params: dict[str, Any]) -> int:
    """Size of all constants and params, compressed: an upper bound of what they tell. Docstrings are none."""
    return compressed([*_constants(tree), *leaves(params)])


def leaves(value: Scalar) -> Iterator[Scalar]:
    """The constants in params, their names among them."""
    waiting = [value]
    while waiting:  # a hostile depth would be too much for recursion
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
        else:
            yield one


def compressed(values: list[Scalar]) -> int:
    """Bytes of constants after zlib; prose counts for less."""
    prose = [value for value in values if isinstance(value, str) and _is_prose(value)]
    others = [value for value in values if not (isinstance(value, str) and _is_prose(value))]
    return _zipped(others) + _zipped(prose) // PROSE


def _zipped(values: list[Scalar]) -> int:
    return len(zlib.compress(b"\0".join(map(_as_bytes, values)), 9)) if values else 0


def _as_bytes(value: Scalar) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if isinstance(value, int):  # its digits would be longer than it is
        return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)
    return repr(value).encode()


def _constants(tree: ast.AST) -> Iterator[Scalar]:
    unused = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in unused:
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
            yield from (word.arg for word in node.keywords if word.arg)
    names = {name for node in ast.walk(tree) for name in _names(node)}
    yield from sorted(name for name in names if len(name) >= LONG_NAME)


def _names(node: ast.AST) -> Iterator[str]:
    for field in ("id", "attr", "arg", "name"):
        if isinstance(name := getattr(node, field, None), str):
            yield name


def _table_of(node: ast.expr) -> str:
    """What an expression holds, where that may be answers; empty where it does not."""
    if (count := _constants_in(node)) >= TABLE_LENGTH:
        return f"{count} constants"
    if (count := sum(isinstance(one, ast.Name) for one in ast.walk(node))) >= TABLE_LENGTH:
        return f"{count} names in one expression"
    return table_in(node.value) if isinstance(node, ast.Constant) else ""


def _repeated(node: ast.AST) -> int:
    """How many statements of a block are the same as one before them in it."""
    blocks = [getattr(node, name, None) for name in ("body", "orelse", "finalbody")]
    return max(len(block) - len(set(map(ast.dump, block))) if _is_long(block) else 0 for block in blocks)


def _is_long(block: object) -> TypeGuard[list[ast.stmt]]:
    return isinstance(block, list) and len(block) > TABLE_LENGTH


def _constants_in(node: ast.expr) -> int:
    """How many constants a list, a tuple, a set or a dictionary's values are, nested ones too; 0 where not all are."""
    if not isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict):
        return 0
    counts = [_count(one) for one in (node.values if isinstance(node, ast.Dict) else node.elts)]
    return sum(counts) if all(counts) else 0


def _count(node: ast.expr) -> int:
    while isinstance(node, ast.UnaryOp):
        node = node.operand
    return 1 if isinstance(node, ast.Constant) else _constants_in(node)


def _is_prose(text: str) -> bool:
    """Words, most of them different ones, and little else."""
    words = _WORD.findall(text)
    letters = sum(map(len, words)) + text.count(" ")
    varied = 2 * len(set(words)) >= len(words) > 1
    return varied and letters >= 0.75 * len(text) and max(map(len, words)) <= LONGEST_WORD
