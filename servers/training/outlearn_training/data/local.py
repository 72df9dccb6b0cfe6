"""Anyone's data: a file, and which of its columns mean what.

Roles that `--map` gives columns to, one of these sets:
- `prompt`, `response`, `label`: is the response correct (or good)?
- `text`, `label`: the same for a text that is composed already;
- `prompt`, `a`, `b`, `label`: which response is better?
- `prompt`, `chosen`, `rejected`: the same, as preference sets often have it.
`group` (default: the prompt; a text is its own group) and `id` may be added to each. A column inside of another is
written with a dot, as in `answer.text`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlearn.errors import InvalidInputError
from outlearn.sources import BAD_LABEL, MISSING_COLUMN, NO_TEXT, BadRow, Example, Kind, Row, SourceRequest
from outlearn_training.data.files import Record, records

SHAPES: tuple[frozenset[str], ...] = (
    frozenset({"prompt", "response", "label"}),
    frozenset({"text", "label"}),
    frozenset({"prompt", "a", "b", "label"}),
    frozenset({"prompt", "chosen", "rejected"}),
)
OPTIONAL = frozenset({"group", "id"})
CLAIM_CLASSES = {"false": 0, "0": 0, "no": 0, "incorrect": 0, "true": 1, "1": 1, "yes": 1, "correct": 1}
PAIR_CLASSES = {"a": 0, "b": 1}
TEXTS = ("prompt", "text", "response", "a", "b", "chosen", "rejected")
NAMED = 12
OTHERS = "--classes ZERO,ONE names the two values that it has"


@dataclass(frozen=True)
class Local:
    """Any local file with a column mapping."""

    kind: Kind | None = None
    licence: str = ""
    options: tuple[str, ...] = ("split",)

    def rows(self, request: SourceRequest) -> Iterator[Row]:
        """All rows of the one file. Raises InvalidInputError where the mapping is none of `SHAPES`."""
        shape = shape_of(request.columns)
        classes = _classes(request.classes, pairs="a" in shape)
        split = request.options.get("split", "")
        for line, record in records(request.one_file(), request.on_share, split):
            yield record if isinstance(record, BadRow) else to_row(line, record, request.columns, classes)


SOURCE = Local()


def shape_of(columns: Mapping[str, str]) -> frozenset[str]:
    """Which of `SHAPES` a mapping has. Raises InvalidInputError."""
    roles = frozenset(columns) - OPTIONAL
    if roles not in SHAPES:
        known = "; ".join(",".join(f"{role}=COLUMN" for role in sorted(shape)) for shape in SHAPES)
        raise InvalidInputError(f"--map has the roles {sorted(columns)}; it needs one of: {known}; and group, id")
    return roles


def to_row(line: int, record: Record, columns: Mapping[str, str], classes: Mapping[str, int]) -> Row:
    """A record as an example, by the mapping."""
    values = {role: _value(record, column) for role, column in columns.items()}
    missing = [columns[role] for role, value in values.items() if value is None]
    if missing:
        return BadRow(line, MISSING_COLUMN, f"no {', '.join(map(repr, missing))}{_there_are(record, missing)}")
    if others := [columns[role] for role in TEXTS if role in values and not _is_text(values[role])]:
        return BadRow(line, NO_TEXT, f"column {', '.join(map(repr, others))}: neither text nor a whole number")
    known = {role: value if isinstance(value, str) else _plain(value) for role, value in values.items()}
    label = 0 if "chosen" in known else classes.get(_plain(values["label"]))
    if label is None:
        return BadRow(line, BAD_LABEL, f"column {columns['label']!r} has none of {', '.join(classes)}; {OTHERS}")
    responses = tuple(known[role] for role in TEXTS[1:] if role in known)
    prompt = known.get("prompt", "")
    return Example(line, known.get("group", prompt or responses[0]), prompt, responses, label, known.get("id", ""))


def _classes(given: tuple[str, str] | None, *, pairs: bool) -> Mapping[str, int]:
    if given is None:
        return PAIR_CLASSES if pairs else CLAIM_CLASSES
    zero, one = (_plain(value) for value in given)
    if zero == one:
        raise InvalidInputError(f"--classes {zero!r} and {one!r} are the same; give the values that mean 0 and 1")
    return {zero: 0, one: 1}


def _value(record: Record, column: str) -> Any:
    """The value in a column, or in `outer.inner`; None where there is none."""
    value: Any = record
    if column in record:
        return record[column]
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _there_are(record: Record, missing: Sequence[str]) -> str:
    """The columns of a record that lacks one; nothing where it has all and the values are missing."""
    if all(column in record for column in missing):
        return ""
    more = f" and {len(record) - NAMED} more" if len(record) > NAMED else ""
    return f"; there are {', '.join(map(repr, [*record][:NAMED]))}{more}"


def _is_text(value: Any) -> bool:
    """Whether a value can be shown as it is: an answer may be a number, and whole ones are written in one way only."""
    return isinstance(value, str) or type(value) is int


def _plain(value: Any) -> str:
    """A value as it is compared with the classes: 1, 1.0, "1" and True are told apart from words only."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower()
