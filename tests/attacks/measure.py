"""Measure each attack over many servers, hold it against its bar, print a table and write build/attacks.json.

A family is a function that yields figures; `FAMILIES` has all of them.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import numpy as np
from adaptive import ADAPTIVE
from probing import PROBES, Attack, Probe
from scipy.stats import kendalltau
from world import CEILING, WEAK, World, world

SERVERS, RUNS, ATTEMPTS, BUDGET = 20, 60, 5_000, 200


@dataclass(frozen=True)
class Figure:
    """What was measured, and its bar: a most, or a least; an infinite bar is none."""

    name: str
    value: float
    bar: float = inf
    at_most: bool = True

    @property
    def held(self) -> bool:
        """Whether the value is on the right side of its bar."""
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def __str__(self) -> str:
        if not isfinite(self.bar):
            return f"{self.name:34} {self.value:8.2f}"
        held = "held" if self.held else "NOT HELD"
        return f"{self.name:34} {self.value:8.2f}  {'<=' if self.at_most else '>='} {self.bar:<5g} {held}"


def gains(attack: Attack, folder: Path, servers: int) -> np.ndarray:
    """Points gained on the public and the private half, and answers got, one row a server."""
    rows = []
    for seed in range(servers):
        with world(folder, seed) as one:
            best, start = attack(one)
            rows.append([*np.subtract(one.accuracies(best), one.accuracies(start)), one.answered])
    return np.array(rows)


def probing(folder: Path, servers: int, probes: Mapping[str, Probe] = PROBES) -> Iterator[Figure]:
    """What attackers who are given receipts for any answers learn from feedback."""
    for name, probe in probes.items():
        found = gains(probe.attack, folder, servers)
        yield Figure(f"{name}_public", float(found[:, 0].mean()), probe.public)
        yield Figure(f"{name}_private", float(found[:, 1].mean()), probe.private)
        yield Figure(f"{name}_answers", float(found[:, 2].max()), BUDGET)


def adapting(folder: Path, servers: int) -> Iterator[Figure]:
    """The same of those who know what is looked for."""
    yield from probing(folder, servers, ADAPTIVE)


def persistence(folder: Path, servers: int) -> Iterator[Figure]:
    """How many of 5,000 questions nine agents get answered."""
    with world(folder, servers) as one:
        answers = one.student(0.63)
        for _ in range(ATTEMPTS):
            one.ask(one.rng.permutation(answers))
        yield Figure("answers_to_5000_attempts", float(one.answered), BUDGET)


def tell(one: World, runs: int) -> np.ndarray:
    """Honest runs over PGR's whole scale, one row each: true PGR, public accuracy, PGR told, its error, at most."""
    rows = []
    for accuracy in one.rng.uniform(WEAK, CEILING, size=runs):
        answers = one.run(accuracy)
        told = one.ask(answers)
        assert told is not None
        true = (accuracy - WEAK) / (CEILING - WEAK)
        rows.append([true, one.accuracies(answers)[0], told.pgr, told.pgr_se, bool(told.at_most)])
    return np.array(rows)


def usefulness(folder: Path, servers: int) -> Iterator[Figure]:
    """What feedback is worth to honest agents."""
    taus, covered = [], []
    for seed in range(servers):
        with world(folder, 1000 + seed) as one:
            true, public, pgr, error, at_most = tell(one, RUNS).T
        taus.append(kendalltau(pgr, public).statistic)
        above = true - pgr
        covered.append(np.where(at_most > 0, above, np.abs(above)) <= 1.96 * error)
    yield Figure("kendall_tau", float(np.mean(taus)), 0.82, at_most=False)
    yield Figure("coverage", float(np.mean(covered)), 0.93, at_most=False)
    for points in (5, 10):
        yield Figure(f"power_at_{points}_points", power(folder, servers, points))


def power(folder: Path, servers: int, points: float, pairs: int = 20) -> float:
    """How often an honest run that is so many points of accuracy better than another is told to be better."""
    verdicts = []
    for seed in range(servers):
        with world(folder, 2000 + seed) as one:
            for accuracy in one.rng.uniform(0.56, CEILING - points / 100, size=pairs):
                first = one.ask(one.run(accuracy))
                assert first is not None
                told = one.ask(one.run(accuracy + points / 100), first.run_id)
                assert told is not None
                verdicts.append(told.verdict)
    return verdicts.count("better") / len(verdicts)


FAMILIES: tuple[Callable[[Path, int], Iterator[Figure]], ...] = (probing, adapting, persistence, usefulness)


def main() -> None:
    """Print the table and write the file; the exit status says whether all bars held."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for family in FAMILIES:
            for figure in family(Path(folder), SERVERS):
                print(figure, flush=True)
                found.append(figure)
    rows = {
        one.name: {"value": round(one.value, 3), "bar": one.bar if isfinite(one.bar) else None, "held": one.held}
        for one in found
    }
    out = Path("build/attacks.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(not all(one.held for one in found))


if __name__ == "__main__":
    main()
