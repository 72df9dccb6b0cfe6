"""The students of runs. `outlearn export` reads them, and nothing else does: scores come from receipts, and a run that
is done again is trained again. So most of them may go when the disk is needed.

They are in a store of their own, so that removing some takes nothing of what agents saved. What is in it stands in a
table, by run: noted before it is stored, and struck out after it is removed. A file is removed in a transaction that
keeps out whoever would note it anew, and where no other run has the same.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import structlog
from sqlalchemy import Connection, func, select

from outlearn.artifacts import LocalArtifactStore
from outlearn.database import open_database, reading, writing
from outlearn.results import ResultBook
from outlearn.types import FINISHED
from outlearn_training.queue.tables import metadata, runs, stored_weights
from outlearn_training.settings import TrainingSettings

AT_ONCE = 200
"""Runs whose students are removed in one transaction."""
log = structlog.get_logger("outlearn.training")


def weight_files(home: Path) -> LocalArtifactStore:
    """Where the students of a home folder's runs are, as safetensors files."""
    return LocalArtifactStore(home / "weights")


class WeightStore:
    """The students of one home folder, with what is needed to remove them. Several processes may share it."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._engine = open_database(settings.database("training"), metadata)
        self._files, self._results = weight_files(settings.home), ResultBook(settings.home)

    def put(self, run_id: str, students: Mapping[str, bytes]) -> None:
        """Store students of a run, by their SHA-256. The same ones again change nothing."""
        with writing(self._engine) as connection:
            query = select(stored_weights.c.sha256).where(stored_weights.c.run_id == run_id)
            for digest in students.keys() - set(connection.scalars(query)):
                values = {"run_id": run_id, "sha256": digest, "bytes": len(students[digest])}
                connection.execute(stored_weights.insert().values(values))
        for digest, data in students.items():
            self._files.put(data, digest)

    def make_room(self, most_bytes: int) -> int:
        """Remove the students of runs that have ended and were never evaluated, each agent's oldest first, until the
        rest of its have `most_bytes` together. Its newest run keeps them anyhow. Returns the bytes that were removed.
        """
        with reading(self._engine) as connection:
            if not self._unwanted(connection, most_bytes):
                return 0
        with writing(self._engine) as connection:
            gone = self._unwanted(connection, most_bytes)[-AT_ONCE:]
            of_them = stored_weights.c.run_id.in_(gone)
            others = stored_weights.c.sha256.in_(select(stored_weights.c.sha256).where(~of_them))
            query = select(stored_weights.c.sha256, stored_weights.c.bytes).where(of_them, ~others).distinct()
            removed = 0
            for digest, size in connection.execute(query):
                self._files.remove(digest)
                removed += size
            connection.execute(stored_weights.delete().where(of_them))
        if gone:
            log.info("students removed", runs=len(gone), mib=round(removed / 2**20, 1))
        return removed

    def _unwanted(self, connection: Connection, most_bytes: int) -> list[str]:
        """Runs whose students may go, the newest first."""
        query = (
            select(runs.c.run_id, runs.c.agent, func.sum(stored_weights.c.bytes).label("bytes"))
            .join(stored_weights, stored_weights.c.run_id == runs.c.run_id)
            .where(runs.c.status.in_(FINISHED))
            .group_by(runs.c.number, runs.c.run_id, runs.c.agent)
            .order_by(runs.c.number.desc())
        )
        kept = ((row.run_id, row.agent, int(row.bytes)) for row in connection.execute(query))
        return unwanted(kept, self._results, most_bytes)


def unwanted(kept: Iterable[tuple[str, str, int]], results: ResultBook, most_bytes: int) -> list[str]:
    """Runs of which nobody needs what is kept, the newest first: they were never evaluated, and newer ones of the same
    agent have `most_bytes` already.

    Args:
        kept: run, agent and bytes of runs that have ended, the newest first.
    """
    held, found = Counter[str](), list[str]()
    for run_id, agent, size in kept:
        if results.has(run_id):
            continue
        newest = agent not in held
        held[agent] += size
        if not newest and held[agent] > most_bytes:
            found.append(run_id)
    return found
