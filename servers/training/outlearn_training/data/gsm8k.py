"""Model-written solutions of GSM8K problems: is this solution correct?

The file is `example_model_solutions.jsonl` of openai/grade-school-math: a `question`, and for each of four models a
`solution` and whether it `is_correct`. The calculator's marks (`<<3*4=12>>`) are no part of a solution and go.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outlearn.sources import BAD_LABEL, MISSING_COLUMN, BadRow, Example, Kind, Row, SourceRequest
from outlearn_training.data.files import records

CALCULATOR = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Gsm8k:
    """Four solutions for each question."""

    kind: Kind | None = "math"
    licence: str = "MIT (openai/grade-school-math)"
    options: tuple[str, ...] = ()

    def rows(self, request: SourceRequest) -> Iterator[Row]:
        """One row for each model's solution."""
        for line, record in records(request.one_file(), request.on_share):
            yield from [record] if isinstance(record, BadRow) else _solutions(line, record)


SOURCE = Gsm8k()


def _solutions(line: int, record: Mapping[str, Any]) -> Iterator[Row]:
    question = record.get("question")
    attempts = [value for value in record.values() if isinstance(value, dict)]
    if not isinstance(question, str) or not attempts:
        yield BadRow(line, MISSING_COLUMN, "no 'question', or no model's solution")
        return
    for attempt in attempts:
        solution, correct = attempt.get("solution"), attempt.get("is_correct")
        if not isinstance(solution, str):
            yield BadRow(line, MISSING_COLUMN, "no 'solution'")
        elif not isinstance(correct, bool):
            yield BadRow(line, BAD_LABEL, "'is_correct' is neither true nor false")
        else:
            yield Example(line, question, question, (CALCULATOR.sub("", solution),), int(correct))
