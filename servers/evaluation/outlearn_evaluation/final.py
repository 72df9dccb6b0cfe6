"""The final of a task: nominations close, nominees are run again on fresh seeds, the private half is opened once."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path
from secrets import SystemRandom

import numpy as np

from outlearn.audit import AuditKind, AuditLog
from outlearn.errors import ConflictError
from outlearn.files import create_once
from outlearn.printable import one_line
from outlearn.receipts import ReceiptBook
from outlearn.tasks import Floats, SecretTask, load_baselines, load_card, load_secret
from outlearn.types import RunView
from outlearn_evaluation.commitment import open_task
from outlearn_evaluation.commitment_log import Publisher
from outlearn_evaluation.final_scores import Ends, is_right
from outlearn_evaluation.ledger import Answered, Ledger
from outlearn_evaluation.release import Comparison, Finalist, Interval, Release, ReleaseBook
from outlearn_evaluation.scoring import check_receipts
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_evaluation.statistics import Right, holm
from outlearn_evaluation.withheld import withheld

SEEDS, MAX_SEED = 5, 2**31
SIGNIFICANT = 0.05
MAX_REASON = 200


@dataclass(frozen=True)
class Closed:
    """A task whose nominations are closed."""

    task: str
    commitment: str
    closed_at: datetime
    nominated: list[Answered]


@dataclass(frozen=True)
class Reruns:
    """What was done again: runs by their first ids, and P(label = 1) of teachers and ceilings, (seeds, test items)."""

    runs: Mapping[str, RunView]
    weak: Floats
    ceiling: Floats


Rerun = Callable[[Sequence[str], Path, Sequence[int]], Reruns]
"""Does runs again in a home folder with seeds; their receipts are in its vault then. What is done stays as it is."""


def finalize(
    settings: EvaluationSettings, task: str, rerun: Rerun, seeds: int | None = None, *, accept_failed: bool = False
) -> Release:
    """Hold the final of a task, or go on with it; a task that had its final has the same release for ever.

    Args:
        seeds: how many fresh seeds, 5 by default. They are drawn once.
        accept_failed: take re-runs that fail for results without a score.

    Raises:
        NotFoundError: no such task, or nobody nominated a run of it.
        ConflictError: the final began with another number of seeds, all nominated runs are withheld, or re-runs failed;
            nothing is opened then.
        IntegrityError: receipts, the release, or labels and split were changed.
    """
    book = ReleaseBook(settings.vault, load_card(settings.home, task).name)
    if (known := book.read()) is not None:
        return known
    closed, audit = _close(settings, task), AuditLog(settings.vault)
    held = withheld(audit.records())
    entered = [one.run_id for one in closed.nominated if not held.covers(one.run_id, one.agent)]
    if not entered:
        raise ConflictError(f"all nominated runs of task {task!r} are withheld; review them with `outlearn audit`")
    into = settings.vault / task / "final"
    reruns = rerun(entered, into, fresh_seeds(settings.home, task, seeds))
    if not accept_failed:
        _refuse_failed(into, reruns.runs)
    audit.append(AuditKind.PRIVATE_HALF_OPENED, "note", task=task, evidence={"runs": len(entered)})
    return book.file(_score(closed, load_secret(settings.home, task), into, reruns))


def _close(settings: EvaluationSettings, task: str) -> Closed:
    opened, ledger = open_task(settings.home, task), Ledger(settings)
    try:
        Publisher(ledger.transactions).publish(opened)
        return Closed(task, opened.commitment, *ledger.close(task))
    finally:
        ledger.engine.dispose()


def fresh_seeds(home: Path, task: str, count: int | None) -> tuple[int, ...]:
    """Seeds that the task does not have, from the operating system's randomness. Drawn once and kept in the vault.

    Raises ConflictError where another number was drawn.
    """
    taken, wanted = load_card(home, task).seeds, count or SEEDS
    drawn = [seed for seed in SystemRandom().sample(range(MAX_SEED), wanted + len(taken)) if seed not in taken][:wanted]
    kept = json.loads(create_once(home / "vault" / task / "final-seeds.json", json.dumps(sorted(drawn)).encode()))
    if count not in (None, len(kept)):
        raise ConflictError(f"the final of task {task!r} began with {len(kept)} seeds, not {count}; leave --seeds out")
    return tuple(kept)


def _refuse_failed(into: Path, views: Mapping[str, RunView]) -> None:
    """Raises ConflictError where re-runs failed, for the operator to mend that or to accept it. Those that are withheld
    have no score in any case."""
    held, failed = withheld(AuditLog(into / "vault").records()), defaultdict[str, list[str]](list)
    for run_id, view in views.items():
        if view.status != "done" and not held.covers(view.run_id, view.agent):
            failed[one_line(view.message, MAX_REASON)].append(run_id)
    if failed:
        number = sum(map(len, failed.values()))
        what = "; ".join(f"{', '.join(run_ids)} ({reason!r})" for reason, run_ids in failed.items())
        raise ConflictError(
            f"{number} of {len(views)} re-runs failed, and nothing was opened: {what}. Mend that, and `outlearn "
            "finalize` tries these alone again; or --accept-failed has them in the release without a score"
        )


def _score(closed: Closed, secret: SecretTask, into: Path, reruns: Reruns) -> Release:
    ends = Ends.of(secret, reruns.weak, reruns.ceiling)
    right, card = _right(reruns, into, closed.task, secret), load_card(into, closed.task)
    finalists = [_finalist(one, reruns.runs.get(one.run_id), ends, right.get(one.run_id)) for one in closed.nominated]
    finalists.sort(key=lambda one: -1.0 if one.accuracy is None else one.accuracy, reverse=True)
    scored = [one.run_id for one in finalists if one.accuracy is not None]
    return Release(
        task=card.name,
        task_fingerprint=card.fingerprint,
        commitment=closed.commitment,
        seeds=card.seeds,
        items=int(ends.private.sum()),
        groups=len(set(ends.groups_of(ends.private))),
        weak_acc=ends.accuracy(ends.weak),
        ceiling_acc=ends.accuracy(ends.ceiling),
        gap=Interval.of(ends.compare(ends.ceiling, ends.weak)),
        finalists=tuple(finalists),
        comparisons=_comparisons(scored, right, ends),
        closed_at=closed.closed_at,
    )


def _right(reruns: Reruns, into: Path, task: str, secret: SecretTask) -> dict[str, Right]:
    """Whether each re-run's students are right about each test item, (seeds, items), by first ids; without those that
    failed, and those that detectors saw gaming. Raises IntegrityError."""
    baselines, book = load_baselines(into, task), ReceiptBook(into / "vault")
    held, right = withheld(AuditLog(into / "vault").records()), {}
    for run_id, view in reruns.runs.items():
        if view.status == "done" and not held.covers(view.run_id, view.agent):
            receipts = book.read(view.run_id)
            check_receipts(receipts, secret, baselines)
            right[run_id] = is_right(np.array([receipt.predictions for receipt in receipts]), secret)
    return right


def _finalist(told: Answered, view: RunView | None, ends: Ends, right: Right | None) -> Finalist:
    finalist = Finalist(
        run_id=told.run_id,
        rerun_id=view.run_id if view else None,
        agent=told.agent,
        method=told.method,
        params=view.params if view else {},
        told=told.pgr,
        told_at_most=bool(told.at_most),
    )
    if right is None:
        failed = view.message if view and view.status != "done" else "withheld: `outlearn audit` says why"
        return finalist.model_copy(update={"failed": failed})
    scores = {
        "accuracy": ends.accuracy(right),
        "pgr": ends.pgr(right, ends.private),
        "public_pgr": ends.pgr(right, ~ends.private),
        "fall": ends.fall(right),
    }
    return finalist.model_copy(update=scores)


def _comparisons(run_ids: Sequence[str], right: Mapping[str, Right], ends: Ends) -> tuple[Comparison, ...]:
    """All pairs, the better one first."""
    pairs = list(combinations(run_ids, 2))
    found = [ends.compare(right[one], right[other]) for one, other in pairs]
    return tuple(
        Comparison(
            run_id=one,
            other=other,
            difference=Interval.of(estimate),
            p_value=estimate.p_value,
            p_holm=p_holm,
            significant=p_holm < SIGNIFICANT,
        )
        for (one, other), estimate, p_holm in zip(pairs, found, holm([one.p_value for one in found]), strict=True)
    )
