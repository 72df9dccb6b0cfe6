"""Profiles: which models a task is worked on with, and how they are fine-tuned. Each is a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.tasks import FineTuning, TaskCard

SHIPPED = Path(__file__).parent


class Profile(BaseModel):
    """Two models and their fine-tuning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str = Field(description="A Hugging Face name, a folder, or `tiny/...`.")
    student: str
    max_tokens: int = Field(gt=0)
    teacher_tuning: FineTuning
    student_tuning: FineTuning


def profile_names() -> list[str]:
    """The profiles that ship with outlearn."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def load_profile(name: str, changes: Mapping[str, Any] | None = None) -> Profile:
    """A shipped profile by name, or a TOML file by path, with `changes` such as {"student_tuning.lr": 1e-4} on top.

    Raises:
        NotFoundError: there is no such profile.
        InvalidInputError: the file or a change is wrong.
    """
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not path.is_file() or (path.parent == SHIPPED and path.stem not in profile_names()):
        raise NotFoundError(f"no profile {name!r}; there are {', '.join(profile_names())}, or give a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"profile {name!r} is no TOML: {error}") from error
    return _change(values, changes or {}, f"profile {name!r}")


def choose_profile(card: TaskCard, name: str | None = None, changes: Mapping[str, Any] | None = None) -> TaskCard:
    """The card with another profile, or with its own one, and `changes` on top. Fingerprint and seeds are left alone.

    Raises:
        NotFoundError, InvalidInputError: as `load_profile`.
    """
    if name:
        profile = load_profile(name, changes)
    else:
        own = card.model_dump(include=set(Profile.model_fields), mode="json")
        profile = _change(own, changes or {}, f"task {card.name!r}")
    return card.model_copy(update={field: getattr(profile, field) for field in Profile.model_fields})


def profile_fields() -> list[str]:
    """The names that changes may have, such as `student_tuning.lr`."""
    tunings = {name for name, field in Profile.model_fields.items() if field.annotation is FineTuning}
    plain = [name for name in Profile.model_fields if name not in tunings]
    return plain + [f"{name}.{field}" for name in sorted(tunings) for field in FineTuning.model_fields]


def _change(values: dict[str, Any], changes: Mapping[str, Any], what: str) -> Profile:
    for key, value in changes.items():
        if key not in profile_fields():
            raise InvalidInputError(f"{key!r} is not a field of a profile; there are: {', '.join(profile_fields())}")
        part, _, name = key.rpartition(".")
        owner = values.setdefault(part, {}) if part else values
        if isinstance(owner, dict):  # else the file is wrong, which is said below
            owner[name] = value
    try:
        return Profile.model_validate(values)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}, not {one['input']!r}" for one in error.errors())
        raise InvalidInputError(f"{what}: {'; '.join(wrong)}") from error
