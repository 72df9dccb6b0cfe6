"""The audit log: what detectors saw and operators decided, in the vault, one JSON record a line, chained by hashes."""

import hashlib
import math
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import IntegrityError
from outlearn.growing import NewLines
from outlearn.locks import locked
from outlearn.printable import printable

Action = Literal["note", "flag", "quarantine", "disqualify", "release"]
Evidence = dict[str, int | float | str]
Values = dict[str, object]
START = "0" * 64
MAX_ENTRIES, MAX_TEXT, MAX_NAME = 20, 300, 64


class AuditKind(StrEnum):
    """What is filed: by detectors, the sandbox, the filesystem server and the operator."""

    CANARY = "canary"
    COMMITMENT_REVEALED = "commitment revealed"
    DETECTOR_FAILED = "detector failed"
    DYNAMIC_CODE = "dynamic code"
    FLOOR_RATE = "floor rate"
    FORGED_RECEIPT = "forged receipt"
    FORUM_CLAIM = "forum claim"
    MAJORITY_ANSWER = "majority answer"
    NEAR_DUPLICATE = "near-duplicate"
    OPERATOR = "operator"
    OUTDATED_RECEIPT = "outdated receipt"
    PATH_REFUSED = "path refused"
    PRIVATE_HALF_OPENED = "private half opened"
    PUBLIC_PRIVATE_GAP = "public-private gap"
    RANDOM_MASKS = "random masks"
    REFUSED = "refused"
    SEEDS_ALIKE = "seeds alike"
    SEEDS_APART = "seeds apart"
    TEACHER_DEPENDENCE = "teacher dependence"
    TORN_LINE = "torn line"
    VAULT = "vault"
    WATERMARK = "watermark"


class AuditRecord(BaseModel):
    """One observation or decision. Texts in it may be an agent's: they are data, cut short and printable."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    kind: str = Field(description="One of `AuditKind`, or of another version's.")
    action: Action
    agent: str = ""
    run_id: str = ""
    task: str = ""
    evidence: Evidence = {}
    previous: str = Field(description="SHA-256 of the line before, without its end; zeros for the first.")


class AuditLog:
    """Appended to by every trusted process of a home folder, and read by the operator and the evaluation server.

    It is `audit-*.jsonl` in the vault, of a random name: who cannot list the vault cannot even ask for the log's size,
    and so does not learn of being seen.
    """

    def __init__(self, vault: Path) -> None:
        self._vault = vault
        self._first = vault / f"audit-{secrets.token_hex(8)}.jsonl"
        self._new = NewLines(self._first)
        self._records: tuple[AuditRecord, ...] = ()
        self._lock = Lock()

    @property
    def path(self) -> Path:
        """Where it is, or will be once somebody appends to it."""
        try:
            names = os.listdir(self._vault)  # noqa: PTH208  (asked often)
        except FileNotFoundError:
            names = []
        logs = [name for name in names if name.startswith("audit-") and name.endswith(".jsonl")]
        return self._vault / min(logs) if logs else self._first

    def begin(self) -> None:
        """Make an empty log where there is none: it is quicker to look for records then. Raises OSError as `append`."""
        with self._alone():
            pass

    def append(
        self,
        kind: str,
        action: Action,
        *,
        agent: str = "",
        run_id: str = "",
        task: str = "",
        evidence: Evidence | None = None,
    ) -> None:
        """Add a record. It is there whole or not at all; what a crash left of an earlier one is taken off first.

        Raises OSError where the disk is full or the vault cannot be written.
        """
        fields = {"kind": kind, "action": action, "agent": agent, "run_id": run_id, "task": task}
        values: Values = {name: _bounded(text, MAX_NAME) for name, text in fields.items()}
        values["evidence"] = _bound(evidence)
        with self._alone() as file:
            previous, torn = _end(file)
            if torn:
                os.ftruncate(file, os.fstat(file).st_size - torn)
                previous = _write(
                    file, previous, {"kind": AuditKind.TORN_LINE, "action": "note", "evidence": {"bytes": torn}}
                )
            _write(file, previous, values)

    def records(self) -> Sequence[AuditRecord]:
        """All records, oldest first; lines that are damaged, or not whole yet, are left out (`verify` tells them)."""
        with self._lock:
            anew, added = self._new.read()
            if anew and not added and (path := self.path) != self._new.path:  # no log was there, or it is there no more
                self._new = NewLines(path)
                anew, added = self._new.read()
            if anew or added:
                records = tuple(record for line in added if (record := _parse(line)))
                self._records = records if anew else self._records + records
            return self._records

    def verify(self) -> tuple[int, str]:
        """How many records there are, and the hash of the last: note it, and a log cut short will show.

        Raises IntegrityError where a line was changed, removed or added out of turn.
        """
        data = self.path.read_bytes() if self.path.exists() else b""
        *lines, torn = data.split(b"\n")
        previous = START
        for number, line in enumerate(lines, 1):
            record = _parse(line)
            if record is None or record.previous != previous:
                raise IntegrityError(
                    f"line {number} of {str(self.path)!r} does not follow from the one before it: the log was changed"
                )
            previous = _hash(line)
        if torn:
            raise IntegrityError(
                f"the last {len(torn)} bytes of {str(self.path)!r} are no whole record: a crash left them, and the "
                "next record takes their place"
            )
        return len(lines), previous

    @contextmanager
    def _alone(self) -> Iterator[int]:
        """The log's file, which is made where there is none; no other process appends meanwhile."""
        self._vault.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._vault / "audit"):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                yield file
            finally:
                os.close(file)


def _write(file: int, previous: str, values: Values) -> str:
    """Write a record and return its line's hash; the file is as before where that fails."""
    record = AuditRecord.model_validate({"at": datetime.now(UTC), "previous": previous, **values})
    line, size = record.model_dump_json().encode(), os.fstat(file).st_size
    try:
        left = line + b"\n"
        while left:
            left = left[os.write(file, left) :]
        os.fsync(file)
    except OSError:
        os.ftruncate(file, size)
        raise
    return _hash(line)


def _end(file: int) -> tuple[str, int]:
    """The hash of the last whole line, and how many bytes of a torn one stand after it."""
    size = os.fstat(file).st_size
    tail, start = b"", size
    while start and tail.count(b"\n") < 2:
        step = min(start, 4096)
        start -= step
        tail = os.pread(file, step, start) + tail
    *lines, torn = tail.split(b"\n")
    return (_hash(lines[-1]) if lines else START), len(torn)


def _parse(line: bytes) -> AuditRecord | None:
    try:
        return AuditRecord.model_validate_json(line)
    except ValidationError:
        return None


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _bound(evidence: Evidence | None) -> Evidence:
    """At most 20 values: numbers, and texts cut at 300 characters."""
    first = list((evidence or {}).items())[:MAX_ENTRIES]
    return {_bounded(name, MAX_NAME): _plain(value) for name, value in first}


def _plain(value: int | float | str) -> int | float | str:
    """The value, or its text where JSON has no such number."""
    return value if isinstance(value, int | float) and math.isfinite(value) else _bounded(str(value), MAX_TEXT)


def _bounded(text: str, limit: int) -> str:
    return printable(text[:limit])
