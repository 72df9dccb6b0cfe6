"""How a row becomes an item's text, and what is asked about it: one place for all kinds of task.

Label words begin with a blank, as most tokenizers make ` True` or ` A` one token after a colon. They are the words of
zero-shot too, since they mean the same to an untrained model.
"""

import re
from dataclasses import dataclass

from outlearn.sources import Example, Kind


@dataclass(frozen=True)
class Wording:
    """The words of one kind of task. `template` has {text} once and ends where the label follows."""

    question: str
    template: str
    words: tuple[str, str]


WORDINGS: dict[Kind, Wording] = {
    "math": Wording(
        question="Is the proposed solution correct?",
        template="{text}\n\nIs the proposed solution correct, True or False?\nLabel:",
        words=(" False", " True"),
    ),
    "code": Wording(
        question="Is the program correct?",
        template="{text}\n\nDoes the program do what the task says, True or False?\nLabel:",
        words=(" False", " True"),
    ),
    "chat": Wording(
        question="Which of the two responses is better?",
        template="{text}\n\nWhich response is better, A or B?\nLabel:",
        words=(" A", " B"),
    ),
}
ANSWERS: dict[Kind, str] = {"math": "Proposed solution", "code": "Program", "chat": "Response"}
PROMPTS: dict[Kind, str] = {"math": "Question", "code": "Task", "chat": "Instruction"}
# what a comparison is headed with by `compose`; the tiny task has bare letters
HEADINGS = (*(f"{answer} " for answer in ANSWERS.values()), "")


def compose(kind: Kind, example: Example, *, swapped: bool = False) -> str:
    """The text of an item: the prompt and one response, or two of them as A and B.

    Args:
        swapped: show the second response as A. Whoever swaps must swap the label too.

    A claim without a prompt is shown as it is: its text was composed by whoever made the data.
    """
    if len(example.responses) == 2:
        first, second = reversed(example.responses) if swapped else example.responses
        parts = [(PROMPTS[kind], example.prompt), (f"{ANSWERS[kind]} A", first), (f"{ANSWERS[kind]} B", second)]
    elif example.prompt:
        parts = [(PROMPTS[kind], example.prompt), (ANSWERS[kind], example.responses[0])]
    else:
        return example.responses[0].strip()
    return "\n\n".join(f"{heading}:\n{text.strip()}" for heading, text in parts)


def responses(text: str) -> tuple[str, str] | None:
    """The two responses of a comparison's text, A first, as `compose` and the tiny tasks show them; None for a claim.

    Where a prompt or a response has such headings of its own, the first ones count.
    """
    for heading in HEADINGS:
        if found := re.search(rf"(?:\A|\n){heading}A:\s(.*?)\n{heading}B:\s(.*)\Z", text, re.DOTALL):
            return found[1].strip(), found[2].strip()
    return None


def wording(kind: Kind, *, comparisons: bool) -> Wording:
    """The words for a kind of task; comparisons are asked as A or B, whatever they are about."""
    if comparisons == (kind == "chat"):
        return WORDINGS[kind]
    if comparisons:
        return Wording(
            question=f"Which {ANSWERS[kind].lower()} is better?",
            template="{text}\n\n" + f"Which {ANSWERS[kind].lower()} is better, A or B?\nLabel:",
            words=(" A", " B"),
        )
    return Wording(
        question="Is the response good?",
        template="{text}\n\nIs the response good, True or False?\nLabel:",
        words=(" False", " True"),
    )
