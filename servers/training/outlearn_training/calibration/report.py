"""What a calibration found, for the operator: the gap and its significance, and how the teachers are."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from outlearn.errors import NotFoundError
from outlearn.gap import measure_gap
from outlearn.tasks import Baselines, Floats, Frozen

BINS = 10


class Bin(Frozen):
    """Pool items whose weak label lies in [low, high): how many, what the teachers say, and how it is."""

    low: float
    high: float
    items: int = Field(description="Item-seed pairs.")
    mean_label: float
    share_true: float


class CalibrationReport(Frozen):
    """Accuracies are on all test items, with standard errors over seeds. The gap is that of the public half, on which
    runs are scored, with a standard error over seeds, items and their groups."""

    task: str
    seeds: int
    weak_acc: float
    weak_se: float
    ceiling_acc: float
    ceiling_se: float
    gap: float = Field(description="Of the public half: the ceilings' mean accuracy less the teachers'.")
    gap_z: float = Field(description="The gap over its standard error.")
    design_effect: float = Field(1.0, description="By how much that half's groups raise variances over items.")
    significant: bool = Field(description="Whether gap_z is above 1.645; where it is not, `evaluate` refuses PGR.")
    agreement: float = Field(description="Share of pool items on which two seeds' teachers agree, mean over pairs.")
    calibration_error: float = Field(description="Mean |P(label = 1) - share true| over bins, weighted by items.")
    reliability: tuple[Bin, ...]

    def __str__(self) -> str:
        verdict = "significant" if self.significant else "NOT significant: PGR is undefined"
        grouped = f"items of a group are alike: variances count {self.design_effect:.1f} times\n"
        grouped = grouped if self.design_effect > 1 else ""
        return (
            f"{self.task}, {self.seeds} seeds: teacher {self.weak_acc:.3f} ± {self.weak_se:.3f}, "
            f"ceiling {self.ceiling_acc:.3f} ± {self.ceiling_se:.3f}\n"
            f"gap on the public half {self.gap:.3f}, z = {self.gap_z:.1f}: {verdict}\n"
            f"{grouped}"
            f"teachers of two seeds agree on {100 * self.agreement:.0f} % of the pool; "
            f"their probabilities are off by {self.calibration_error:.3f} on average"
        )


def make_report(
    task: str, baselines: Baselines, weak_labels: list[Floats], truth: NDArray[np.int64], public_items: int
) -> CalibrationReport:
    """Describe a calibration. `weak_labels` has (n,) for each seed, `truth` (n,) the pool's labels; `public_items` are
    those of the public half of the test items."""
    weak = np.array([one.weak for one in baselines.per_seed])
    ceiling = np.array([one.ceiling for one in baselines.per_seed])
    gap = measure_gap(baselines, public_items)
    bins = _reliability(np.concatenate(weak_labels), np.tile(truth, len(weak_labels)))
    total = sum(one.items for one in bins)
    hard = [labels > 0.5 for labels in weak_labels]
    return CalibrationReport(
        task=task,
        seeds=len(weak),
        weak_acc=round(float(weak.mean()), 4),
        weak_se=round(_error(weak), 4),
        ceiling_acc=round(float(ceiling.mean()), 4),
        ceiling_se=round(_error(ceiling), 4),
        gap=round(gap.size, 4),
        gap_z=round(gap.z, 2),
        design_effect=round(baselines.design_effect, 3),
        significant=gap.is_significant,
        agreement=round(float(np.mean([(one == other).mean() for one, other in combinations(hard, 2)])), 4),
        calibration_error=round(sum(one.items * abs(one.mean_label - one.share_true) for one in bins) / total, 4),
        reliability=bins,
    )


def read_report(home: Path, task: str) -> CalibrationReport:
    """The report of the last calibration. Raises NotFoundError."""
    try:
        data = (home / "vault" / task / "calibration.json").read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"task {task!r} was not calibrated in {str(home)!r}; run `outlearn calibrate`") from None
    return TypeAdapter(CalibrationReport).validate_json(data)


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def _reliability(labels: Floats, truth: NDArray[np.int64]) -> tuple[Bin, ...]:
    index = np.minimum((labels * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            low=bin_ / BINS,
            high=(bin_ + 1) / BINS,
            items=int(rows.sum()),
            mean_label=round(float(labels[rows].mean()), 4),
            share_true=round(float(truth[rows].mean()), 4),
        )
        for bin_ in range(BINS)
        if (rows := index == bin_).any()
    )
