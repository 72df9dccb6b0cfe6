"""What a final found, and where that is kept: one signed file in the vault, written once."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from outlearn.files import create_once
from outlearn.signing import PublicSigner, Signed, check_public, parse_signed
from outlearn.tasks import Frozen
from outlearn_evaluation.statistics import Estimate

DIGITS = 5


class Interval(Frozen):
    """An estimate with its 95 % interval, for new items and new seeds: `value ± t(df) * se`."""

    value: float
    low: float
    high: float
    se: float
    se_items: float = Field(description="What items give to the standard error: se^2 = se_items^2 + se_seeds^2.")
    se_seeds: float = Field(description="What seeds give to it, of nominees, teachers and ceilings together.")
    df: float = Field(description="Degrees of freedom of t, by Satterthwaite.")

    @classmethod
    def of(cls, estimate: Estimate) -> "Interval":
        """The estimate as it is written down."""
        return cls(**{name: round(getattr(estimate, name), DIGITS) for name in cls.model_fields})


class Finalist(Frozen):
    """A nominated run and what its re-run scored, on the private half where nothing else is said."""

    run_id: str
    rerun_id: str | None = Field(description="The same on fresh seeds; None where the run was withheld and not re-run.")
    agent: str
    method: str
    params: dict[str, Any]
    told: float = Field(description="PGR that the agent was told, from the public half and the old seeds.")
    told_at_most: bool
    failed: str = Field("", description="Why the re-run has no score; empty where it has one.")
    accuracy: float | None = None
    pgr: Interval | None = Field(None, description="None where the re-run failed or PGR is undefined.")
    public_pgr: Interval | None = Field(None, description="Of the re-run on the public half.")
    fall: Interval | None = Field(None, description="public_pgr less pgr: what only fits the public half.")


class Comparison(Frozen):
    """Two finalists, paired by item and seed."""

    run_id: str
    other: str
    difference: Interval = Field(description="By how much `run_id` is more accurate than `other`, in [-1, 1].")
    p_value: float = Field(description="Two-sided, for no difference.")
    p_holm: float = Field(description="The same after Holm's correction for all comparisons of the release.")
    significant: bool = Field(description="p_holm is below 0.05.")


class Release(Signed):
    """The outcome of a task: nominated runs, done again on fresh seeds and scored on the private half, once."""

    task: str
    task_fingerprint: str
    commitment: str = Field(description="To labels, split, noise and baselines, as it was first published.")
    seeds: tuple[int, ...]
    items: int = Field(description="Test items of the private half.")
    groups: int = Field(description="Groups that these come in.")
    weak_acc: float
    ceiling_acc: float
    gap: Interval = Field(description="ceiling_acc less weak_acc; PGR is undefined where it is not significant.")
    finalists: tuple[Finalist, ...] = Field(description="Best first, failed ones last.")
    comparisons: tuple[Comparison, ...]
    closed_at: datetime
    opened_at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class ReleaseBook:
    """The release of a task, in the vault. The public key that proves published results proves it, too."""

    def __init__(self, vault: Path, task: str) -> None:
        self.path = vault / task / "release.json"
        self._signer = PublicSigner.from_vault(vault, "result")

    def read(self) -> Release | None:
        """The release, or None where there is none yet. Raises IntegrityError where the file was changed."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        release = parse_signed(Release, data, f"the release {str(self.path)!r}", "read it with that version")
        check_public(release, self._signer.public_key)
        return release

    def file(self, release: Release) -> Release:
        """Sign and keep a release unless there is one; returns the one that is kept."""
        create_once(self.path, self._signer.sign(release).model_dump_json(indent=1).encode())
        return self.read() or release
