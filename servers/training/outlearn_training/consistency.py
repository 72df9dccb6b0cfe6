"""What the labels of related items say about each other, without any teacher: logical consistency and class balance.

Two solutions that give different final answers to one question contradict each other: at most one is right. Those with
the same answer, and equal programs of one group, agree. A comparison and its flip (the responses change places) have
opposite labels. Source: Wen et al. 2025, "Unsupervised Elicitation of Language Models" (arXiv 2506.10139), section 2.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from outlearn.final_answer import final_answer
from outlearn.tasks import Floats, Item
from outlearn_training.data.templates import HEADINGS

Claim = tuple[Hashable, Hashable]
RESPONSE = re.compile(r"(?:Proposed solution|Program|Response):\n|\nreturn:")
SMALLEST = 1e-6


def consistent_scores(ask: Callable[[Sequence[Item]], Floats], items: Sequence[Item], kind: str) -> Floats:
    """Log-odds of label 1 by `ask(items)`, which returns P(label = 1), made balanced and consistent.

    Comparisons are asked in both orders. The median is taken off, so that half of the items are above 0. Claims are
    reconciled then, which leaves fewer above 0 where answers contradict each other. Returns (n,), finite.
    """
    scores, other = log_odds(ask(items)), flips(items)
    if other:
        scores = (scores - log_odds(ask(other))) / 2
    scores = scores - np.median(scores)
    return scores if other else reconcile(scores, [claim(item, kind) for item in items], exclusive=kind == "math")


def flips(items: Sequence[Item]) -> list[Item]:
    """The same comparisons with their responses in the other order; [] unless all items are comparisons."""
    texts = [_swap(item.text) for item in items]
    swapped = [item.model_copy(update={"text": text}) for item, text in zip(items, texts, strict=True) if text]
    return swapped if len(swapped) == len(items) else []


def surest(scores: Floats, keep: float) -> tuple[Floats, Floats]:
    """Balanced labels, and weights that are 1 for the share `keep` of the scores farthest from the median, else 0.

    Half of the labels are 1, whatever the scores' bias. Returns (n,) and (n,).
    """
    rank = scores.argsort(kind="stable").argsort(kind="stable") / max(1, len(scores) - 1)
    return (rank > 0.5).astype(float), (np.abs(rank - 0.5) >= (1 - keep) / 2).astype(float)


def with_flips(items: Sequence[Item], labels: Floats, weights: Floats) -> tuple[list[Item], Floats, Floats]:
    """Items, labels and weights with those of the flips after them, as they are for claims."""
    other = flips(items)
    n = len(other)
    return [*items, *other], np.append(labels, 1 - labels[:n]), np.append(weights, weights[:n])


def reconcile(scores: Floats, claims: Sequence[Claim], *, exclusive: bool) -> Floats:
    """Log-odds that contradict each other nowhere, from log-odds (n,) that know nothing of each other.

    Args:
        claims: (n,) pairs of question and answer. Equal pairs get their mean.
        exclusive: condition on at most one answer to a question being right, which turns the log-odds `s_i` of an
            answer into `s_i - log(1 + sum over the others of exp(s_j))`: then at most one of them is above 0.
    """
    questions: dict[Hashable, dict[Hashable, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (question, answer) in enumerate(claims):
        questions[question][answer].append(row)
    fixed = np.array(scores, dtype=np.float64)
    for answers in questions.values():
        means = [float(fixed[rows].mean()) for rows in answers.values()]
        for index, rows in enumerate(answers.values()):
            others = means[:index] + means[index + 1 :] if exclusive else []
            fixed[rows] = means[index] - np.logaddexp.reduce([0.0, *others])
    return fixed


def claim(item: Item, kind: str) -> Claim:
    """An item's question and its answer.

    Code: its group, and the program. Math: the text before the solution, or before the final number where there is no
    heading, and the final answer, which is the last one in a box, or else the last number.
    """
    headings = list(RESPONSE.finditer(item.text))
    start = headings[-1].end() if headings else 0
    head, response = item.text[:start], item.text[start:]
    if kind != "math":
        return item.group, response.strip()
    answer = final_answer(response)
    if answer is None:
        return head or item.id, response.strip()
    return head or (item.id if answer.is_boxed else response[: answer.start]), answer.value


def balanced(answers: Floats) -> Floats:
    """The same probabilities, (n,), with log-odds shifted to a median of 0: half of them are above 0.5."""
    odds = log_odds(answers)
    shifted: Floats = 1 / (1 + np.exp(np.median(odds) - odds))
    return shifted


def log_odds(p: Floats) -> Floats:
    """`log(p / (1 - p))`, finite: probabilities are kept 1e-6 away from 0 and 1."""
    kept = np.clip(p, SMALLEST, 1 - SMALLEST)
    odds: Floats = np.log(kept) - np.log1p(-kept)
    return odds


def _swap(text: str) -> str | None:
    """A comparison's text with its responses in the other order, or None for a claim."""
    for heading in HEADINGS:
        parts = rf"((?:.*?\n)??{heading}A:\s)(.*?)(\s*\n{heading}B:\s)(.*)"
        if found := re.fullmatch(parts, text, re.DOTALL):
            before, first, between, second = found.groups()
            return f"{before}{second}{between}{first}"
    return None
