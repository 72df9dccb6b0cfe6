"""Tasks on disk: what agents may see (`data/<task>/`) and the ground truth (`vault/<task>/`).

A task is a binary question over text. The vault is read by the evaluation server and the trusted predictor only.
"""

import hashlib
import io
import re
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from outlearn.errors import ConflictError, IntegrityError, InvalidInputError, NotFoundError
from outlearn.files import FileVersion, file_version, private_folder, write_atomic
from outlearn.hints import problems
from outlearn.seal import seal_task
from outlearn.signing import canonical_json
from outlearn.sources import DataFacts

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]
NEWEST = "newest.txt"
"""In `data/`: the name of the task that was written last."""
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}")
NAME_RULE = "use up to 48 of a-z, 0-9, '-' and '_', the first a letter or digit"
TaskName = Annotated[str, StringConstraints(pattern=rf"^{TASK_NAME.pattern}$")]


class Frozen(BaseModel):
    """A value that never changes, and is not quoted in errors about it: it may be secret."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Item(Frozen):
    """One question. Items of a `group` (the same fact, problem or prompt) never stand in two splits."""

    id: str
    text: str
    group: str


class LabelledItem(Item):
    """A question with its true answer."""

    label: Literal[0, 1]


class FineTuning(Frozen):
    """How a model is fine-tuned to answer with one of two label tokens."""

    model_config = ConfigDict(extra="forbid")

    epochs: float = Field(gt=0)
    lr: float = Field(gt=0)
    batch_size: int = Field(32, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps over which the learning rate rises.")
    lora_rank: int = Field(0, ge=0, description="Rank of the LoRA adapters; 0 trains all weights.")
    lora_layers: int = Field(0, ge=0, description="How many of the top layers have adapters; 0 is all of them.")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice: slower, in far less memory.")


class TaskCard(Frozen):
    """All that is public about a task. `fingerprint` ties receipts and baselines to exactly these items and labels."""

    name: TaskName
    kind: Literal["math", "chat", "code"]
    question: str
    template: str = Field(description="The prompt; {text} stands for the item's text.")
    label_words: tuple[str, str] = Field(description="The tokens that mean 0 and 1 in fine-tuning.")
    zero_shot_words: tuple[str, str] = Field(description="The tokens that mean 0 and 1 to the untrained student.")
    teacher: str = Field(description="Name or folder of the teacher's base model.")
    student: str = Field(description="Name or folder of the student's base model.")
    teacher_tuning: FineTuning
    student_tuning: FineTuning
    max_tokens: int = Field(512, gt=0, description="Longest prompt, in tokens.")
    pool_size: int
    test_size: int
    seeds: tuple[int, ...] = Field((), description="Seeds of a full run; each has its own teacher and weak labels.")
    source: str = Field("", description="Where the items come from, and their licence.")
    data: DataFacts | None = Field(None, description="What is public about real data; None where items are generated.")
    fingerprint: str = ""


class SeedBaseline(Frozen):
    """Accuracies for one seed on the whole test split and on its public half; all in [0, 1]."""

    seed: int
    weak: float
    ceiling: float
    weak_public: float
    ceiling_public: float


class SanityLine(Frozen):
    """What something that learns nothing from the teacher would score: a line to hold methods against."""

    name: str
    accuracy: float = Field(ge=0, le=1, description="On the public half of the test items.")


class Baselines(Frozen):
    """The two fixed ends of PGR's scale, and lines in between and below."""

    fingerprint: str
    per_seed: tuple[SeedBaseline, ...]
    lines: tuple[SanityLine, ...] = ()
    design_effect: float = Field(
        1.0, ge=1, description="By how much groups raise the variance of an accuracy on the public half."
    )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that the baselines cover, sorted."""
        return tuple(sorted(one.seed for one in self.per_seed))

    @property
    def weak_acc(self) -> float:
        """Mean accuracy of the teachers on the test split."""
        return float(np.mean([one.weak for one in self.per_seed]))

    @property
    def ceiling_acc(self) -> float:
        """Mean accuracy on the test split of students trained on the truth."""
        return float(np.mean([one.ceiling for one in self.per_seed]))


class PublicTask(Frozen):
    """A task as agents and their methods see it: unlabelled items and weak labels."""

    card: TaskCard
    pool: tuple[Item, ...]
    folder: Path

    def weak_labels(self, seed: int) -> Floats:
        """P(label = 1) for each pool item, by the teacher of `seed`. Shape (n,), values in [0, 1].

        Raises:
            NotFoundError: no teacher was trained with this seed.
        """
        if seed not in self.card.seeds:
            raise NotFoundError(f"task {self.card.name!r} has no weak labels for seed {seed}; seeds: {self.card.seeds}")
        with np.load(self.folder / "weak_labels.npz", allow_pickle=False) as arrays:
            return np.asarray(arrays[f"seed_{seed}"], dtype=np.float64)


class SecretTask(Frozen):
    """A task as the vault holds it."""

    train: tuple[LabelledItem, ...]
    pool_labels: tuple[int, ...]
    test: tuple[LabelledItem, ...]
    public_half: tuple[int, ...] = Field(description="Indices of the test items that `evaluate` scores, sorted.")

    @cached_property
    def test_labels(self) -> NDArray[np.int64]:
        """Truth of the test items. Shape (n,), not to be changed."""
        labels = np.array([item.label for item in self.test], dtype=np.int64)
        labels.flags.writeable = False
        return labels

    def public_mask(self) -> NDArray[np.bool_]:
        """Which test items are in the public half. Shape (n,)."""
        mask = np.zeros(len(self.test), dtype=np.bool_)
        mask[list(self.public_half)] = True
        return mask


Parsed = TypeVar("Parsed")
_ITEMS = TypeAdapter(tuple[Item, ...])


def fingerprint(card: TaskCard, pool: tuple[Item, ...], secret: SecretTask) -> str:
    """SHA-256 over everything that a result depends on, but for the weak labels, which follow from it and the seeds."""
    absent = {"data"} if card.data is None else set()
    fixed = card.model_dump(mode="json", exclude={"fingerprint", "seeds"} | absent)
    for tuning in (fixed["teacher_tuning"], fixed["student_tuning"]):
        del tuning["gradient_checkpointing"]  # saves memory, changes no result
        if not tuning["lora_layers"]:  # all of them, as before there was a choice
            del tuning["lora_layers"]
    return hashlib.sha256(
        canonical_json([fixed, [item.model_dump() for item in pool], secret.model_dump(mode="json")])
    ).hexdigest()


def with_fingerprint(card: TaskCard, pool: tuple[Item, ...], secret: SecretTask) -> TaskCard:
    """The card with the fingerprint of just this task."""
    return card.model_copy(update={"fingerprint": fingerprint(card, pool, secret)})


def split_in_halves(labels: list[int], seed: int) -> tuple[int, ...]:
    """Indices of the public half of the test items: random, with each class split evenly."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in (0, 1):
        indices = rng.permutation([i for i, value in enumerate(labels) if value == label])
        chosen += indices[: (len(indices) + label) // 2].tolist()
    return tuple(sorted(chosen))


def task_names(home: Path) -> list[str]:
    """The tasks in this home folder that are complete, sorted."""
    return sorted(card.parent.name for card in (home / "data").glob("*/card.json"))


def prepared_names(home: Path) -> list[str]:
    """The tasks that lie in the vault and are not calibrated yet, sorted."""
    done = set(task_names(home))
    return sorted({path.parent.name for path in (home / "vault").glob("*/prepared.json")} - done)


def default_task(home: Path) -> str:
    """The task that an empty name stands for: the only one, or else the one that was made last.

    Raises:
        NotFoundError: there is none yet.
        InvalidInputError: there are several, and the one that was made last was removed.
    """
    names = task_names(home)
    if len(names) == 1:
        return names[0]
    if not names:
        waiting = ", ".join(prepared_names(home))
        first = f"{waiting} is prepared and has to be calibrated" if waiting else "there is no task yet"
        raise NotFoundError(f"{first}; the operator makes one with `outlearn prepare` or `calibrate`")
    newest = _newest(home)
    if newest not in names:
        raise InvalidInputError(f"there are several tasks, name one of them: {', '.join(names)}")
    return newest


def load_card(home: Path, name: str) -> TaskCard:
    """Read a task's card alone. Raises NotFoundError, or IntegrityError where it is damaged."""
    path, version = _find_card(home, name)
    card: TaskCard = _parse_version(TaskCard.model_validate_json, path, version)
    return card


def load_public(home: Path, name: str) -> PublicTask:
    """Read `data/<name>/`. Raises NotFoundError, or IntegrityError where a file is damaged."""
    card, folder = load_card(home, name), home / "data" / name
    return PublicTask(card=card, pool=_parse(_ITEMS.validate_json, folder / "pool.json"), folder=folder)


def load_secret(home: Path, name: str) -> SecretTask:
    """Read `vault/<name>/`. Raises NotFoundError, or IntegrityError where a file is damaged."""
    return _parse(SecretTask.model_validate_json, _folder(home / "vault", name, home) / "secret.json")


def load_baselines(home: Path, name: str) -> Baselines:
    """Read the calibrated baselines of a task.

    Raises:
        NotFoundError: there is no such task.
        IntegrityError: the baselines belong to other items or labels.
    """
    card = load_card(home, name)
    baselines = _remembered(Baselines.model_validate_json, _folder(home / "vault", name, home) / "baselines.json")
    if baselines.fingerprint != card.fingerprint:
        raise IntegrityError(f"the baselines of task {name!r} are for other data; run `outlearn calibrate {name}`")
    return baselines


def write_task(
    home: Path,
    card: TaskCard,
    pool: tuple[Item, ...],
    secret: SecretTask,
    weak_labels: dict[int, Floats],
    baselines: Baselines,
) -> TaskCard:
    """Write a calibrated task, the public card last: a task without its card does not exist yet. Idempotent.

    Raises:
        ConflictError: a task of this name, but with other contents, is there.
        IntegrityError: the baselines are for other data, or for other seeds than the weak labels.
    """
    card = with_fingerprint(card, pool, secret).model_copy(update={"seeds": tuple(sorted(weak_labels))})
    data, vault = home / "data" / card.name, home / "vault" / card.name
    if baselines.fingerprint != card.fingerprint or baselines.seeds != card.seeds:
        raise IntegrityError(f"the baselines given for task {card.name!r} are for other data or seeds; calibrate anew")
    if card.name in task_names(home) and not _is_same(home, card, weak_labels, baselines):
        raise ConflictError(
            f"task {card.name!r} is in {str(home)!r} already, with other contents; use another home folder"
        )
    private_folder(home)
    private_folder(vault.parent)
    write_atomic(vault / "secret.json", secret.model_dump_json().encode(), mode=0o600)
    write_atomic(vault / "baselines.json", baselines.model_dump_json(indent=1).encode(), mode=0o600)
    seal_task(vault, card.fingerprint, len(secret.public_half))
    write_atomic(data / "pool.json", _ITEMS.dump_json(pool))
    arrays = io.BytesIO()
    np.savez_compressed(arrays, allow_pickle=False, **{f"seed_{seed}": p for seed, p in weak_labels.items()})
    write_atomic(data / "weak_labels.npz", arrays.getvalue())
    write_atomic(data.parent / NEWEST, card.name.encode())
    write_atomic(data / "card.json", card.model_dump_json(indent=1).encode())
    return card


def _newest(home: Path) -> str:
    """The task that was written last; it may be there no more."""
    path = home / "data" / NEWEST
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _folder(parent: Path, name: str, home: Path) -> Path:
    _find_card(home, name)
    return parent / name


def _find_card(home: Path, name: str) -> tuple[Path, FileVersion]:
    path = _card_path(home, name) if TASK_NAME.fullmatch(name) else None
    if path is None or (version := file_version(path)) is None:
        raise NotFoundError(f"no task {name!r}; there are: {', '.join(task_names(home)) or 'none yet'}")
    return path, version


@lru_cache(maxsize=64)
def _card_path(home: Path, name: str) -> Path:
    return home / "data" / name / "card.json"


def _is_same(home: Path, card: TaskCard, weak_labels: dict[int, Floats], baselines: Baselines) -> bool:
    """Whether `home` has just this task. Fingerprints cover items and labels, but not what training made of them."""
    known = load_public(home, card.name)
    return (
        known.card == card
        and load_baselines(home, card.name) == baselines
        and all(np.array_equal(known.weak_labels(seed), weak_labels[seed]) for seed in card.seeds)
    )


def _remembered(validate: Callable[[bytes], Parsed], path: Path) -> Parsed:
    """Parse a small file that is asked for again and again, once for each version of it."""
    version = file_version(path)
    if version is None:
        return _parse(validate, path)  # it may be there by now, and is of no version that is known
    parsed: Parsed = _parse_version(validate, path, version)
    return parsed


@lru_cache(maxsize=64)
def _parse_version(validate: Callable[[bytes], Parsed], path: Path, _version: FileVersion) -> Parsed:
    return _parse(validate, path)


def _parse(validate: Callable[[bytes], Parsed], path: Path) -> Parsed:
    try:
        return validate(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{str(path)!r} is missing; run `outlearn calibrate`") from None
    except ValidationError as error:
        raise IntegrityError(f"{str(path)!r} is damaged: {problems(error)}") from error
