"""Verified results: the evaluation server publishes them, signed; everybody else can only read them."""

from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pydantic import Field

from outlearn.errors import IntegrityError
from outlearn.files import FileVersion, file_version, write_atomic
from outlearn.identity import AgentName
from outlearn.receipts import RUN_ID, RunId
from outlearn.signing import PublicSigner, Signed, check_public, parse_signed

PUBLIC_KEY = "public.key"
Version = tuple[FileVersion, str]


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
    evaluated_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    def __str__(self) -> str:
        return f"PGR {pgr_text(self.pgr, self.at_most)} ± {self.pgr_se:.2f} ({self.seeds} seeds)"


def pgr_text(pgr: float, at_most: bool) -> str:
    """PGR as it is shown: `0.45`, or `<=0.10` where no more than that is told."""
    return f"{'<=' if at_most else ''}{pgr:.2f}"


class ResultBook:
    """Published results, one signed file a run, and the public key that proves them. Reading needs no vault."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "results"
        self._vault = home / "vault"
        self._checked: dict[str, tuple[Version, VerifiedResult]] = {}
        self._key: tuple[FileVersion | None, str] = (None, "")

    @cached_property
    def _signer(self) -> PublicSigner:
        return PublicSigner.from_vault(self._vault, "result")

    def publish(self, result: VerifiedResult) -> VerifiedResult:
        """Sign and file a result. Only the evaluation server calls this."""
        signed = self._signer.sign(result)
        if self._read_key() != self._signer.public_key:
            write_atomic(self._folder / PUBLIC_KEY, self._signer.public_key.encode())
        path = self._folder / f"{result.run_id}.json"
        write_atomic(path, signed.model_dump_json().encode(), durable=False)  # it can be published again
        return signed

    def lookup(self, run_id: str) -> VerifiedResult | None:
        """The verified result of a run, or None where it was never evaluated.

        Raises:
            OutdatedError: another version of outlearn wrote the file.
            IntegrityError: the file is damaged, or no evaluation server of this home wrote it.
        """
        if not RUN_ID.fullmatch(run_id):
            return None
        path = self._folder / f"{run_id}.json"
        if (of_file := file_version(path)) is None:
            return None
        version = of_file, self._public_key()
        known, result = self._checked.get(run_id, (None, None))
        if known != version:
            result = self._read(path, run_id, version[1])
            self._checked[run_id] = version, result
        return result

    def has(self, run_id: str) -> bool:
        """Whether a result of this run was published, whatever became of it."""
        return bool(RUN_ID.fullmatch(run_id)) and (self._folder / f"{run_id}.json").exists()

    def _read(self, path: Path, run_id: str, public_key: str) -> VerifiedResult:
        what = f"the published result of {run_id!r}"
        result = parse_signed(VerifiedResult, path.read_bytes(), what, "evaluate it again, which is free")
        check_public(result, public_key)
        if result.run_id != run_id:
            raise IntegrityError(f"the result filed under {run_id!r} is of {result.run_id!r}")
        return result

    def _public_key(self) -> str:
        key = self._read_key()
        if key is None:
            raise IntegrityError(f"no {PUBLIC_KEY!r} beside the published results: nothing proves them")
        return key

    def _read_key(self) -> str | None:
        path = self._folder / PUBLIC_KEY
        version = file_version(path)
        if version is None:
            return None
        if self._key[0] != version:
            self._key = version, path.read_text(errors="replace")
        return self._key[1]
