"""Finished runs: their receipts are checked and their students looked at, before anybody asks for the score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outlearn.files import Versions
from outlearn.receipts import Receipt
from outlearn_evaluation.commitment import Opened
from outlearn_evaluation.detectors import Suspicion
from outlearn_evaluation.inspection import OF_STUDENTS, Students, examine
from outlearn_evaluation.ledger import Question
from outlearn_evaluation.scoring import Votes, read_answers
from outlearn_evaluation.submissions import Submission
from outlearn_evaluation.thresholds import Thresholds


@dataclass(frozen=True)
class FinishedRun:
    """A run that can be scored, and what its students show by themselves. Nothing here is ever told before it is asked
    for and charged."""

    versions: Versions
    opened: Opened
    question: Question
    """What is its score?"""
    suspicions: tuple[Suspicion, ...]

    @property
    def submission(self) -> Submission:
        """What it answered."""
        return self.question.run

    @property
    def run_id(self) -> str:
        """The run's."""
        return self.question.run.run_id

    @property
    def agent(self) -> str:
        """Whose it is."""
        return self.question.agent


def finished_run(
    receipts: Sequence[Receipt], versions: Versions, opened: Opened, thresholds: Thresholds
) -> FinishedRun:
    """A run by its receipts, sorted by seed. `versions` are theirs, or of earlier ones: then they will be read again.

    Raises:
        IntegrityError: they are not of this version of the task, or not of exactly the server's seeds.
        InvalidInputError: the task's PGR is undefined.
    """
    first = receipts[0]
    answers, public = read_answers(receipts, opened.secret, opened.baselines), opened.secret.public_mask()
    students = Students(
        positive=answers,
        labels=opened.secret.test_labels,
        public=public,
        noise=np.array(opened.seal.noise),
        design_effect=opened.baselines.design_effect,
        frequent=opened.frequent,
        thresholds=thresholds,
    )
    votes = Votes(answers[:, public])
    question = Question(
        run=Submission(first.run_id, first.task, first.task_fingerprint, votes),
        agent=first.agent,
        method=first.method,
        grade=opened.judge.grade(votes),
    )
    look = question.look
    _ = look.bits, look.majority, look.minority, look.is_degenerate  # worked out now, and not when it is asked
    return FinishedRun(versions, opened, question, tuple(examine(OF_STUDENTS, students)))
