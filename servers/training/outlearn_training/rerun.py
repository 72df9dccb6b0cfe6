"""Runs done again on the same items, in a home folder of their own that is derived from theirs.

Queue, workers, sandbox, predictor and receipts are what they always are there. The derived home lies in the vault of
the home that it is derived from, so nobody who works in that one sees any of it, and it has a vault itself.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from outlearn.artifacts import LocalArtifactStore
from outlearn.database import open_database, reading
from outlearn.errors import InvalidInputError
from outlearn.identity import OPERATOR
from outlearn.prepared import write_prepared
from outlearn.tasks import load_baselines, load_card, load_public, load_secret, with_fingerprint, write_task
from outlearn.types import FINISHED, RunView
from outlearn_training.calibration.calibrate import calibrate
from outlearn_training.calibration.seed_training import STAGES, OnProgress
from outlearn_training.calibration.slots import SlotTraining
from outlearn_training.queue.run_queue import RunQueue
from outlearn_training.queue.tables import Submission, find_run, metadata
from outlearn_training.sandbox.disguise import Disguise, write_digits
from outlearn_training.settings import TrainingSettings
from outlearn_training.workers.borrowing import BorrowingExecutor

POLL_SECONDS = 0.2
IDLE_SECONDS = 5.0


def rerun(
    settings: TrainingSettings,
    task: str,
    run_ids: Sequence[str],
    into: Path,
    *,
    seeds: Sequence[int],
    invert: bool = False,
    rows: Sequence[int] | None = None,
    digits: str | None = None,
    retry_failed: bool = True,
    on_progress: OnProgress | None = None,
) -> dict[str, RunView]:
    """Do full runs of `settings.home` again in the home folder `into`: same source, params, agent and items.

    Each seed has a teacher, weak labels and a ceiling of its own there, trained where that was not done yet. A killed
    rerun goes on where it was, and what failed in an earlier one is tried again, with those of the same seeds that have
    no receipt. More runs may follow into the same folder. It borrows device slots of `settings.home`.

    Args:
        into: a folder in the vault of `settings.home`; one for each choice of `seeds`.
        seeds: seeds that the task does not have; with `invert` or `rows` those that it has.
        invert: take the task's own weak labels, turned round (1 - p), and its own ends of the scale.
        rows: take the task's own weak labels, and of the pool only these rows, in this order.
        digits: with `rows`, what stands for the digits 1 to 9 in all that methods see, and not in what models read.
        retry_failed: try what failed earlier again; otherwise it stays failed.
        on_progress: called with what is being done and the share that is done, in [0, 1].

    Returns:
        The run that each one became, by its first id: done, with receipts in the vault of `into`, or failed.

    Raises:
        NotFoundError: no such task or run.
        InvalidInputError: a run is of another task, or a pilot; `into` is not in the vault; too few seeds.
        ConflictError: `into` has the task with other contents or seeds.
    """
    if settings.vault.resolve() not in into.resolve().parents:
        raise InvalidInputError(f"{str(into)!r} is not in the vault {str(settings.vault)!r}, where nobody sees it")
    submissions = {run_id: _read_run(settings, task, run_id) for run_id in run_ids}
    derived = settings.model_copy(
        update={"home": into, "database_url": None, "worker_idle_seconds": IDLE_SECONDS, "transport": "stdio"}
    )
    report, trained = on_progress or (lambda _what, _share: None), 0.0
    if invert or rows is not None:
        _write_own(settings.home, task, into, seeds, invert, rows, digits)
    else:
        trained = STAGES / (STAGES + len(run_ids))
        _write_fresh(settings, derived, task, seeds, lambda what, share: report(what, trained * share))
    queued = _submit(settings, derived, submissions, load_card(into, task).seeds, retry_failed)
    return _finish(settings, derived, queued, lambda what, share: report(what, trained + (1 - trained) * share))


def _read_run(settings: TrainingSettings, task: str, run_id: str) -> Submission:
    engine = open_database(settings.database("training"), metadata)
    try:
        with reading(engine) as connection:
            submission = Submission.model_validate(find_run(connection, run_id, OPERATOR))
    finally:
        engine.dispose()
    if (submission.task, submission.kind) != (task, "full"):
        raise InvalidInputError(
            f"{run_id!r} is a {submission.kind} run of task {submission.task!r}; take full runs of {task!r}"
        )
    return submission.model_copy(update={"request_id": run_id})


def _write_own(
    home: Path,
    task: str,
    into: Path,
    seeds: Sequence[int],
    invert: bool,
    rows: Sequence[int] | None,
    digits: str | None,
) -> None:
    public, secret, baselines = load_public(home, task), load_secret(home, task), load_baselines(home, task)
    chosen = list(range(len(public.pool)) if rows is None else rows)
    pool = tuple(public.pool[row] for row in chosen)
    if digits:
        pool = tuple(map(Disguise(digits).item, pool))
    secret = secret.model_copy(update={"pool_labels": tuple(secret.pool_labels[row] for row in chosen)})
    card = with_fingerprint(public.card.model_copy(update={"pool_size": len(pool)}), pool, secret)
    weak = {seed: public.weak_labels(seed)[chosen] for seed in seeds}
    weak_labels = {seed: 1 - one if invert else one for seed, one in weak.items()}
    per_seed = tuple(one for one in baselines.per_seed if one.seed in seeds)
    scale = baselines.model_copy(update={"per_seed": per_seed, "fingerprint": card.fingerprint})
    write_task(into, card, pool, secret, weak_labels, scale)
    if digits:
        write_digits(into, task, digits)


def _write_fresh(
    settings: TrainingSettings, derived: TrainingSettings, task: str, seeds: Sequence[int], report: OnProgress
) -> None:
    public = load_public(settings.home, task)
    if taken := set(seeds) & set(public.card.seeds):
        raise InvalidInputError(f"task {task!r} has the seeds {sorted(taken)} already; fresh ones are others")
    write_prepared(derived.home, (public.card, public.pool, load_secret(settings.home, task)), {}, "{}")
    calibrate(derived.home, task, seeds, report, train=SlotTraining(derived, lender=settings.home))


def _submit(
    settings: TrainingSettings,
    derived: TrainingSettings,
    submissions: dict[str, Submission],
    seeds: tuple[int, ...],
    retry_failed: bool,
) -> dict[str, str]:
    """Queue what is not queued yet, or failed. Returns the derived home's run ids by those of the first home."""
    queue = RunQueue(derived.database("training"))
    theirs, ours = (LocalArtifactStore(home / "artifacts") for home in (settings.home, derived.home))
    queued = {}
    for run_id, submission in submissions.items():
        ours.put(theirs.get(submission.source_sha256))
        again = submission.model_copy(update={"seeds": seeds})
        queued[run_id] = queue.submit(again, max_waiting=len(submissions) + queue.waiting() + 1).run_id
        if retry_failed:
            queue.queue_again(queued[run_id])
    return queued


def _finish(
    settings: TrainingSettings, derived: TrainingSettings, queued: dict[str, str], report: OnProgress
) -> dict[str, RunView]:
    """Have workers at work until all runs have ended, and end them then, or when this is interrupted."""
    queue, executor = RunQueue(derived.database("training")), BorrowingExecutor(derived, lender=settings.home)
    try:
        while True:
            views = {run_id: queue.view(again, OPERATOR) for run_id, again in queued.items()}
            unfinished = [view for view in views.values() if view.status not in FINISHED]
            if not unfinished:
                report("done", 1.0)
                return views
            executor.ensure()
            share = sum(1.0 if view.status in FINISHED else view.progress for view in views.values()) / len(views)
            report(f"{len(views) - len(unfinished)} of {len(views)} runs done", share)
            time.sleep(POLL_SECONDS)
    finally:
        executor.stop()
