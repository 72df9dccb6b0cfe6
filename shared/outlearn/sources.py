"""The contract of data sources (entry-point group `outlearn.sources`), and what a task card says about its data.

A source reads somebody's files and yields one `Example` or one `BadRow` for each row; everything else (checks,
duplicates, splits, balance, cards) is done by `outlearn prepare`, the same for all sources.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from outlearn.errors import InvalidInputError

Kind = Literal["math", "chat", "code"]
KINDS: tuple[Kind, ...] = ("math", "chat", "code")
OnShare = Callable[[float], None]

NOT_UTF8 = "not UTF-8"
BAD_SYNTAX = "bad syntax"
MISSING_COLUMN = "missing column"
EMPTY_TEXT = "empty text"
NO_TEXT = "no text"
BAD_LABEL = "label outside the two classes"
DUPLICATE_ID = "duplicate id"
UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a claim with its truth (one response), or two responses of which one is better.

    For a claim, `label` is 1 where the response is correct; for a comparison it is the index of the better response.
    `group` is what must stay in one split: the question, the problem. `prompt` may be empty for a claim.
    """

    line: int
    group: str
    prompt: str
    responses: tuple[str, ...]
    label: int
    id: str = ""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used. `line` counts from 1; `detail` never quotes the row's text."""

    line: int
    reason: str
    detail: str = ""


Row = Example | BadRow


@dataclass(frozen=True)
class SourceRequest:
    """What the user asked a source for.

    `columns` maps roles (`prompt`, `label`, ...) to the file's columns, `classes` are the two values that mean 0 and 1,
    `options` are the source's own, `vault` is what no program that a source runs may read.
    """

    files: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[str, str] | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    vault: Path = Path("vault")
    on_share: OnShare = lambda _share: None

    def one_file(self) -> Path:
        """The one file that was named. Raises InvalidInputError."""
        if len(self.files) != 1:
            raise InvalidInputError(f"this source reads one file, not {len(self.files)}; name it with --file")
        return self.files[0]

    def number(self, name: str, default: int) -> int:
        """An option that is a whole number of at least 1. Raises InvalidInputError."""
        text = self.options.get(name, str(default))
        if not text.isdecimal() or int(text) < 1:
            raise InvalidInputError(f"option {name}={text!r} must be a whole number, 1 or more")
        return int(text)


class Source(Protocol):
    """Reads rows. `kind` is None where the user says what the data is; `options` names the options it takes."""

    @property
    def kind(self) -> Kind | None:
        """What its tasks are about."""

    @property
    def licence(self) -> str:
        """The data's licence, and whose it is; empty where only the user knows."""

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that it takes."""

    def rows(self, request: SourceRequest) -> Iterator[Row]:
        """All rows, in the source's order, in bounded memory. Raises OutlearnError where it cannot be read at all."""


class Lengths(BaseModel):
    """Lengths of texts in characters."""

    model_config = ConfigDict(frozen=True)

    median: int
    p95: int
    longest: int


class DataFacts(BaseModel):
    """What is public about a task's data. It says nothing about any test item, nor how often a label occurs."""

    model_config = ConfigDict(frozen=True)

    source: str
    licence: str
    source_sha256: str = Field(description="Of the file; of the rows, in order, where there is no file.")
    rows: int
    skipped_rows: int
    duplicates: int = Field(description="Items left out because the same item, or nearly the same, stands before them.")
    contradictions: int = Field(description="Items left out because the source has them with both labels.")
    train_size: int
    train_groups: int
    pool_groups: int
    test_groups: int
    balanced: bool = Field(description="Both labels occur equally often in each split.")
    pool_characters: Lengths
