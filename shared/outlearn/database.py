"""SQLAlchemy engines set up the way every service needs them: SQLite in WAL mode, or PostgreSQL by URL."""

import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, RLock
from typing import Any
from urllib.parse import quote, unquote
from weakref import WeakKeyDictionary

import anyio
from sqlalchemy import URL, Connection, Engine, MetaData, NullPool, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateSchema

from outlearn.errors import ConfigError
from outlearn.files import private_file
from outlearn.locks import locked
from outlearn.logs import redact

BUSY_SECONDS = 30
WRITE_LOCK = int.from_bytes(b"outlearn", "big")
SCHEMA = "outlearn_schema"
_turns: WeakKeyDictionary[Engine, RLock] = WeakKeyDictionary()
_turns_lock = Lock()


def open_database(url: str, tables: MetaData) -> Engine:
    """Open the database and create the `tables` that are missing. Several processes may share it.

    A SQLite file is its owner's alone. On PostgreSQL the tables are in the schema that `with_schema` put into the URL.

    Raises:
        ConfigError: the URL is wrong or needs a driver, the database cannot be opened, or the file is none.
    """
    try:
        place, schema = _split_schema(url)
        engine = create_engine(place, pool_pre_ping=not url.startswith("sqlite"))
    except ModuleNotFoundError as error:
        raise ConfigError(f"the database needs {error.name!r}; pip install 'outlearn[postgres]'") from error
    except SQLAlchemyError as error:
        raise ConfigError(redact(f"not a database URL ({_says(error)}); such as sqlite:///file.sqlite")) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", lambda connection, _: set_up_sqlite(connection))
        event.listen(engine, "begin", _begin_sqlite)
    try:
        if schema:
            _make_schema(place, schema)
            event.listen(engine, "connect", lambda connection, _: _enter_schema(connection, schema), insert=True)
        with _first(engine), writing(engine) as connection:
            tables.create_all(connection)
            _add_what_is_new(connection, tables)
    except SQLAlchemyError as error:
        engine.dispose()
        raise ConfigError(f"cannot open the database {engine.url!r}: {_says(error)}") from error
    return engine


def sqlite_url(file: Path) -> str:
    """The URL of a SQLite file, for `open_database`, whatever is in the names of its folders."""
    return f"sqlite:///{quote(str(file), safe=' /')}"


def with_schema(url: str, schema: str) -> str:
    """A PostgreSQL URL that leads to the tables of one schema, for `open_database`; any other is as it was."""
    try:
        place = make_url(url)
    except SQLAlchemyError:
        return url  # `open_database` says what is wrong with it
    if place.get_backend_name() != "postgresql":
        return url
    return place.update_query_dict({SCHEMA: schema}).render_as_string(hide_password=False)


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
    with turn(engine), engine.connect().execution_options(outlearn_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            mine = func.hashtextextended(func.coalesce(func.current_schema(), ""), WRITE_LOCK)
            connection.execute(select(func.pg_advisory_xact_lock(mine)))
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one consistent state and blocks nobody."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with engine.connect().execution_options(**options) as connection, connection.begin():
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


def working_until_end(
    engine: Engine, work: Callable[[Any], Coroutine[Any, Any, None]]
) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """As `closing_at_end`, with `work(server)`, which may go on for ever, beside the server until it ends."""

    @asynccontextmanager
    async def lifespan(server: object) -> AsyncIterator[None]:
        async with closing_at_end(engine)(server), anyio.create_task_group() as tasks:
            tasks.start_soon(work, server)
            yield
            tasks.cancel_scope.cancel()

    return lifespan


def _says(error: SQLAlchemyError) -> str:
    """What is wrong, without SQLAlchemy's statement and address for programmers."""
    return str(getattr(error, "orig", None) or error).partition("\n(Background on")[0]


def _split_schema(url: str) -> tuple[URL, str]:
    place = make_url(url)
    if place.get_backend_name() == "sqlite" and place.database:  # SQLAlchemy 2.0 leaves `%3F` as it is, 2.1 does not
        place = place.set(database=unquote(url.partition(":///")[2].partition("?")[0]))
    schema = place.query.get(SCHEMA, "")
    return place.difference_update_query([SCHEMA]), schema if isinstance(schema, str) else schema[-1]


def _make_schema(place: URL, schema: str) -> None:
    """One process at a time; nothing, which anybody may do, where it is there."""
    engine = create_engine(place, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(select(func.pg_advisory_xact_lock(WRITE_LOCK)))
        if not inspect(connection).has_schema(schema):
            connection.execute(CreateSchema(schema))


def _enter_schema(connection: Any, schema: str) -> None:
    before, connection.autocommit = connection.autocommit, True  # else it would hold for one transaction
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('search_path', %s, false)", (f'"{schema}"',))
    connection.autocommit = before


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


def sqlite_file(engine: Engine) -> str | None:
    """The file of an engine's database; None where that is no file of SQLite's."""
    file = engine.url.database or ""
    return file if engine.dialect.name == "sqlite" and Path(file).is_file() else None


def turn(engine: Engine) -> RLock:
    """What threads of one process take turns with to write to an engine's database."""
    with _turns_lock:
        return _turns.setdefault(engine, RLock())


@contextmanager
def _first(engine: Engine) -> Iterator[None]:
    """One process at a time: SQLite does not wait for its turn to switch a new file to WAL, it fails.

    The file is its owner's alone; what SQLite makes beside it is as the file is.
    """
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:":
        yield
        return
    file = Path(name)
    with locked(file):
        if not name.startswith("file:"):
            with suppress(FileExistsError):  # and is not opened then: closing it would end this process's locks on it
                os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        for ending in ("", "-wal", "-shm"):
            private_file(file.with_name(file.name + ending))
        yield


def set_up_sqlite(connection: Any) -> None:
    """Set a connection of `sqlite3` up as every one to a database of ours is."""
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
