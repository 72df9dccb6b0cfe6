"""The results table of the tiny testbed: built-in methods on fresh seeds, with their teachers and ceilings."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from outlearn.errors import InvalidInputError
from outlearn.files import write_atomic
from outlearn.tasks import Baselines, load_baselines, load_public, load_secret
from outlearn_training.calibration.calibrate import calibrate, load_predictions
from outlearn_training.catalogue import Method, methods
from outlearn_training.fast.trainer import student_trainer
from outlearn_training.lab import Lab
from outlearn_training.sandbox.host import run_method
from outlearn_training.testbed import TESTBEDS

FRESH_SEEDS = range(100, 105)
OnProgress = Callable[[str, float], None]


class TableRow(BaseModel):
    """One method on one task. Accuracies are on all test items; errors are over seeds: `sd / sqrt(seeds)`."""

    model_config = ConfigDict(frozen=True)

    task: str
    method: str
    seeds: int
    acc_mean: float
    acc_se: float = Field(description="0 for `zero_shot`, which has no seed.")
    pgr: float
    pgr_se: float


TABLE = TypeAdapter(list[TableRow])


def make_table(tasks: Sequence[str], on_progress: OnProgress, seeds: Sequence[int] = FRESH_SEEDS) -> list[TableRow]:
    """Calibrate each task on fresh seeds and run every registered method on them, with its defaults."""
    rows: list[TableRow] = []
    for index, task in enumerate(tasks):
        with tempfile.TemporaryDirectory() as folder:
            report = _part(on_progress, index, len(tasks))
            rows += _Bench(Path(folder), task, seeds, report).rows()
    on_progress("done", 1.0)
    return rows


class _Bench:
    """One task, calibrated in a folder of its own."""

    def __init__(self, home: Path, task: str, seeds: Sequence[int], report: OnProgress) -> None:
        self._report = report
        calibrate(home, task, seeds, lambda what, share: report(f"{task}: {what}", 0.4 * share))
        self._task, self._secret = load_public(home, task), load_secret(home, task)
        self._baselines: Baselines = load_baselines(home, task)
        self._shuffled = [one.shuffled_test for one in load_predictions(home, self._task.card).values()]
        self._trainer = student_trainer(self._task.card)

    def rows(self) -> Iterator[TableRow]:
        """Rows for the ends of the scale, the controls and the methods."""
        yield self._row("weak", np.array([one.weak for one in self._baselines.per_seed]))
        yield self._row("ceiling", np.array([one.ceiling for one in self._baselines.per_seed]))
        yield self._row("shuffled", np.array([self._accuracy(p) for p in self._shuffled]))
        lab = Lab(self._task, self._trainer, self._task.card.seeds[0], lambda event: None)
        yield self._row("zero_shot", np.array([self._accuracy(lab.zero_shot(self._secret.test))]))
        for index, (name, method) in enumerate(methods().items()):
            self._report(f"{self._task.card.name}: {name}", 0.4 + 0.6 * index / len(methods()))
            yield self._row(name, np.array([self._run(method, seed) for seed in self._task.card.seeds]))

    def _run(self, method: Method, seed: int) -> float:
        lab = Lab(self._task, self._trainer, seed, lambda event: None)
        students = run_method(method.info.source, method.check_params({}), seed, lab)
        return self._accuracy(np.mean([student.predict(self._secret.test) for student in students], axis=0))

    def _accuracy(self, predicted: NDArray[np.float64]) -> float:
        return float(((predicted > 0.5) == self._secret.test_labels).mean())

    def _row(self, method: str, accuracies: NDArray[np.float64]) -> TableRow:
        weak, gap = self._baselines.weak_acc, self._baselines.ceiling_acc - self._baselines.weak_acc
        n = len(accuracies)
        error = float(accuracies.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
        mean = float(accuracies.mean())
        return TableRow(
            task=self._task.card.name,
            method=method,
            seeds=n,
            acc_mean=round(mean, 4),
            acc_se=round(error, 4),
            pgr=round((mean - weak) / gap, 4),
            pgr_se=round(error / gap, 4),
        )


def write_table(folder: Path, rows: Sequence[TableRow]) -> list[TableRow]:
    """Write `testbed.json` and `testbed.md`, and return their rows: these, and those of other tasks that stood there.

    Raises InvalidInputError: the file that stands there is no results table.
    """
    path, fresh = folder / "testbed.json", {row.task for row in rows}
    others = [row for row in _read(path) if row.task in TESTBEDS and row.task not in fresh]
    merged = sorted([*others, *rows], key=lambda row: list(TESTBEDS).index(row.task))
    write_atomic(path, TABLE.dump_json(merged, indent=1) + b"\n")
    write_atomic(folder / "testbed.md", as_markdown(merged).encode())
    return merged


def _read(path: Path) -> list[TableRow]:
    try:
        return TABLE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise InvalidInputError(f"{str(path)!r} is no results table; move it away or name another folder") from error


def _part(report: OnProgress, index: int, parts: int) -> OnProgress:
    return lambda what, share: report(what, (index + share) / parts)


def as_markdown(rows: Sequence[TableRow]) -> str:
    """The table as markdown, as it stands in the documentation."""
    head = "| task | method | seeds | accuracy | PGR |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {row.task} | {row.method} | {row.seeds} | {row.acc_mean:.3f} ± {row.acc_se:.3f} "
        f"| {row.pgr:.2f} ± {row.pgr_se:.2f} |\n"
        for row in rows
    )
