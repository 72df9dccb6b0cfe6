"""Many programs to run: on all cores, and none twice. What became of them is kept in the vault, as it is labels."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from outlearn.files import write_atomic
from outlearn.signing import canonical_json
from outlearn.sources import OnShare
from outlearn_training.data.execution import Limits, run_programs
from outlearn_training.data.runner import OUTCOMES, Outcome
from outlearn_training.sandbox.limits import count_cores

FOLDER = ".executions"  # no task can have this name
Outcomes = list[Outcome]


class Executions:
    """Runs batches of programs, side by side on the cores that this process may use.

    A batch is kept by a digest of all that its outcomes depend on: the programs, the limits and the Python.
    """

    def __init__(self, vault: Path, limits: Limits) -> None:
        self._vault, self._limits = vault, limits

    def run(self, batches: Sequence[Sequence[str]], on_share: OnShare) -> Iterator[Outcomes]:
        """What became of each program of each batch, in order. Raises as `run_programs`.

        Whatever ends this early, such as Ctrl-C, costs no batch that was done.
        """
        pool = ThreadPoolExecutor(count_cores(), thread_name_prefix="programs")
        try:
            for done, outcomes in enumerate(pool.map(self._outcomes, batches), start=1):
                on_share(done / len(batches))
                yield outcomes
        finally:
            pool.shutdown(cancel_futures=True)

    def _outcomes(self, batch: Sequence[str]) -> Outcomes:
        path = self._path(batch)
        known = _read(path)
        if known is None or len(known) != len(batch):
            known = run_programs(batch, self._vault, self._limits)
            self._vault.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, OUTCOMES.dump_json(known), mode=0o600)
        return known

    def _path(self, batch: Sequence[str]) -> Path:
        what = [list(batch), vars(self._limits), sys.version]
        return self._vault / FOLDER / f"{hashlib.sha256(canonical_json(what)).hexdigest()}.json"


def _read(path: Path) -> Outcomes | None:
    """Kept outcomes; None where there are none, or where the file is damaged and the programs are run again."""
    try:
        return OUTCOMES.validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
