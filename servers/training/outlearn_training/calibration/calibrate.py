"""Calibration: train teachers and ceilings over several seeds, for the weak labels and the ends of PGR's scale.

Each seed's predictions are kept in the vault as soon as they are there, so an interrupted calibration goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from outlearn.baseline_votes import BaselineVotes, keep_votes, pack_votes
from outlearn.clusters import design_effect
from outlearn.errors import ConflictError, IntegrityError, InvalidInputError
from outlearn.files import write_atomic
from outlearn.locks import locked
from outlearn.prepared import Parts, card_markdown, load_prepared, read_prepared
from outlearn.tasks import (
    Baselines,
    Floats,
    SanityLine,
    SecretTask,
    SeedBaseline,
    TaskCard,
    load_card,
    task_names,
    with_fingerprint,
    write_task,
)
from outlearn_training.calibration.report import make_report
from outlearn_training.calibration.sanity import line, shortcut_lines
from outlearn_training.calibration.seed_training import KeptSeeds, OnProgress, SeedPredictions, train_here
from outlearn_training.prepare import tiny_task, write_calibration
from outlearn_training.profiles import choose_profile

MIN_SEEDS = 5
Found = Mapping[int, SeedPredictions]
Train = Callable[[Parts, KeptSeeds, Sequence[int], OnProgress], None]


def calibrate(
    home: Path,
    name: str,
    seeds: Sequence[int] = range(MIN_SEEDS),
    on_progress: OnProgress | None = None,
    keep_in: Path | None = None,
    *,
    profile: str | None = None,
    changes: Mapping[str, Any] | None = None,
    train: Train = train_here,
) -> TaskCard:
    """Train a teacher, a ceiling and a control for each seed and write the calibrated task to `home`.

    Args:
        on_progress: called with what is being trained and the share done, in [0, 1].
        keep_in: folder for `weak_labels.npz`, `baselines.json` and `votes.npz` too, as they ship with outlearn.
        profile: other models and fine-tuning than the task was prepared with.
        changes: of single fields of the profile, such as {"student_tuning.lr": 1e-4}.
        train: trains seeds and keeps their predictions; the results are the same wherever that happens.

    Raises:
        InvalidInputError: fewer than five different seeds, or a wrong change.
        ConflictError: `home` has this task with other contents; runs in it would not be comparable.
    """
    if len(set(seeds)) < MIN_SEEDS:
        raise InvalidInputError(f"calibrate over at least {MIN_SEEDS} different seeds, not {list(seeds)}")
    task, report = choose_task(home, name, profile, changes), on_progress or (lambda _what, _share: None)
    _refuse_another(home, task[0], seeds)
    kept = KeptSeeds(home, task[0])
    if missing := kept.missing(seeds):
        done = 1 - len(missing) / len(seeds)
        train(task, kept, missing, lambda what, share: report(what, done + (1 - done) * share))
    found = load_predictions(home, task[0].model_copy(update={"seeds": tuple(seeds)}))
    if len(found) < len(seeds):
        raise IntegrityError(f"{str(kept.path(0).parent)!r} lacks seeds that were trained; is the disk full?")
    report("done", 1.0)
    return _write(home, task, found, keep_in)


def find_task(home: Path, name: str) -> Parts:
    """The task that was prepared in `home` under this name, else the tiny task. Raises NotFoundError."""
    return load_prepared(home, name) if read_prepared(home, name) else tiny_task(name)


def choose_task(home: Path, name: str, profile: str | None, changes: Mapping[str, Any] | None) -> Parts:
    """The task, worked on with another profile or with changes to its own: that is another task of the same data."""
    card, pool, secret = find_task(home, name)
    if not (profile or changes):
        return card, pool, secret
    card = choose_profile(card, profile, changes)
    return with_fingerprint(card, pool, secret), pool, secret


def load_predictions(home: Path, card: TaskCard) -> dict[int, SeedPredictions]:
    """What a task's calibration kept, by seed."""
    kept = KeptSeeds(home, card)
    return {seed: one for seed in card.seeds if (one := kept.read(seed))}


def _refuse_another(home: Path, card: TaskCard, seeds: Sequence[int]) -> None:
    """Raises ConflictError before hours of training, where the result could not be written."""
    if card.name not in task_names(home):
        return
    known = load_card(home, card.name)
    if known.fingerprint != card.fingerprint or known.seeds != tuple(sorted(seeds)):
        raise ConflictError(
            f"task {card.name!r} is in {str(home)!r} already, with other contents (data, models, fine-tuning or "
            f"seeds; it has the seeds {list(known.seeds)}); use another home folder"
        )


def _write(home: Path, task: Parts, found: Found, keep_in: Path | None) -> TaskCard:
    card, pool, secret = task
    vault = home / "vault" / card.name
    baselines = Baselines(
        fingerprint=card.fingerprint,
        per_seed=tuple(_baseline(secret, seed, one) for seed, one in found.items()),
        lines=_lines(secret, found),
        design_effect=_design_effect(secret, found),
    )
    weak_labels = {seed: one.weak_pool.round(4) for seed, one in found.items()}
    truth = np.array(secret.pool_labels, dtype=np.int64)
    report = make_report(card.name, baselines, list(weak_labels.values()), truth, len(secret.public_half))
    votes = pack_votes(_votes(found))
    with locked(vault / "baselines.json"):  # another calibration may end at the same time
        card = write_task(home, card, pool, secret, weak_labels, baselines)
        keep_votes(vault, card.fingerprint, votes)
        write_atomic(vault / "calibration.json", report.model_dump_json(indent=1).encode(), mode=0o600)
        write_atomic(home / "data" / card.name / "card.md", card_markdown(card).encode())
    if keep_in:
        write_calibration(keep_in, weak_labels, baselines, votes)
    return card


def _votes(found: Found) -> BaselineVotes:
    kinds = ("weak_test", "ceiling_test", "shuffled_test")
    teachers, ceilings, controls = (np.array([getattr(one, kind) > 0.5 for one in found.values()]) for kind in kinds)
    return BaselineVotes(tuple(found), teachers, ceilings, controls)


def _baseline(secret: SecretTask, seed: int, found: SeedPredictions) -> SeedBaseline:
    public = secret.public_mask()
    weak, ceiling = ((p > 0.5) == secret.test_labels for p in (found.weak_test, found.ceiling_test))
    return SeedBaseline(
        seed=seed,
        weak=weak.mean(),
        ceiling=ceiling.mean(),
        weak_public=weak[public].mean(),
        ceiling_public=ceiling[public].mean(),
    )


def _lines(secret: SecretTask, found: Found) -> tuple[SanityLine, ...]:
    """Shortcuts, the untrained student, and the control with shuffled labels, averaged over seeds."""
    shuffled = [line("shuffled labels", one.shuffled_test > 0.5, secret).accuracy for one in found.values()]
    untrained = next(iter(found.values())).zero_shot_test  # the same for every seed
    return (
        *shortcut_lines(secret),
        line("zero-shot", untrained > 0.5, secret),
        SanityLine(name="shuffled labels", accuracy=float(np.mean(shuffled))),
    )


def _design_effect(secret: SecretTask, found: Found) -> float:
    """That of the public half of the test items: of teachers or of ceilings, whichever is greater."""
    rows = list(secret.public_half)
    groups, labels = [secret.test[row].group for row in rows], secret.test_labels[rows]

    def effect(predicted: list[Floats]) -> float:
        return design_effect(np.array([(p[rows] > 0.5) == labels for p in predicted]), groups)

    teachers, ceilings = ([getattr(one, name) for one in found.values()] for name in ("weak_test", "ceiling_test"))
    return round(max(effect(teachers), effect(ceilings)), 4)
