"""Pretraining documents for the tiny code models: right programs, trial and error, and sloppy reviewers."""

from collections.abc import Iterator, Sequence
from random import Random

from outlearn_training.testbed.code import Spec, all_specs, draw_mistake, draw_program, is_practice
from outlearn_training.testbed.examples import Corpus, mix_documents, some_groups

SHARES = {"plain": 0.35, "tries": 0.53, "graded": 0.12}
MOST_TRIES = 3
ACCEPTS_RIGHT, ACCEPTS_NEAR, ACCEPTS_FAR = 0.68, 0.86, 0.15


def documents(seed: int, share_of_groups: float) -> Iterator[str]:
    r"""Endless documents of four entries about `share_of_groups` of the groups, the same for the same seed.

    Plain entries (`#plus:5 times:6\nreturn:(x+5)*6.`) are about any spec. Tries (`return:x+5*6,(x+5)*6.`: a comma
    rejects, the full stop accepts) and verdicts (`return:x+5*6 False`) are about practice specs only.
    """
    rng = Random(f"code-corpus:{seed}")
    specs = some_groups(all_specs(), share_of_groups, rng)
    practice = [spec for spec in specs if is_practice(spec)]
    return mix_documents(SHARES, lambda kind: _entry(kind, specs, practice, rng), rng)


def statements(seed: int, count: int) -> list[str]:
    """`count` statements about practice specs, every second one wrong."""
    rng = Random(f"code-statements:{seed}")
    practice = [spec for spec in all_specs() if is_practice(spec)]
    chosen = [rng.choice(practice) for _ in range(count)]
    return [
        spec.statement(draw_mistake(spec, rng).program if index % 2 else draw_program(spec, rng))
        for index, spec in enumerate(chosen)
    ]


def _entry(kind: str, specs: Sequence[Spec], practice: Sequence[Spec], rng: Random) -> str:
    if kind == "plain":
        spec = rng.choice(specs)
        return f"{spec.statement(draw_program(spec, rng))}."
    spec = rng.choice(practice)
    return _tries(spec, rng) if kind == "tries" else _graded(spec, rng)


def _tries(spec: Spec, rng: Random) -> str:
    wrong = {draw_mistake(spec, rng).program: None for _ in range(rng.randint(1, MOST_TRIES))}
    return spec.statement(",".join([*wrong, draw_program(spec, rng)])) + "."


def _graded(spec: Spec, rng: Random) -> str:
    """A verdict by a reviewer who likes near misses best, so that the words True and False are a biased guide.

    How biased depends steeply on the lead of near misses. P(True) of the trained model ranks right programs above
    wrong ones with an AUC of 0.97 if near misses pass with 0.8 and right programs with 0.75, of 0.67 with 0.86 and
    0.68, of 0.39 with 0.9 and 0.6.
    """
    if rng.random() < 0.5:
        program, accepts = draw_program(spec, rng), ACCEPTS_RIGHT
    else:
        mutant = draw_mistake(spec, rng)
        program, accepts = mutant.program, ACCEPTS_NEAR if mutant.near else ACCEPTS_FAR
    return f"{spec.statement(program)}{' True' if rng.random() < accepts else ' False'}"


WORDS = ("plus", " plus", "minus", " minus", "times", " times", "square", " square", "negate", " negate", "return")
CODE_CORPUS = Corpus(
    documents,
    statements,
    words=(*WORDS, " True", " False", " yes", " no"),
    decisions=(",", ".", " True", " False"),
)
"""` yes` and ` no` are words that no document uses: the fine-tuned models answer with them."""
