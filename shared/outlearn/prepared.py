"""Tasks that are prepared but not calibrated. They lie wholly in the vault, so no agent sees a half-made task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from outlearn.errors import ConflictError, IntegrityError, NotFoundError
from outlearn.files import private_folder, write_atomic
from outlearn.hints import command_line, problems
from outlearn.locks import locked
from outlearn.tasks import (
    Frozen,
    Item,
    LabelledItem,
    SecretTask,
    TaskCard,
    fingerprint,
    load_card,
    split_in_halves,
    task_names,
    with_fingerprint,
)

Parts = tuple[TaskCard, tuple[Item, ...], SecretTask]


class Prepared(Frozen):
    """`prepared.json`: the public part of the task, and the recipe that it was made by."""

    card: TaskCard
    pool: tuple[Item, ...]
    recipe: dict[str, Any]


def hide_labels(
    train: Sequence[LabelledItem], pool: Sequence[LabelledItem], test: Sequence[LabelledItem], seed: int
) -> tuple[tuple[Item, ...], SecretTask]:
    """The pool as agents see it, and all that they do not; `seed` chooses the public half of the test items."""
    secret = SecretTask(
        train=tuple(train),
        pool_labels=tuple(item.label for item in pool),
        test=tuple(test),
        public_half=split_in_halves([item.label for item in test], seed),
    )
    return tuple(Item(id=item.id, text=item.text, group=item.group) for item in pool), secret


def read_prepared(home: Path, name: str) -> Prepared | None:
    """The public part of a prepared task; None where there is none. Raises IntegrityError where it is damaged."""
    path = home / "vault" / name / "prepared.json"
    try:
        return Prepared.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise IntegrityError(
            f"{str(path)!r} is damaged; remove it and run `outlearn prepare` again: {problems(error)}"
        ) from error


def load_prepared(home: Path, name: str) -> Parts:
    """A prepared task: its card (without seeds), pool items and ground truth.

    Raises:
        NotFoundError: no task of this name was prepared.
        IntegrityError: a file is damaged, or they do not belong together.
    """
    prepared, path = read_prepared(home, name), home / "vault" / name / "secret.json"
    if prepared is None:
        prepare = command_line("outlearn", "prepare", name)
        raise NotFoundError(f"no prepared task {name!r} in {str(home)!r}; run `{prepare} --source ...`")
    try:
        secret = SecretTask.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise IntegrityError(f"{str(path)!r} is missing; prepare the task in another home") from error
    except ValidationError as error:
        raise IntegrityError(f"{str(path)!r} is damaged: {problems(error)}") from error
    if fingerprint(prepared.card, prepared.pool, secret) != prepared.card.fingerprint:
        raise IntegrityError(f"the vault's files of task {name!r} do not belong together; prepare it in another home")
    return prepared.card, prepared.pool, secret


def write_prepared(home: Path, parts: Parts, recipe: Mapping[str, Any], report: str) -> TaskCard:
    """Write a prepared task to the vault, `prepared.json` last. The same task a second time changes nothing.

    Args:
        report: JSON for the operator, kept beside it.

    Raises:
        ConflictError: the home folder has a task of this name with other contents.
    """
    card, pool, secret = parts
    card = with_fingerprint(*parts).model_copy(update={"seeds": ()})
    folder = home / "vault" / card.name
    private_folder(home)
    private_folder(folder.parent)
    with locked(folder / "prepared.json"):
        known = read_prepared(home, card.name)
        if known and known.card.fingerprint == card.fingerprint:
            return known.card
        if known or (card.name in task_names(home) and load_card(home, card.name).fingerprint != card.fingerprint):
            raise ConflictError(
                f"task {card.name!r} is in {str(home)!r} already, made of other data or in another way; "
                "use another name or another home folder"
            )
        prepared = Prepared(card=card, pool=pool, recipe=dict(recipe))
        write_atomic(folder / "secret.json", secret.model_dump_json().encode(), mode=0o600)
        write_atomic(folder / "report.json", report.encode(), mode=0o600)
        write_atomic(folder / "card.md", card_markdown(card).encode(), mode=0o600)
        write_atomic(folder / "prepared.json", prepared.model_dump_json().encode(), mode=0o600)
    return card


def card_markdown(card: TaskCard) -> str:
    """The card for people. It has nothing that agents may not see: no test item, no label, no share of a label."""
    lines = [f"# Task {card.name}", "", f"{card.question} ({card.kind})", "", "| | |", "|---|---|"]
    facts: dict[str, object] = {
        "pool items": f"{card.pool_size:,}",
        "test items": f"{card.test_size:,}",
        "label words (0, 1)": " ".join(f"`{word}`" for word in card.label_words),
        "teacher": card.teacher,
        "student": card.student,
        "longest prompt": f"{card.max_tokens:,} tokens",
        "fingerprint": f"`{card.fingerprint}`",
    }
    if data := card.data:
        lengths = data.pool_characters
        facts |= {
            "source": data.source,
            "licence": data.licence or "not stated",
            "sha256 of the source": f"`{data.source_sha256}`",
            "rows read": f"{data.rows:,} ({data.skipped_rows:,} of them malformed and skipped)",
            "duplicates left out": f"{data.duplicates:,}",
            "left out, with both labels": f"{data.contradictions:,}",
            "labelled training items": f"{data.train_size:,} from {data.train_groups:,} groups",
            "groups in pool / test": f"{data.pool_groups:,} / {data.test_groups:,}; none in two splits",
            "labels": "balanced in each split" if data.balanced else "as the source has them",
            "pool text, characters": f"median {lengths.median:,}, 95 % up to {lengths.p95:,}, all {lengths.longest:,}",
        }
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    return "\n".join([*lines, "", "The prompt, `{text}` standing for an item:", "", "```", card.template, "```", ""])
