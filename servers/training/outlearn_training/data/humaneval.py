"""HumanEval problems with mutants: is this program correct?

Each problem's reference program is varied (see `mutation`), and every variant is run against the problem's tests: what
the tests say is the label.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlearn.sources import BAD_SYNTAX, MISSING_COLUMN, UNUSABLE, BadRow, Example, Kind, Row, SourceRequest
from outlearn_training.data.execution import Limits, run_programs
from outlearn_training.data.files import records
from outlearn_training.data.mutation import variant

COLUMNS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
VARIANTS = 40
TRIES = 8  # draws for each variant that is wanted; many draws give the same program


@dataclass(frozen=True)
class HumanEval:
    """Variants of each problem's program. Options: `variants` (a problem), `cpu_seconds` (a program)."""

    kind: Kind | None = "code"
    licence: str = "MIT (openai/human-eval)"
    options: tuple[str, ...] = ("variants", "cpu_seconds")

    def rows(self, request: SourceRequest) -> Iterator[Row]:
        """All variants, labelled. A problem whose own program fails its tests is a bad row."""
        wanted = request.number("variants", VARIANTS)
        limits = Limits(cpu_seconds=request.number("cpu_seconds", Limits.cpu_seconds))
        for line, record in records(request.one_file(), request.on_share):
            if isinstance(record, BadRow):
                yield record
            elif missing := [column for column in COLUMNS if not isinstance(record.get(column), str)]:
                yield BadRow(line, MISSING_COLUMN, f"no {', '.join(map(repr, missing))}")
            else:
                yield from _problem(line, record, wanted, limits, request)


SOURCE = HumanEval()


def variants(program: str, wanted: int, rng: random.Random) -> list[str]:
    """Up to `wanted` different variants of a program, about half of them with a fault. The first is the program itself.

    Raises:
        SyntaxError: the program does not parse.
    """
    found = {variant(program, rng, fault=False, rewrites=0): None}
    for draw in range(TRIES * wanted):
        if len(found) >= wanted:
            break
        found[variant(program, rng, fault=draw % 2 == 0, rewrites=rng.randrange(4))] = None
    return list(found)


def _problem(
    line: int, record: Mapping[str, Any], wanted: int, limits: Limits, request: SourceRequest
) -> Iterator[Row]:
    name, task = record["task_id"], record["prompt"]
    rng = random.Random(f"{request.seed}/{name}")
    try:
        programs = variants(task + record["canonical_solution"], wanted, rng)
    except (SyntaxError, ValueError) as error:
        yield BadRow(line, BAD_SYNTAX, f"the program does not parse: {type(error).__name__}")
        return
    passed = _judge(programs, record, limits, request)
    if not passed[0]:
        yield BadRow(line, UNUSABLE, "the reference program fails its own tests")
        return
    for index, (program, label) in enumerate(zip(programs, passed, strict=True)):
        yield Example(line, name, task, (program,), int(label), f"{name}/{index}")


def _judge(programs: Sequence[str], record: Mapping[str, Any], limits: Limits, request: SourceRequest) -> list[bool]:
    tests = f"\n\n{record['test']}\n\ncheck({record['entry_point']})\n"
    return [outcome == "passed" for outcome in run_programs([one + tests for one in programs], request.vault, limits)]
