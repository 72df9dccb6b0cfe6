"""Transactions on an engine's database. A SQLite file's go around SQLAlchemy, which would take longer than SQLite.

Statements are SQLAlchemy's all the same, written once for every database and compiled once.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, LifoQueue
from typing import Any, Protocol, TypeAlias

from sqlalchemy import Connection, Engine, Executable, Insert, Select, TextClause, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from outlearn.database import BUSY_SECONDS, reading, set_up_sqlite, sqlite_file, turn, writing

READERS = 4
"""Transactions of one process that read at once. More would wait for one another, and each keeps a cache."""
CACHE_KIB = 16_000
Convert: TypeAlias = Callable[[Any], Any]
_DIALECT = sqlite.dialect(paramstyle="named")


class BusyError(Exception):
    """A transaction that was not to wait would have to."""


class Transaction(Protocol):
    """A transaction that sees one consistent state."""

    @property
    def postgresql(self) -> bool:
        """Whether the database is PostgreSQL."""

    def rows(self, statement: Executable, /, **values: Any) -> Iterator[Any]:
        """The rows, found as they are taken within the transaction: plain tuples of a text's, else with names."""

    def change(self, statement: Executable, /, **values: Any) -> int:
        """Delete, update, or insert a row: every column that is not null with its value. Returns the new row's number,
        where the table numbers them; what it returns of others means nothing."""


class Transactions:
    """Begins transactions: `with transactions.reading() as read`. A process wants one of them for a database: each has
    connections of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = turn(engine)
        self._file = sqlite_file(engine)
        self._idle: LifoQueue[sqlite3.Connection | None] = LifoQueue()
        for _ in range(READERS):
            self._idle.put(None)
        self._writer: sqlite3.Connection | None = None
        self._writer_waits = True
        event.listen(engine, "engine_disposed", self._close)

    @contextmanager
    def reading(self, *, wait: bool = True) -> Iterator[Transaction]:
        """One that blocks nobody, as soon as fewer than `READERS` others read.

        Raises:
            BusyError: that many do, or it is no SQLite file, and this is not to `wait`.
            DBAPIError: the database does not answer.
        """
        if self._file is None:
            if not wait:
                raise BusyError
            with reading(self._engine) as through:
                yield _ByEngine(through)
            return
        try:
            connection = self._idle.get(block=wait)
        except Empty:
            raise BusyError from None
        try:
            with told_as_by_engine():
                connection = connection or _open_to_read(self._file)
                with _transaction(connection, "BEGIN", "ROLLBACK"):
                    yield _OfSQLite(connection)
        finally:
            self._idle.put(connection)

    @contextmanager
    def writing(self, *, wait: bool = True) -> Iterator[Transaction]:
        """As `outlearn.database.writing`, taking turns with it.

        Raises:
            BusyError: somebody writes, or it is no SQLite file, and this is not to `wait`. Nothing was done.
            DBAPIError: the database does not answer, or refuses what is written.
        """
        if self._file is None:
            if not wait:
                raise BusyError
            with writing(self._engine) as through:
                yield _ByEngine(through)
            return
        if not self._turn.acquire(blocking=wait):
            raise BusyError
        try:
            with told_as_by_engine():
                if self._writer is None:  # it is kept: another one would have to read what this one has in its cache
                    self._writer, self._writer_waits = _open(self._file), True
                if wait != self._writer_waits:
                    self._writer.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000 if wait else 0}")
                    self._writer_waits = wait
                with _transaction(self._writer, "BEGIN IMMEDIATE", "COMMIT", wait=wait):
                    yield _OfSQLite(self._writer)
        finally:
            self._turn.release()

    def _close(self, _engine: Engine) -> None:
        for connection in [self._idle.get() for _number in range(self._idle.qsize())]:
            if connection:
                connection.close()
            self._idle.put(None)
        with self._turn:
            if self._writer:
                self._writer.close()
            self._writer = None


class _ByEngine:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.postgresql = connection.dialect.name == "postgresql"

    def rows(self, statement: Executable, /, **values: Any) -> Iterator[Any]:
        with self._connection.execute(statement, values) as found:
            yield from found

    def change(self, statement: Executable, /, **values: Any) -> int:
        done = self._connection.execute(statement, values)
        key = done.inserted_primary_key[0] if isinstance(statement, Insert) and done.inserted_primary_key else 0
        return key if isinstance(key, int) else 0


class _OfSQLite:
    postgresql = False

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: Executable, /, **values: Any) -> Iterator[Any]:
        if isinstance(statement, TextClause):
            with closing(self._connection.execute(statement.text, values)) as found:
                yield from found
            return
        lists = {name: value for name, value in values.items() if isinstance(value, list)}
        prepared = _prepared(statement, None, tuple((name, len(value)) for name, value in lists.items()))
        items = {f"{name}_{place}": one for name, value in lists.items() for place, one in enumerate(value, 1)}
        with closing(self._connection.execute(prepared.sql, prepared.bind({**values, **items}))) as found:
            yield from map(prepared.make_row, found)

    def change(self, statement: Executable, /, **values: Any) -> int:
        prepared = _prepared(statement, tuple(values) if isinstance(statement, Insert) else None, ())
        return self._connection.execute(prepared.sql, prepared.bind(values)).lastrowid or 0


@dataclass(frozen=True)
class _Prepared:
    """A statement as SQL for lists of certain lengths."""

    sql: str
    own: Mapping[str, Any]
    """Values that the statement has itself."""
    asked: frozenset[str]
    """Parameters that whoever runs it has to give."""
    converted: Mapping[str, Convert]
    """Parameters that SQLite keeps in another form, such as moments."""
    make_row: Convert

    def bind(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        if missing := self.asked - values.keys():
            raise TypeError(f"no value for {sorted(missing)}")
        bound = {**self.own, **values}
        for name, convert in self.converted.items():
            bound[name] = convert(bound[name])
        return bound


@lru_cache(maxsize=500)
def _prepared(statement: Executable, columns: Sequence[str] | None, lengths: Sequence[tuple[str, int]]) -> _Prepared:
    compiled = statement.compile(dialect=_DIALECT, column_keys=columns)  # type: ignore[attr-defined]
    assert isinstance(compiled, SQLCompiler)
    if columns is not None and compiled.params.keys() - set(columns):
        raise TypeError(f"columns without a value: {sorted(compiled.params.keys() - set(columns))}")
    state = compiled.construct_expanded_state({**compiled.params, **{name: [None] * size for name, size in lengths}})
    types = {name: compiled.binds[name].type for name in state.parameters if name in compiled.binds}
    converted = {name: convert for name, kind in types.items() if (convert := _of(kind).bind_processor(_DIALECT))}
    if columns is not None:
        return _Prepared(state.statement, {}, frozenset(columns), converted, _row_of(statement))
    asked = frozenset(name for name, one in compiled.binds.items() if one.required)
    return _Prepared(state.statement, state.parameters, asked, converted, _row_of(statement))


def _row_of(statement: Executable) -> Convert:
    """What makes a row with names of what SQLite answers."""
    if not isinstance(statement, Select):
        return tuple
    row: Any = namedtuple("Row", [*statement.selected_columns.keys()])  # type: ignore[misc]  # known only here
    make: Convert = row._make
    kinds = [_of(column.type) for column in statement.selected_columns]
    converts = [(at, convert) for at, kind in enumerate(kinds) if (convert := kind.result_processor(_DIALECT, None))]
    if not converts:
        return make

    def convert_and_make(values: Sequence[Any]) -> Any:
        changed = list(values)
        for at, convert in converts:
            changed[at] = convert(changed[at])
        return make(changed)

    return convert_and_make


def _of(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    return kind.dialect_impl(_DIALECT)


@contextmanager
def _transaction(connection: sqlite3.Connection, begin: str, end: str, *, wait: bool = True) -> Iterator[None]:
    try:
        connection.execute(begin)
    except sqlite3.OperationalError as error:
        if not wait and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:  # above are kinds, such as a crash's
            raise BusyError from None
        raise
    try:
        yield
        connection.execute(end)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def told_as_by_engine() -> Iterator[None]:
    """Raise `sqlite3`'s errors as SQLAlchemy does."""
    try:
        yield
    except sqlite3.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite3.Error) from error


def _open(file: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    set_up_sqlite(connection)
    return connection


def _open_to_read(file: str) -> sqlite3.Connection:
    connection = _open(file)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection
