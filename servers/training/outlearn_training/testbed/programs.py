"""Runs the programs of the tiny code task: whole numbers, `x`, `+ - * ^`, unary minus, parentheses. Nothing else."""

import re
from collections.abc import Callable, Iterable

from outlearn.errors import InvalidInputError

TOKEN = re.compile(r"[0-9]+|[-+*^()x]")
LARGEST_EXPONENT = 9
LARGEST_BASE = 10**12
MOST_CHARACTERS = 100
Function = Callable[[int], int]


def run(program: str, inputs: Iterable[int]) -> tuple[int, ...]:
    """What the program returns for each value of x. `^` binds before unary minus, then `*`, then `+` and `-`.

    Raises:
        InvalidInputError: the text is no program, is longer than 100 characters, has an exponent above nine, or
            raises a number beyond 10^12 to a power.
    """
    function = _Parser(program).whole()
    return tuple(function(x) for x in inputs)


class _Parser:
    """Recursive descent; each method reads what its name says and returns it as a function of x."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._rest = TOKEN.findall(program)
        if "".join(self._rest) != program or len(program) > MOST_CHARACTERS:
            raise self._error()

    def whole(self) -> Function:
        result = self._sum()
        if self._rest:
            raise self._error()
        return result

    def _sum(self) -> Function:
        result = self._product()
        while self._next() in ("+", "-"):
            sign = 1 if self._take() == "+" else -1
            result = _added(result, self._product(), sign)
        return result

    def _product(self) -> Function:
        result = self._factor()
        while self._next() == "*":
            self._take()
            result = _multiplied(result, self._factor())
        return result

    def _factor(self) -> Function:
        if self._next() == "-":
            self._take()
            inner = self._factor()
            return lambda x: -inner(x)
        base = self._atom()
        if self._next() != "^":
            return base
        self._take()
        exponent = self._number(self._take())
        if exponent > LARGEST_EXPONENT:
            raise self._error()
        return _raised(base, exponent)

    def _atom(self) -> Function:
        piece = self._take()
        if piece == "x":
            return lambda x: x
        if piece == "(":
            inner = self._sum()
            if self._take() != ")":
                raise self._error()
            return inner
        number = self._number(piece)
        return lambda _x: number

    def _number(self, token: str) -> int:
        if not token.isdigit():
            raise self._error()
        return int(token)

    def _next(self) -> str:
        return self._rest[0] if self._rest else ""

    def _take(self) -> str:
        return self._rest.pop(0) if self._rest else ""

    def _error(self) -> InvalidInputError:
        return InvalidInputError(f"{self._program!r} is no program; write one with x, whole numbers and + - * ^ ( )")


def _added(left: Function, right: Function, sign: int) -> Function:
    return lambda x: left(x) + sign * right(x)


def _multiplied(left: Function, right: Function) -> Function:
    return lambda x: left(x) * right(x)


def _raised(base: Function, exponent: int) -> Function:
    def power(x: int) -> int:
        value = base(x)
        if abs(value) > LARGEST_BASE:
            raise InvalidInputError(f"{value} is too large to be raised to a power; use smaller numbers")
        return int(value**exponent)

    return power
