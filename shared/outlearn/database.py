"""SQLAlchemy engines set up the way every service needs them: SQLite in WAL mode, or PostgreSQL by URL."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, MetaData, create_engine, event, func, inspect, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateColumn

from outlearn.errors import ConfigError
from outlearn.files import locked
from outlearn.logs import redact

BUSY_SECONDS = 30
WRITE_LOCK = int.from_bytes(b"outlearn", "big")
_turns: WeakKeyDictionary[Engine, RLock] = WeakKeyDictionary()
_turns_lock = Lock()


def open_database(url: str, tables: MetaData) -> Engine:
    """Open the database and create the `tables` that are missing. Several processes may share it.

    Raises:
        ConfigError: the URL is wrong or needs a driver, the database cannot be opened, or the file is none.
    """
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except ModuleNotFoundError as error:
        raise ConfigError(f"the database needs {error.name!r}; pip install 'outlearn[postgres]'") from error
    except SQLAlchemyError as error:
        raise ConfigError(redact(f"not a database URL ({error}); such as sqlite:///file.sqlite")) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with _first(engine), writing(engine) as connection:
            tables.create_all(connection)
            _add_what_is_new(connection, tables)
    except SQLAlchemyError as error:
        engine.dispose()
        raise ConfigError(f"cannot open the database {engine.url!r}: {error}") from error
    return engine


def utc_now() -> datetime:
    """The present moment as a DateTime column keeps it: in UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def as_utc(moment: datetime) -> datetime:
    """What a DateTime column kept, with its time zone."""
    return moment.replace(tzinfo=UTC)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that keeps all other writers out from its start: what it reads stays true until it commits.

    Threads of one process wait for their turn without a connection: they would keep all of the pool from readers.
    """
    with _turn(engine), engine.connect().execution_options(outlearn_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(WRITE_LOCK)))
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one consistent state and blocks nobody."""
    with engine.connect() as connection, connection.begin():
        yield connection


def closing_at_end(engine: Engine) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """A `lifespan` for `make_server` that closes the engine's connections when the server ends."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            engine.dispose()

    return lifespan


def _add_what_is_new(connection: Connection, tables: MetaData) -> None:
    """Add the nullable columns and the indexes that a later version brought to tables that an earlier one made."""
    known = inspect(connection)
    for table in tables.sorted_tables:
        there = {column["name"] for column in known.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                definition = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)


def _turn(engine: Engine) -> RLock:
    with _turns_lock:
        return _turns.setdefault(engine, RLock())


def _first(engine: Engine) -> AbstractContextManager[None]:
    """One process at a time: SQLite does not wait for its turn to switch a new file to WAL, it fails."""
    file = engine.url.database
    return locked(Path(file)) if engine.dialect.name == "sqlite" and file and file != ":memory:" else nullcontext()


def _set_up_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # sqlite3 would begin transactions by itself, and too late
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("outlearn_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
