"""Measure each attack over many servers, hold it against its bar, and write build/attacks.json."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from probing import ATTACKS
from world import WEAK, World, world

SERVERS = 20
BARS: dict[str, tuple[float, float]] = {  # points of accuracy on the public and on the private half, at most
    "one_flip": (1.0, 0.5),
    "hill_climb": (np.inf, 0.5),
    "blank_boosting": (7.0, 2.0),
    "informed_boosting": (3.0, 0.5),
    "reconstruction": (1.0, 0.5),
}
Row = dict[str, float | bool]


def gains(name: str, folder: Path, servers: int) -> np.ndarray:
    """Points gained on the public and the private half, and answers got, one row a server."""
    rows = []
    for seed in range(servers):
        with world(folder, seed) as one:
            best, start = ATTACKS[name](one)
            rows.append([*np.subtract(one.accuracies(best), one.accuracies(start)), one.answered])
    return np.array(rows)


def kendall(one: World, runs: int = 60) -> float:
    """Tau-b of what is told against the true accuracy on the public half, for students over PGR's whole scale."""
    ability = one.rng.normal(size=len(one.labels))
    pairs = []
    for accuracy in one.rng.uniform(WEAK, 0.7325, size=runs):
        cut = np.quantile(ability + one.rng.normal(size=len(ability)), 1 - accuracy)
        right = ability + one.rng.normal(size=len(ability)) > cut
        answers = np.where(right, one.labels, -one.labels)
        told = one.ask(answers)
        assert told is not None
        pairs.append((told.pgr, one.accuracies(answers)[0]))
    told_all, truth = np.array(pairs).T
    signs = [np.sign(values[:, None] - values)[np.triu_indices(runs, 1)] for values in (told_all, truth)]
    return float(signs[0] @ signs[1] / np.sqrt(np.abs(signs[0]).sum() * np.abs(signs[1]).sum()))


def measure(folder: Path, servers: int, say: Callable[[str], None]) -> dict[str, Row]:
    """All attacks and the usefulness of what honest agents are told."""
    found: dict[str, Row] = {}

    def add(name: str, value: float, bar: float, at_most: bool = True) -> None:
        held = value <= bar if at_most else value >= bar
        found[name] = {"value": round(value, 3), "bar": bar, "held": bool(held)}
        say(f"{name:28} {value:8.2f}  {'<=' if at_most else '>='} {bar:<6} {'held' if held else 'NOT HELD'}")

    for name, (public, private) in BARS.items():
        means = gains(name, folder, servers)
        if np.isfinite(public):
            add(f"{name}_public", float(means[:, 0].mean()), public)
        add(f"{name}_private", float(means[:, 1].mean()), private)
        add(f"{name}_answers", float(means[:, 2].max()), 200)
    taus = []
    for seed in range(servers):
        with world(folder, 1000 + seed) as one:
            taus.append(kendall(one))
    add("kendall_tau", float(np.mean(taus)), 0.82, at_most=False)
    return found


def main() -> None:
    """Print the table and write the file; the exit status says whether all bars held."""
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), SERVERS, print)
    out = Path("build/attacks.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not all(row["held"] for row in found.values()))


if __name__ == "__main__":
    main()
