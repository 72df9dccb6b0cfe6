"""HumanEval problems with mutants: is this program correct?

Each problem's reference program is varied (see `mutation`), and every variant is run against the problem's tests: what
the tests say is the label.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlearn.sources import BAD_SYNTAX, MISSING_COLUMN, UNUSABLE, BadRow, Example, Kind, Row, SourceRequest
from outlearn_training.data.execution import Limits
from outlearn_training.data.executions import Executions
from outlearn_training.data.files import records
from outlearn_training.data.mutation import variant
from outlearn_training.data.runner import Outcome

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
        found = [_problem(line, record, wanted, request.seed) for line, record in records(request.one_file(), _ignore)]
        batches = [one.programs_with_tests() for one in found if isinstance(one, _Problem)]
        outcomes = Executions(request.vault, limits).run(batches, request.on_share)
        for one in found:
            yield from [one] if isinstance(one, BadRow) else one.rows(next(outcomes))


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


@dataclass(frozen=True)
class _Problem:
    line: int
    record: Mapping[str, Any]
    programs: tuple[str, ...]

    def programs_with_tests(self) -> tuple[str, ...]:
        tests = f"\n\n{self.record['test']}\n\ncheck({self.record['entry_point']})\n"
        return tuple(program + tests for program in self.programs)

    def rows(self, outcomes: Sequence[Outcome]) -> Iterator[Row]:
        """Its programs with what the tests say."""
        if outcomes[0] != "passed":
            yield BadRow(self.line, UNUSABLE, "the reference program fails its own tests")
            return
        name, task = self.record["task_id"], self.record["prompt"]
        for index, (program, outcome) in enumerate(zip(self.programs, outcomes, strict=True)):
            yield Example(self.line, name, task, (program,), int(outcome == "passed"), f"{name}/{index}")


def _problem(line: int, record: Mapping[str, Any] | BadRow, wanted: int, seed: int) -> _Problem | BadRow:
    if isinstance(record, BadRow):
        return record
    if missing := [column for column in COLUMNS if not isinstance(record.get(column), str)]:
        return BadRow(line, MISSING_COLUMN, f"no {', '.join(map(repr, missing))}")
    rng = random.Random(f"{seed}/{record['task_id']}")
    try:
        programs = variants(record["prompt"] + record["canonical_solution"], wanted, rng)
    except (SyntaxError, ValueError) as error:
        return BadRow(line, BAD_SYNTAX, f"the program does not parse: {type(error).__name__}")
    return _Problem(line, record, tuple(programs))


def _ignore(_share: float) -> None:
    """Reading the file is the quick part."""
