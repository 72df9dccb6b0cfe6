"""Commitments as they were first published: a vault whose files were swapped later does not pass for the same."""

from sqlalchemy import Column, Connection, DateTime, Engine, String, Table, select

from outlearn.database import reading, utc_now, writing
from outlearn.errors import IntegrityError
from outlearn_evaluation.commitment import Opened
from outlearn_evaluation.tables import metadata

commitments = Table(
    "commitments",
    metadata,
    Column("task", String(48), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("commitment", String(64), nullable=False),
    Column("published_at", DateTime, nullable=False),
)


class Publisher:
    """Publishes one commitment for each version of a task, and never another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[str, str], str] = {}

    def publish(self, opened: Opened) -> None:
        """Record the commitment of a task durably, before anybody sees it or is scored by what it stands for.

        Raises IntegrityError where another was published for this version of the task.
        """
        version = (opened.task, opened.baselines.fingerprint)
        if version not in self._known:
            self._known[version] = self._record(*version, opened.commitment)
        if self._known[version] != opened.commitment:
            raise IntegrityError(
                f"the vault's files of task {opened.task!r} are not those committed to: the published commitment is "
                f"{self._known[version]!r}, theirs {opened.commitment!r}. Put the vault's own files back; a task that "
                "was calibrated anew needs a new home folder"
            )

    def _record(self, task: str, fingerprint: str, commitment: str) -> str:
        with reading(self._engine) as connection:
            known = _find(connection, task, fingerprint)
        if known is not None:
            return known
        with writing(self._engine) as connection:
            known = _find(connection, task, fingerprint)
            if known is None:
                values = {"task": task, "fingerprint": fingerprint, "commitment": commitment, "published_at": utc_now()}
                connection.execute(commitments.insert().values(values))
        return known or commitment


def _find(connection: Connection, task: str, fingerprint: str) -> str | None:
    version = (commitments.c.task == task) & (commitments.c.fingerprint == fingerprint)
    return connection.execute(select(commitments.c.commitment).where(version)).scalar_one_or_none()
