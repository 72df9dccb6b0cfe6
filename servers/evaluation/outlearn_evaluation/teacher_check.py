"""Whether a run learned from the teacher: it is done again with weak labels turned round, and on a changed pool."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from outlearn.audit import Action, AuditKind, Evidence
from outlearn.errors import ConflictError, NotFoundError
from outlearn.printable import one_line
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.signing import Signed, Signer
from outlearn.tasks import Bits, SecretTask, load_card, load_secret
from outlearn.types import RunView
from outlearn_evaluation.detectors import Suspicion

INVERTED, CHANGED = "inverted", "changed"
ACTIONS: tuple[Action, ...] = ("note", "flag", "quarantine")
SEEDS = 2
LEAST = 0.05
POOL_SHARE = 0.8
MOST_LOST = 0.2
SURE = 3.0
"""Standard errors."""
MAX_REASON = 200
_FOR_THE_MACHINES_REASONS = re.compile(
    r"took longer than the|was killed by signal|the method's process host died|the method host did not take"
    r"|its worker died"
    r"|\w*MemoryError|OSError: \[Errno 28\]|RuntimeError: .*can't allocate memory"
)
"""What messages of runs begin with that a limit or the machine ended."""


class Change(NamedTuple):
    """What a changed pool is made of."""

    rows: list[int]
    """Of the pool, in this order."""
    digits: str
    """What methods meet for the digits 1 to 9."""


Rerun = Callable[[str, Sequence[str], Path, Sequence[int], Change | None], Mapping[str, RunView]]
"""Does runs of a task again in a home folder, with these seeds: on a changed pool, or (None) with inverted weak
labels."""


class ChangedPool(Signed):
    """How a changed pool differs, and which seeds are done again, follows from the signature: nobody without the vault
    can tell."""

    task_fingerprint: str


def check_teacher(
    home: Path, run_ids: Sequence[str], rerun: Rerun, *, accept_failed: bool = False
) -> Iterator[tuple[Receipt, Suspicion]]:
    """What the re-runs of each run say, for the log. `home` is the home folder that the runs are of.

    Of a run whose re-runs did not end for the machine's reasons nothing is said, unless the other one is enough.

    Args:
        accept_failed: take those, too, for failures of the methods.

    Raises:
        NotFoundError: a run has no receipts.
        ConflictError: at the end, where of some runs nothing was said.
    """
    receipts, untold = {run_id: _receipts(home, run_id) for run_id in run_ids}, dict[str, str]()
    for task in sorted({found[0].task for found in receipts.values()}):
        chosen = [run_id for run_id, found in receipts.items() if found[0].task == task]
        card, secret, vault = load_card(home, task), load_secret(home, task), home / "vault"
        seeds, again = checked_seeds(vault, card.fingerprint, card.seeds), dict[str, Mapping[str, RunView]]()
        for name, change in ((INVERTED, None), (CHANGED, changed_pool(vault, card.fingerprint, card.pool_size))):
            again[name] = rerun(task, chosen, vault / task / name, seeds, change)
        for run_id in chosen:
            views = {name: views[run_id] for name, views in again.items()}
            books = {name: ReceiptBook(vault / task / name / "vault") for name in again}
            done = {name: books[name].read(view.run_id) for name, view in views.items() if view.status == "done"}
            own = right([one for one in receipts[run_id] if one.seed in seeds], secret)
            found = judge(own, {name: right(found, secret) for name, found in done.items()}, views)
            ended = [view.message for view in views.values() if was_ended_by_the_machine(view)]
            if ended and not accept_failed and found.action != "quarantine":
                untold[run_id] = one_line(ended[0], MAX_REASON)
            else:
                yield receipts[run_id][0], found
    if untold:
        what = "; ".join(f"{run_id} ({reason!r})" for run_id, reason in untold.items())
        raise ConflictError(
            f"{len(untold)} of {len(run_ids)} runs were not judged, as they did not end when they were done again: "
            f"{what}. Mend that, and --check-teacher tries these alone again; or --accept-failed takes it for evidence"
        )


def was_ended_by_the_machine(view: RunView) -> bool:
    """A method can bring that about, and imitate the words: so it is for the operator to say what it means."""
    return view.status == "failed" and _FOR_THE_MACHINES_REASONS.match(view.message) is not None


def judge(own: Bits, again: Mapping[str, Bits], views: Mapping[str, RunView]) -> Suspicion:
    """Judge by which items (seeds, items) of the public half students have right: the run's, and those done again.

    `D = acc(W) - acc(not W)`: under 5 points is not rankable as weak-to-strong. A student of inverted labels that
    learned nothing else is wrong where it was right: D is near 2 acc - 1. One that never looked at the teacher's labels
    has a D of 0. One that learned its author's own labels, and took but their sign from the teacher, has a large D.

    `lost` is the share of `acc - 1/2` that a run loses where a fifth of the pool is missing, and the rest stands in
    another order and shows the method other digits than the model: honest runs lose next to nothing, labels that came
    with the method meet other items, and those that it works out are wrong. A run that ended well, and fails where
    labels or pool are others, may have looked at which they are.
    """
    lead, actions, facts = max(own.mean() - 0.5, 1e-9), list[Action](["note"]), {"accuracy": own.mean()}
    if INVERTED in again:
        difference = own.mean() - again[INVERTED].mean()
        facts |= {"d": difference, "inverted_accuracy": again[INVERTED].mean(), "least": LEAST}
        actions += ["quarantine"] if difference < LEAST else []
    if CHANGED in again:
        by_item = own.mean(axis=0) - again[CHANGED].mean(axis=0)
        lost, error = by_item.mean() / lead, by_item.std() / np.sqrt(len(by_item)) / lead
        facts |= {"changed_accuracy": again[CHANGED].mean(), "lost": lost, "lost_se": error, "most_lost": MOST_LOST}
        actions += ["flag"] if lost > max(MOST_LOST, SURE * error) else []
    evidence: Evidence = {name: round(float(value), 4) for name, value in facts.items()}
    for name, view in views.items():
        if view.status != "done":
            evidence |= {f"{name}_run": view.status, f"{name}_message": view.message}
            actions += ["flag"] if view.status == "failed" else []
    return Suspicion(AuditKind.TEACHER_DEPENDENCE, max(actions, key=ACTIONS.index), evidence)


def checked_seeds(vault: Path, task_fingerprint: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """Those that are done again: a method knows its seed, and may learn from the teacher where it is looked at."""
    chosen = _secret_rng(vault, "checked seeds", task_fingerprint).permutation(len(seeds))[:SEEDS]
    return tuple(seeds[place] for place in sorted(chosen.tolist()))


def changed_pool(vault: Path, task_fingerprint: str, size: int) -> Change:
    """Most rows of the pool, in another order, and another digit for each of 1 to 9; the same at each call."""
    rng = _secret_rng(vault, "changed pool", task_fingerprint)
    rows = rng.permutation(size)[: round(POOL_SHARE * size)]
    digits = true = np.arange(1, 10)
    while (digits == true).any():
        digits = rng.permutation(true)
    return Change(rows.tolist(), "".join(map(str, digits)))


def _secret_rng(vault: Path, purpose: str, task_fingerprint: str) -> np.random.Generator:
    signed = Signer.from_vault(vault, purpose).sign(ChangedPool(task_fingerprint=task_fingerprint))
    return np.random.default_rng(int(signed.signature, 16))


def right(receipts: Sequence[Receipt], secret: SecretTask) -> Bits:
    """Which items of the public half each seed has right. Returns (seeds, items)."""
    positive = np.array([one.predictions for one in receipts]) > 0.5
    return np.asarray((positive == secret.test_labels)[:, secret.public_mask()], dtype=np.bool_)


def _receipts(home: Path, run_id: str) -> tuple[Receipt, ...]:
    found = ReceiptBook(home / "vault").read(run_id)
    if not found:
        raise NotFoundError(f"run {run_id!r} has no receipts; give full runs that are done, or `nominees`")
    return found
