"""Tells whether a database changed, whichever process changed it."""

import sqlite3
from threading import Lock
from typing import TypeAlias

from sqlalchemy import Engine, event

from outlearn.database import BUSY_SECONDS, sqlite_file
from outlearn.transactions import told_as_by_engine

Moment: TypeAlias = tuple[int, int]


class Changes:
    """Stands for the last change of an engine's database. For a file of SQLite's that takes 5 microseconds; PostgreSQL
    has nothing that takes less than a query.

    SQLite counts, for each connection, what others commit: this is one of its own, on which nobody writes.
    """

    def __init__(self, engine: Engine) -> None:
        self._file = sqlite_file(engine)
        self._connection: sqlite3.Connection | None = None
        self._opened = 0
        self._turn = Lock()
        event.listen(engine, "engine_disposed", self._close)

    def last(self) -> Moment | None:
        """Another value after the next change. None where that cannot be told.

        Raises:
            DBAPIError: the database does not answer.
        """
        if self._file is None:
            return None
        with self._turn, told_as_by_engine():
            if self._connection is None:
                self._connection = sqlite3.connect(self._file, BUSY_SECONDS, check_same_thread=False)
                self._opened += 1  # a connection has its own count
            ((count,),) = self._connection.execute("PRAGMA data_version")
        return self._opened, count

    def _close(self, _: Engine) -> None:
        with self._turn:
            if self._connection:
                self._connection.close()
            self._connection = None
