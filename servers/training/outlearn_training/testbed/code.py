r"""The tiny *code* task: does this program do what its comment asks? (`#plus:5 times:6\nreturn:(x+3)*6` does not.)

A comment names one or two steps, to be taken one after the other. A label comes from running the program: it's right
if it returns what the steps return for each of 49 inputs. Comments that ask for the same function are one group, never
torn apart. As in the math task, pretraining shows programs of the *practice* groups being tried and judged, and of the
task's groups right programs alone.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from outlearn_training.testbed.examples import Example, Splits, as_examples, is_chosen, make_splits
from outlearn_training.testbed.programs import run

INPUTS = range(-24, 25)
"""Programs are polynomials of degree at most four, so two that agree on all of these are the same function."""
PRACTICE_SHARE = 0.3
NEAR = 2
NEAR_SHARE = 0.5
"""How often a mutant is a constant off by one or two, where the program has a constant."""
LARGEST = {"plus": 12, "minus": 12, "times": 9}
SMALLEST = 2
OTHER_WORD = {"plus": "minus", "minus": "plus", "times": "plus", "square": "times", "negate": "square"}


@dataclass(frozen=True)
class Step:
    """One step of a function; `number` is 0 for the words that take none."""

    word: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.word}:{self.number}" if self.number else self.word

    def __call__(self, x: int) -> int:
        outcomes = {"plus": x + self.number, "minus": x - self.number, "times": x * self.number}
        return {**outcomes, "square": x * x, "negate": -x}[self.word]


@dataclass(frozen=True)
class Spec:
    """What a program shall do. `group` names the first of the specs with the same function."""

    group: str
    steps: tuple[Step, ...]

    @property
    def comment(self) -> str:
        return "#" + " ".join(map(str, self.steps))

    def statement(self, program: str) -> str:
        return f"{self.comment}\nreturn:{program}"


@dataclass(frozen=True)
class Mutant:
    """A program that may be wrong. `near` mutants differ from a right one by a constant that is off by one or two."""

    program: str
    near: bool


@cache
def is_right(spec: Spec, program: str) -> bool:
    """Whether the program, when run, returns what the spec's steps return, for every input."""
    return run(program, INPUTS) == _outputs(spec.steps)


@cache
def all_specs() -> tuple[Spec, ...]:
    """Every spec of one or two steps, sorted by group."""
    singles = [Step(word, number) for word, largest in LARGEST.items() for number in range(SMALLEST, largest + 1)]
    singles += [Step("square"), Step("negate")]
    same: defaultdict[tuple[int, ...], list[tuple[Step, ...]]] = defaultdict(list)
    for steps in [*((step,) for step in singles), *((first, then) for first in singles for then in singles)]:
        same[_outputs(steps)].append(steps)
    specs = [Spec(" ".join(map(str, alike[0])), steps) for alike in same.values() for steps in alike]
    return tuple(sorted(specs, key=lambda spec: (spec.group, spec.comment)))


def is_practice(spec: Spec) -> bool:
    """Whether pretraining shows programs for this spec being judged; the same for every seed, as checkpoints are."""
    return is_chosen(f"practice:{spec.group}", PRACTICE_SHARE)


def generate(seed: int = 0) -> Splits:
    """Balanced splits of unique texts, disjoint by group, the same for the same seed."""
    rng = Random(f"code:{seed}")
    specs = [spec for spec in all_specs() if not is_practice(spec)]
    return make_splits(specs, lambda part, size: _examples(part, size, rng, seed), rng)


def draw_program(spec: Spec, rng: Random) -> str:
    """A right program, in one of its spellings."""
    return _spell(spec.steps, rng)


def draw_mutant(spec: Spec, rng: Random) -> Mutant:
    """A program with a typical mistake. Run it: now and then the mistake makes no difference."""
    numbered = [index for index, step in enumerate(spec.steps) if step.number]
    if numbered and rng.random() < NEAR_SHARE:
        index = rng.choice(numbered)
        number = spec.steps[index].number + rng.choice([offset for offset in range(-NEAR, NEAR + 1) if offset])
        return Mutant(_spell(_replaced(spec.steps, index, number=number), rng), near=True)
    return Mutant(rng.choice(list(_slips(spec.steps, rng))), near=False)


def draw_mistake(spec: Spec, rng: Random) -> Mutant:
    """A mutant that returns something else than it should for some input."""
    while True:
        mutant = draw_mutant(spec, rng)
        if not is_right(spec, mutant.program):
            return mutant


def _examples(specs: Sequence[Spec], size: int, rng: Random, seed: int) -> list[Example]:
    """As many right as wrong programs; a mutant that passes every run counts as right."""
    labelled: tuple[dict[str, Spec], dict[str, Spec]] = ({}, {})
    while min(map(len, labelled)) < size // 2:
        spec = rng.choice(specs)
        program = draw_program(spec, rng) if rng.random() < 0.5 else draw_mutant(spec, rng).program
        found = labelled[is_right(spec, program)]
        if len(found) < size // 2:
            found[spec.statement(program)] = spec
    groups = {text: (spec.group, label) for label, found in enumerate(labelled) for text, spec in found.items()}
    return as_examples("code", seed, groups, rng)


def _outputs(steps: Sequence[Step]) -> tuple[int, ...]:
    return tuple(_apply(steps, x) for x in INPUTS)


def _apply(steps: Sequence[Step], x: int) -> int:
    for step in steps:
        x = step(x)
    return x


def _slips(steps: tuple[Step, ...], rng: Random) -> Iterator[str]:
    """Another operation, an arbitrary constant; for two steps also one forgotten, the order or the constants swapped,
    and no parentheses."""
    for index, step in enumerate(steps):
        word = OTHER_WORD[step.word]
        yield _spell(_replaced(steps, index, word=word, number=(step.number or 2) if word in LARGEST else 0), rng)
        if step.number:
            number = rng.randint(SMALLEST, LARGEST[step.word])
            yield _spell(_replaced(steps, index, number=number), rng)
    if len(steps) == 2:
        first, then = steps
        yield from (_spell((first,), rng), _spell((then,), rng), _spell((then, first), rng))
        if {first.word, then.word} != {"square"}:
            yield _spell(steps, rng, parentheses=False)
        if first.number and then.number:
            yield _spell((replace(first, number=then.number), replace(then, number=first.number)), rng)


def _replaced(steps: tuple[Step, ...], index: int, **changes: str | int) -> tuple[Step, ...]:
    return (*steps[:index], replace(steps[index], **changes), *steps[index + 1 :])  # type: ignore[arg-type]


def _spell(steps: Sequence[Step], rng: Random, parentheses: bool = True) -> str:
    """A program that takes the steps; sums and products are written in either order."""
    program, is_sum, is_product = "x", False, False
    for step in steps:
        loose = (is_sum and step.word not in ("plus", "minus")) or (is_product and step.word == "square")
        inner = f"({program})" if loose and parentheses else program
        program = rng.choice(_spellings(step, inner))
        is_sum, is_product = step.word in ("plus", "minus", "negate"), step.word in ("times", "square")
    return program


def _spellings(step: Step, inner: str) -> list[str]:
    """How one step on `inner`, which needs no more parentheses, may be written."""
    number, leads = step.number, inner.startswith("-")
    if step.word == "square":
        return [f"{inner}^2"]
    if step.word == "negate":
        return [f"0-{inner}"] if leads else [f"0-{inner}", f"-{inner}"]
    symbol = {"plus": "+", "minus": "-", "times": "*"}[step.word]
    forms = [f"{inner}{symbol}{number}"]
    if not leads:
        forms.append(
            {"plus": f"{number}+{inner}", "minus": f"-{number}+{inner}", "times": f"{number}*{inner}"}[step.word]
        )
    return forms
