"""All families of attacks, some at a time: print a table, write build/attacks.json, and fail where one got through."""

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from math import isfinite
from multiprocessing import get_context
from pathlib import Path

import collusion
import detectors_measure
import escapes
import floods
import forgery
import full_disk
import injection
import leaks
import measure
import neighbours
import standing_tests
import strings
import vault
import weights
from measure import Figure

SERVERS = 20
FAMILIES: dict[str, Callable[[Path], Iterator[Figure]]] = {
    "detection": partial(detectors_measure.detection, servers=SERVERS),
    "probing": partial(measure.probing, servers=SERVERS),
    "adaptive probing": partial(measure.adapting, servers=SERVERS),
    "standing tests": standing_tests.outcomes,
    "persistence": partial(measure.persistence, servers=SERVERS),
    "usefulness": partial(measure.usefulness, servers=SERVERS),
    "packing": partial(collusion.packing, servers=SERVERS),
    "collusion": collusion.attacks.run,
    "forgery": forgery.attacks.run,
    "escapes": escapes.attacks.run,
    "vault": vault.attempts,
    "neighbours": neighbours.inheritance,
    "leaks of runs": leaks.runs,
    "leaks": leaks.attacks.run,
    "weights": weights.attacks.run,
    "injection": injection.attacks.run,
    "strings": strings.oddities,
    "floods": floods.attacks.run,
    "full disk": full_disk.attacks.run,
}
"""The longest first."""


def attack(family: str) -> tuple[list[Figure], float]:
    """What a family came to, and the seconds that it took. Its servers' logs are not shown."""
    start = time.monotonic()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            figures.extend(FAMILIES[family](Path(folder)))
        except Exception:  # noqa: BLE001 - what the others come to must not be lost over it
            print(traceback.format_exc(), flush=True)
            figures.append(Figure(f"{family} went through", 1, 0))
    return figures, time.monotonic() - start


def main() -> None:
    """Attack with the families named on the command line, else with all."""
    chosen = [name for name in FAMILIES if name in sys.argv[1:]] or list(FAMILIES)
    rows: dict[str, dict[str, float | bool | None]] = {}
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(attack, name): name for name in chosen}
        for family in as_completed(running):
            figures, seconds = family.result()
            print(f"{running[family]} ({seconds:.0f} s)")
            for one in figures:
                print(f"  {one}", flush=True)
                bar = one.bar if isfinite(one.bar) else None
                rows[one.name] = {"value": round(one.value, 3), "bar": bar, "held": one.held}
    lost = [name for name, row in rows.items() if not row["held"]]
    print(f"{len(rows)} attacks and figures, {len(lost)} not held" + "".join(f"\n  {name}" for name in lost))
    out = Path("build/attacks.json")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
