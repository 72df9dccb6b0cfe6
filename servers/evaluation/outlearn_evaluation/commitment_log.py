"""Commitments as they were first published: a vault whose files were swapped later does not pass for the same."""

from sqlalchemy import Column, DateTime, String, Table, bindparam, select

from outlearn.database import utc_now
from outlearn.errors import IntegrityError
from outlearn.transactions import Transaction, Transactions
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
_COMMIT = commitments.insert()
_COMMITTED = select(commitments.c.commitment).where(
    commitments.c.task == bindparam("task"), commitments.c.fingerprint == bindparam("fingerprint")
)


class Publisher:
    """Publishes one commitment for each version of a task, and never another."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._known: dict[tuple[str, str], str] = {}

    def find(self, task: str, fingerprint: str) -> str | None:
        """The commitment that was published for this version of a task, if one was."""
        with self._transactions.reading() as read:
            return _find(read, task, fingerprint)

    def publish(self, opened: Opened) -> str:
        """Record the commitment of a task durably, before anybody sees it or is scored by what it stands for.

        Returns it. Raises IntegrityError where another was published for this version of the task.
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
        return opened.commitment

    def _record(self, task: str, fingerprint: str, commitment: str) -> str:
        if (known := self.find(task, fingerprint)) is not None:
            return known
        with self._transactions.writing() as write:
            known = _find(write, task, fingerprint)
            if known is None:
                values = {"task": task, "fingerprint": fingerprint, "commitment": commitment, "published_at": utc_now()}
                write.change(_COMMIT, **values)
        return known or commitment


def _find(read: Transaction, task: str, fingerprint: str) -> str | None:
    row = next(read.rows(_COMMITTED, task=task, fingerprint=fingerprint), None)
    return row.commitment if row else None
