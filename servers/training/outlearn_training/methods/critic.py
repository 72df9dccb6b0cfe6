"""The student criticises, the teacher judges with the critique at hand, and the student is trained on the judgements.

Source: Saunders et al. 2022, "Self-critiquing models for assisting human evaluators". No teacher can be asked in the
lab, so a judge stands in for it: a student trained to give the teacher's labels for items with their critiques. Each
half of the pool is judged by a judge that saw the other half's labels, so a judgement is never a label repeated. It
helps where a critique shows an item's truth more plainly than the item itself.
"""

from typing import Annotated

import numpy as np
from annotated_types import Interval, Len

from outlearn_training.consistency import surest


def method(
    lab,
    seed,
    ask: Annotated[str, Len(0, 500)] = "",
    tokens: Annotated[int, Interval(ge=1, le=256)] = 24,
    judging: Annotated[float, Interval(ge=0.25, le=8)] = 1.0,
    keep: Annotated[float, Interval(ge=0.05, le=1)] = 0.5,
    epochs: Annotated[float, Interval(ge=0.25, le=4)] = 1.0,
):
    """`ask` is put after an item to get its critique, of which the first line counts, at most `tokens` long.

    By default that is an instruction, or a comma where the task's template has no words either: the tiny students know
    `1+1=3,2.` from pretraining, where a comma rejects what stands before it. Judges train for `judging` epochs and read
    the critique before the item; the student learns the share `keep` of which they are surest, both classes alike.
    """
    labels = (lab.weak_labels() > 0.5).astype(float)
    bare = lab.task.template == "{text}"
    ask = ask or ("," if bare else "\n\nName the worst mistake, if there is one.\nCritique:")
    written = lab.generate([item.text + ask for item in lab.pool], max_tokens=tokens)
    shown = []
    for item, text in zip(lab.pool, written, strict=True):
        critique = text.strip().partition("\n")[0]
        shown.append(item.model_copy(update={"text": f"{critique}\n{item.text}"}))
    judged = np.zeros(len(shown))
    halves = np.array_split(np.random.default_rng(seed).permutation(len(shown)), 2)
    for learnt, asked in (halves, halves[::-1]):
        judge = lab.fit(labels[learnt], items=[shown[row] for row in learnt], epochs=judging)
        judged[asked] = judge.predict([shown[row] for row in asked])
    targets, weights = surest(judged, keep)
    lab.log(overruled=(targets != labels).mean())
    return lab.fit(targets, weights, epochs=epochs)
