"""The answer that a solution ends with: one reading for calibration, detectors and methods."""

import re
from typing import NamedTuple

BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
NUMBER = re.compile(r"(?<![\d)])-?\d[\d,]*(?:\.\d+)?|\d[\d,]*(?:\.\d+)?")


class FinalAnswer(NamedTuple):
    """What it is, a number wherever it can be read as one, and where it begins in the text."""

    value: float | str
    start: int
    is_boxed: bool


def final_answer(text: str) -> FinalAnswer | None:
    r"""The contents of the last `\boxed{...}`, else the last number; None where there is neither.

    `1,000`, `1000.0` and `\boxed{1000}` are the same number. A minus after a digit or a bracket is a subtraction.
    """
    boxes = list(BOXED.finditer(text))
    if boxes:
        inside = boxes[-1][1].strip()
        return FinalAnswer(_number(inside) if NUMBER.fullmatch(inside) else inside, boxes[-1].start(), True)
    numbers = list(NUMBER.finditer(text))
    return FinalAnswer(_number(numbers[-1][0]), numbers[-1].start(), False) if numbers else None


def _number(text: str) -> float:
    return float(text.replace(",", ""))
