"""The tiny testbed: procedurally generated weak-to-strong tasks whose models train in seconds on one core.

Importing this needs neither torch nor the checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from outlearn.tasks import FineTuning
from outlearn_training.testbed import chat, code, math
from outlearn_training.testbed.examples import Example, Splits

__all__ = ["CHECKPOINTS", "TESTBEDS", "Example", "Splits", "Testbed"]

CHECKPOINTS = Path(__file__).parent / "checkpoints"


TEACHER_TUNING = FineTuning(epochs=4, lr=5e-4, batch_size=16)
STUDENT_TUNING = FineTuning(epochs=1, lr=2e-4, batch_size=32)


@dataclass(frozen=True)
class Testbed:
    """A tiny task with its models.

    `checkpoints` has the folders `teacher` and `student`. Words come as (label 0, label 1), each a single token that
    follows `template.format(text=...)` directly. Both `label_words` start at probability 0.5 exactly.
    `zero_shot_words` are the ones that zero-shot may read: the pretrained student uses them as a lenient grader would.
    """

    kind: Literal["math", "chat", "code"]
    generate: Callable[[int], Splits]
    checkpoints: Path
    question: str
    label_words: tuple[str, str]
    zero_shot_words: tuple[str, str]
    template: str = "{text}"
    teacher_tuning: FineTuning = TEACHER_TUNING
    student_tuning: FineTuning = STUDENT_TUNING


TESTBEDS: dict[str, Testbed] = {
    "math": Testbed(
        kind="math",
        generate=math.generate,
        checkpoints=CHECKPOINTS / "math",
        question="Is this answer right?",
        label_words=(" no", " yes"),
        zero_shot_words=(" False", " True"),
    ),
    "chat": Testbed(
        kind="chat",
        generate=chat.generate,
        checkpoints=CHECKPOINTS / "chat",
        question="Is response B better than response A?",
        label_words=(" first", " second"),
        zero_shot_words=(" A", " B"),
    ),
    "code": Testbed(
        kind="code",
        generate=code.generate,
        checkpoints=CHECKPOINTS / "code",
        question="Does this program do what its comment asks?",
        label_words=(" no", " yes"),
        zero_shot_words=(" False", " True"),
    ),
}
