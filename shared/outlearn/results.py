"""Verified results: the evaluation server publishes them, signed; everybody else can only read them."""

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import IntegrityError
from outlearn.files import write_atomic
from outlearn.identity import AgentName
from outlearn.receipts import RUN_ID, RunId
from outlearn.signing import Signer


class VerifiedResult(BaseModel):
    """The evaluation server's number for a run, computed from its receipts."""

    model_config = ConfigDict(frozen=True)

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
    signature: str = ""

    def __str__(self) -> str:
        return f"PGR {pgr_text(self.pgr, self.at_most)} ± {self.pgr_se:.2f} ({self.seeds} seeds)"


def pgr_text(pgr: float, at_most: bool) -> str:
    """PGR as it is shown: `0.45`, or `<=0.10` where no more than that is told."""
    return f"{'<=' if at_most else ''}{pgr:.2f}"


class ResultBook:
    """Published results, one signed file a run."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "results"
        self._signer = Signer.from_vault(home / "vault", "result")

    def publish(self, result: VerifiedResult) -> VerifiedResult:
        """Sign and file a result. Only the evaluation server calls this."""
        signed = self._signer.sign(result)
        write_atomic(self._folder / f"{result.run_id}.json", signed.model_dump_json().encode())
        return signed

    def lookup(self, run_id: str) -> VerifiedResult | None:
        """The verified result of a run, or None where it was never evaluated.

        Raises:
            IntegrityError: the file was tampered with.
        """
        if not RUN_ID.fullmatch(run_id):
            return None
        try:
            result = VerifiedResult.model_validate_json((self._folder / f"{run_id}.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise IntegrityError(f"the published result of {run_id!r} is damaged: {error}") from error
        self._signer.check(result)
        if result.run_id != run_id:
            raise IntegrityError(f"the result filed under {run_id!r} is of {result.run_id!r}")
        return result
