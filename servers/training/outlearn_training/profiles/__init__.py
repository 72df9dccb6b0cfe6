"""Profiles: which models a task is worked on with, and how they are fine-tuned. Each is a TOML file."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.tasks import FineTuning

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
        for key, value in (changes or {}).items():
            _set(values, key.split("."), value)
        return Profile.model_validate(values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise InvalidInputError(f"profile {name!r}: {error}") from error


def _set(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise InvalidInputError(f"{'.'.join(keys)!r} is not a field of a profile")
    values[keys[-1]] = value
