"""The tiny *math* task: is this answer right? (`40-27=14` is wrong, `3x+1=13 x=4` is right.)

Facts come in groups that are never torn apart: `13+27=40`, `27+13=40`, `40-13=27` and `40-27=13` are one group. The
*practice* groups are those that pretraining shows being checked; the task is made of the others, which pretraining
shows as plain facts alone. So the student knows the task's facts and knows how to check, but has never checked these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from outlearn_training.testbed.examples import Example, Splits, as_examples, is_chosen, make_splits

LARGEST_NUMBER = 99
PRACTICE_SHARE = 0.3
NEAR = 2
NEAR_SHARE = 0.55
"""How often a mistake is drawn as an off-by-one or off-by-two; other mistakes land that close now and then, too."""


@dataclass(frozen=True)
class Fact:
    """A question with its answer; `slips` are the typical wrong answers beside the off-by-one and off-by-two."""

    group: str
    question: str
    answer: int
    slips: tuple[int, ...]

    def statement(self, answer: int) -> str:
        return f"{self.question}{answer}"


def is_near(fact: Fact, answer: int) -> bool:
    """Whether a wrong answer is a near miss, one that a sloppy grader lets pass."""
    return 0 < abs(answer - fact.answer) <= NEAR


def draw_mistake(fact: Fact, rng: Random) -> int:
    """A wrong answer, in 0..99: usually a near miss, otherwise a slip."""
    offsets = [offset for offset in range(-NEAR, NEAR + 1) if 0 <= fact.answer + offset <= LARGEST_NUMBER and offset]
    if rng.random() < NEAR_SHARE:
        return fact.answer + rng.choice(offsets)
    return rng.choice(fact.slips)


def all_facts() -> list[Fact]:
    """Every fact, sorted by group."""
    facts = [*_sums_and_differences(), *_products(), *_remainders(), *_equations()]
    return sorted(facts, key=lambda fact: (fact.group, fact.question))


def is_practice(fact: Fact) -> bool:
    """Whether pretraining shows tries and verdicts about this fact; the same for every seed, as checkpoints are."""
    return is_chosen(f"practice:{fact.group}", PRACTICE_SHARE)


def generate(seed: int = 0) -> Splits:
    """Balanced splits of unique texts, disjoint by group, the same for the same seed."""
    rng = Random(f"math:{seed}")
    facts = [fact for fact in all_facts() if not is_practice(fact)]
    return make_splits(facts, lambda part, size: _examples(part, size, rng, seed), rng)


def _examples(facts: list[Fact], size: int, rng: Random, seed: int) -> list[Example]:
    """Half right and half wrong statements, drawn independently, so one fact's label tells little about another's."""
    right = rng.sample(facts, size // 2)
    labelled = {fact.statement(fact.answer): (fact.group, 1) for fact in right}
    while len(labelled) < size:
        fact = rng.choice(facts)
        labelled[fact.statement(draw_mistake(fact, rng))] = (fact.group, 0)
    return as_examples("math", seed, labelled, rng)


def _fact(group: str, question: str, answer: int, slips: Sequence[int]) -> Fact:
    """Drop the slips that happen to be right or out of range."""
    wrong = sorted({slip for slip in slips if slip != answer and 0 <= slip <= LARGEST_NUMBER})
    return Fact(group, question, answer, tuple(wrong))


def _swapped_digits(number: int) -> int:
    return number % 10 * 10 + number // 10


def _sums_and_differences(lowest: int = 2, highest: int = 49) -> Iterator[Fact]:
    """Slips: a forgotten or invented carry, swapped digits, the other operation."""
    for left in range(lowest, highest + 1):
        for right in range(lowest, highest + 1):
            total = left + right
            group = f"{min(left, right)}+{max(left, right)}"
            sum_slips = [total - 10, total + 10, total - 9, total + 9, _swapped_digits(total), abs(left - right)]
            yield _fact(group, f"{left}+{right}=", total, sum_slips)
            difference_slips = [left - 10, left + 10, left - 9, left + 9, _swapped_digits(left), total + right]
            yield _fact(group, f"{total}-{right}=", left, difference_slips)


def _products() -> Iterator[Fact]:
    """Slips: a neighbour in the table, swapped digits, the sum."""
    for left in range(2, 13):
        for right in range(2, min(12, LARGEST_NUMBER // left) + 1):
            product = left * right
            slips = [
                product - left,
                product + left,
                product - right,
                product + right,
                _swapped_digits(product),
                left + right,
            ]
            yield _fact(f"{min(left, right)}*{max(left, right)}", f"{left}*{right}=", product, slips)


def _remainders() -> Iterator[Fact]:
    """Slips: the quotient, what is missing to the next multiple, the divisor, its double."""
    for number in range(10, 35):
        for divisor in range(3, 13):
            remainder = number % divisor
            slips = [number // divisor, divisor - remainder, divisor, remainder + divisor, number - divisor]
            yield _fact(f"{number}%{divisor}", f"{number}%{divisor}=", remainder, slips)


def _equations() -> Iterator[Fact]:
    """`factor`x+`offset`=`value`. Slips: not dividing, not subtracting, adding, answering with a coefficient."""
    for factor in range(2, 7):
        for offset in range(1, 10):
            for solution in range(2, 9):
                value = factor * solution + offset
                text = f"{factor}x+{offset}={value}"
                slips = [value - offset, value // factor, (value + offset) // factor, value - factor, factor, offset]
                far = [slip for slip in slips if abs(slip - solution) > NEAR] or slips
                yield _fact(text, f"{text} x=", solution, far)
