"""Unsupervised elicitation by internal coherence: labels that predict each other in the student's context.

Source: Wen et al. 2025, "Unsupervised Elicitation of Language Models" (ICM). Labels start as zero-shot answers; the
untrained student then answers each item after a few others that are shown with their present labels, and its answers,
averaged over contexts and made consistent and balanced, are the next labels. The paper anneals one label at a time and
shows as many examples as the context holds; here a round relabels the whole pool, and `shots` is for tiny students,
whose context holds three items: raise it for others.
"""

from typing import Annotated

import numpy as np
from annotated_types import Interval

from outlearn_training.consistency import consistent_scores, surest, with_flips


def method(
    lab,
    seed,
    shots: Annotated[int, Interval(ge=1, le=32)] = 2,
    contexts: Annotated[int, Interval(ge=1, le=16)] = 4,
    rounds: Annotated[int, Interval(ge=1, le=8)] = 2,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Relabel `rounds` times with `contexts` draws of `shots` surely labelled items; train on the share `keep`."""
    rng, kind = np.random.default_rng(seed), lab.task.kind
    scores = consistent_scores(lab.zero_shot, lab.pool, kind)
    for _ in range(rounds):
        drawn = [draw(scores, shots, rng) for _ in range(contexts)]
        before = scores
        scores = np.mean([consistent_scores(asker(lab, rows, scores), lab.pool, kind) for rows in drawn], axis=0)
        lab.log(relabelled=((scores > 0) != (before > 0)).mean())
    labels, weights = surest(scores, keep)
    items, targets, weights = with_flips(lab.pool, labels, weights)
    lab.log(items=weights.sum())
    return lab.fit(targets, weights, epochs=epochs, items=items)


def draw(scores, shots, rng):
    """Rows of `shots` items of alternating labels, among the surer half of the pool."""
    order = np.argsort(scores, kind="stable")
    quarter = max(1, len(scores) // 4)
    sides = [order[-quarter:], order[:quarter]]
    first = rng.integers(2)
    return [int(rng.choice(sides[(first + shot) % 2])) for shot in range(shots)]


def asker(lab, rows, scores):
    """Asks the untrained student with the items in `rows` and their labels put before each item."""
    before, after = lab.task.template.split("{text}")
    between = "\n" if lab.task.template == "{text}" else "\n\n"
    shown = [f"{lab.pool[row].text}{after}{lab.task.zero_shot_words[int(scores[row] > 0)]}" for row in rows]

    def ask(items):
        texts = [f"{between}{before}".join([*shown, item.text]) for item in items]
        return lab.zero_shot([item.model_copy(update={"text": text}) for item, text in zip(items, texts, strict=True)])

    return ask
