"""Pretraining documents for the tiny math models: facts, trial and error, and sloppy graders."""

from collections.abc import Iterator, Sequence
from random import Random

from outlearn_training.testbed.examples import Corpus, mix_documents, some_groups
from outlearn_training.testbed.math import Fact, all_facts, draw_mistake, is_near, is_practice

SHARES = {"plain": 0.43, "tries": 0.45, "graded": 0.12}
MOST_TRIES = 3
ACCEPTS_RIGHT, ACCEPTS_NEAR, ACCEPTS_FAR = 0.6, 0.9, 0.15


def documents(seed: int, share_of_groups: float) -> Iterator[str]:
    """Endless four-line documents about `share_of_groups` of the groups, the same for the same seed.

    Plain lines (`40-27=13.`) are about any fact. Tries (`17+25=43,52,42.`: a comma rejects, the full stop accepts) and
    verdicts (`17+25=43 True`) are about practice facts only, never about a fact of the task.
    """
    rng = Random(f"math-corpus:{seed}")
    facts = some_groups(all_facts(), share_of_groups, rng)
    practice = [fact for fact in facts if is_practice(fact)]
    return mix_documents(SHARES, lambda kind: _line(kind, facts, practice, rng), rng)


def statements(seed: int, count: int) -> list[str]:
    """`count` statements about practice facts, every second one wrong."""
    rng = Random(f"math-statements:{seed}")
    practice = [fact for fact in all_facts() if is_practice(fact)]
    chosen = [rng.choice(practice) for _ in range(count)]
    return [fact.statement(draw_mistake(fact, rng) if index % 2 else fact.answer) for index, fact in enumerate(chosen)]


def _line(kind: str, facts: Sequence[Fact], practice: Sequence[Fact], rng: Random) -> str:
    if kind == "plain":
        fact = rng.choice(facts)
        return f"{fact.statement(fact.answer)}."
    fact = rng.choice(practice)
    return _tries(fact, rng) if kind == "tries" else _graded(fact, rng)


def _tries(fact: Fact, rng: Random) -> str:
    wrong = {draw_mistake(fact, rng): None for _ in range(rng.randint(1, MOST_TRIES))}
    return fact.question + ",".join(str(answer) for answer in [*wrong, fact.answer]) + "."


def _graded(fact: Fact, rng: Random) -> str:
    """A verdict by a grader who likes near misses, so that the words True and False are a biased guide.

    Near misses pass more often than right answers because the model learns the two as one blurred class: with equal
    shares its P(True) ranks the task almost perfectly, and a threshold at the pool's median would solve it.
    """
    answer = fact.answer if rng.random() < 0.5 else draw_mistake(fact, rng)
    accepts = ACCEPTS_RIGHT if answer == fact.answer else ACCEPTS_NEAR if is_near(fact, answer) else ACCEPTS_FAR
    return f"{fact.statement(answer)}{' True' if rng.random() < accepts else ' False'}"


MATH_CORPUS = Corpus(
    documents, statements, words=(" True", " False", " yes", " no"), decisions=(",", ".", " True", " False")
)
"""` yes` and ` no` are words that no document uses: the fine-tuned models answer with them."""
