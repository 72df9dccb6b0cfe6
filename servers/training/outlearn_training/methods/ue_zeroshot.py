"""Unsupervised elicitation: train the student on its own zero-shot answers, made consistent, without the teacher.

Source: Wen et al. 2025, "Unsupervised Elicitation of Language Models", from which it takes the consistency fix
(different answers to a question are not both right; a flipped comparison has the opposite label) and leaves out the
search for mutually predictable labels: `ue_fewshot` has it. The untrained student's answers are biased towards one
word; ranking them keeps what it knows and drops the bias.
"""

from typing import Annotated

from annotated_types import Interval

from outlearn_training.consistency import consistent_scores, surest, with_flips


def method(
    lab,
    seed,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """Split the consistent zero-shot answers at their median and keep the share `keep` that is farthest from it."""
    scores = consistent_scores(lab.zero_shot, lab.pool, lab.task.kind)
    labels, weights = surest(scores, keep)
    items, targets, weights = with_flips(lab.pool, labels, weights)
    lab.log(items=weights.sum())
    return lab.fit(targets, weights, epochs=epochs, items=items)
