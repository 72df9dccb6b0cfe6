"""Verified results: the evaluation server publishes them, signed; everybody else can only read them."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

from pydantic import Field

from outlearn.errors import IntegrityError, NotFoundError
from outlearn.files import FileVersion, file_version, write_atomic
from outlearn.growing import NewLines, add_line
from outlearn.identity import AgentName
from outlearn.receipts import RUN_ID, RunId
from outlearn.signing import PublicSigner, Signed, check_public, parse_signed

PUBLIC_KEY = "public.key"


class VerifiedResult(Signed):
    """The evaluation server's number for a run, computed from its receipts."""

    run_id: RunId
    agent: AgentName
    method: str
    task: str
    seeds: int
    pgr: float = Field(
        allow_inf_nan=False, description="Performance gap recovered: 0 is the teacher's level, 1 the ceiling's."
    )
    at_most: bool = Field(False, description="`pgr` is no more than this, and may be anything below.")
    pgr_se: float = Field(ge=0, allow_inf_nan=False, description="Standard error of pgr.")
    withheld: bool = Field(False, description="It does not count until the operator has reviewed its run.")

    def __str__(self) -> str:
        return f"PGR {pgr_text(self.pgr, self.at_most)} ± {self.pgr_se:.2f} ({self.seeds} seeds)"


def pgr_text(pgr: float, at_most: bool) -> str:
    """PGR as it is shown: `0.45`, or `<=0.10` where no more than that is told."""
    return f"{'<=' if at_most else ''}{pgr:.2f}"


class ResultBook:
    """Published results: a file of signed lines, and the public key that proves them. Reading needs no vault."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "results"
        self._path, self._key_path = results_file(home), self._folder / PUBLIC_KEY
        self._vault = home / "vault"
        self._new = NewLines(self._path)
        self._lines: dict[str, list[bytes]] = {}  # by run, oldest first
        self._checked: dict[str, tuple[bytes, str, VerifiedResult]] = {}  # by the newest line, and this public key
        self._key: tuple[FileVersion | None, str] = (None, "")
        self._lock = Lock()

    @cached_property
    def _signer(self) -> PublicSigner:
        return PublicSigner.from_vault(self._vault, "result")

    def publish(self, result: VerifiedResult) -> VerifiedResult:
        """Sign and file a result. Only the evaluation server calls this. What a machine that loses power forgets can be
        published again.

        Raises OSError where the disk is full.
        """
        signed = self._signer.sign(result)
        self.file(signed.model_dump_json().encode())
        return signed

    def sign(self, result: VerifiedResult) -> bytes:
        """The line that `publish` would `file`."""
        return self._signer.sign(result).model_dump_json().encode()

    def file(self, line: bytes) -> None:
        """Publish a result that was signed before. Raises OSError where the disk is full."""
        if self._read_key() != self._signer.public_key:
            write_atomic(self._key_path, self._signer.public_key.encode())
        add_line(self._path, line)

    def lookup(self, run_id: str) -> VerifiedResult | None:
        """The verified result of a run, the newest of several, or None where it was never evaluated.

        Raises:
            OutdatedError: another version of outlearn wrote what there is.
            IntegrityError: it is damaged, or no evaluation server of this home wrote it.
        """
        lines = self._of(run_id)
        if not lines:
            return None
        public_key = self._public_key()
        known = self._checked.get(run_id)
        if known is None or known[:2] != (lines[-1], public_key):
            known = lines[-1], public_key, _newest(lines, run_id, public_key)
            self._checked[run_id] = known
        return known[2]

    def has(self, run_id: str) -> bool:
        """Whether a result of this run was published, whatever became of it."""
        return bool(self._of(run_id))

    def _of(self, run_id: str) -> Sequence[bytes]:
        with self._lock:
            anew, added = self._new.read()
            if anew:
                self._lines, self._checked = {}, {}
            for line in added:
                if named := _run_of(line):
                    self._lines.setdefault(named, []).append(line)
            return tuple(self._lines.get(run_id, ()))

    def _public_key(self) -> str:
        key = self._read_key()
        if key is None:
            raise IntegrityError(f"no {PUBLIC_KEY!r} beside the published results: nothing proves them")
        return key

    def _read_key(self) -> str | None:
        version = file_version(self._key_path)
        if version is None:
            return None
        if self._key[0] != version:
            self._key = version, self._key_path.read_text(errors="replace")
        return self._key[1]


def results_file(home: Path) -> Path:
    """Where the results of a home folder are published."""
    return home / "results" / "results.jsonl"


def _run_of(line: bytes) -> str:
    """The run that a line names; empty where it names none. Whoever can write to the file may have written it."""
    try:
        named = str(json.loads(line)["run_id"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return named if RUN_ID.fullmatch(named) else ""


def _newest(lines: Sequence[bytes], run_id: str, public_key: str) -> VerifiedResult:
    """The newest result that is signed. Where none is, what is wrong with the newest line is raised."""
    wrong: IntegrityError | None = None
    for line in reversed(lines):
        try:
            what = f"the published result of {run_id!r}"
            result = parse_signed(VerifiedResult, line, what, "evaluate it again, which is free")
            check_public(result, public_key)
            if result.run_id != run_id:
                raise IntegrityError(f"{what} is of {result.run_id!r}")
        except IntegrityError as error:
            wrong = wrong or error
        else:
            return result
    raise wrong or NotFoundError(f"no result of {run_id!r} is published")
