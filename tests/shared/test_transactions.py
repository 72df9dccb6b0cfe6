"""Transactions around SQLAlchemy: what they keep of it, and that a SQLite file's behave as PostgreSQL's do."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, StatementError

from outlearn.database import open_database, reading, writing
from outlearn.transactions import READERS, BusyError, Transactions

metadata = MetaData()
notes = Table(
    "notes",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("name", String(9), nullable=False, unique=True),
    Column("at", DateTime, nullable=False),
    Column("seen", Boolean, nullable=False),
    Column("data", LargeBinary),
)
ADD, COUNT = notes.insert(), select(func.count().label("many")).select_from(notes)
NAMED = select(notes).where(notes.c.name.in_(bindparam("names", expanding=True))).order_by(notes.c.number)
SINCE = select(notes.c.name).where(notes.c.at >= bindparam("since"), notes.c.seen == bindparam("seen"))
AT = datetime(2026, 1, 2, 3, 4, 5, 678)


@pytest.fixture
def transactions(database_url: str) -> Iterator[Transactions]:
    engine = open_database(database_url, metadata)
    yield Transactions(engine)
    engine.dispose()


def add(transactions: Transactions, name: str, **values: object) -> int:
    with transactions.writing() as write:
        return write.change(ADD, **{"name": name, "at": AT, "seen": True, "data": b"\0\xff", **values})


def many(transactions: Transactions) -> int:
    with transactions.reading() as read:
        return int(next(read.rows(COUNT)).many)


def test_what_is_written_is_read_back_with_its_types(transactions: Transactions) -> None:
    numbers = [add(transactions, "one"), add(transactions, "two", seen=False, data=None)]
    assert numbers == [1, 2]
    with transactions.reading() as read:
        rows = [tuple(row) for row in read.rows(NAMED, names=["one", "two", "'; --"])]
        assert rows == [(1, "one", AT, True, b"\0\xff"), (2, "two", AT, False, None)]
        assert list(read.rows(NAMED, names=[])) == []
        assert [row.name for row in read.rows(SINCE, since=AT, seen=False)] == ["two"]
        assert list(read.rows(SINCE, since=AT.replace(year=2027), seen=False)) == []
        assert list(read.rows(text("SELECT name FROM notes WHERE number = :number"), number=2)) == [("two",)]


def test_a_delete_takes_its_values_and_a_failure_leaves_nothing(transactions: Transactions) -> None:
    add(transactions, "one")
    gone = notes.delete().where(notes.c.name == bindparam("gone"))

    def replace_twice() -> None:
        with transactions.writing() as write:
            write.change(gone, gone="one")
            for _ in range(2):
                write.change(ADD, name="two", at=AT, seen=True, data=None)

    with pytest.raises(IntegrityError):
        replace_twice()
    assert many(transactions) == 1
    with transactions.writing() as write:
        write.change(gone, gone="one")
    assert many(transactions) == 0


def test_a_reader_sees_one_state_while_others_write(transactions: Transactions) -> None:
    with transactions.reading() as read:
        assert next(read.rows(COUNT)).many == 0
        add(transactions, "one")
        assert next(read.rows(COUNT)).many == 0
    assert many(transactions) == 1


def test_a_value_that_is_missing_is_an_error(transactions: Transactions) -> None:
    add(transactions, "one")
    with pytest.raises((TypeError, StatementError), match="names"), transactions.reading() as read:
        list(read.rows(NAMED, nmaes=["one"]))
    with pytest.raises((TypeError, StatementError), match="seen"), transactions.writing() as write:
        write.change(ADD, name="two", at=AT)
    assert many(transactions) == 1


def test_threads_and_sqlalchemys_own_transactions_take_turns(transactions: Transactions) -> None:
    engine = transactions._engine

    def work(number: int) -> None:
        if number % 2:
            add(transactions, f"{number}")
            return
        with writing(engine) as connection:
            connection.execute(ADD, {"name": f"{number}", "at": AT, "seen": True})
        with reading(engine) as connection:
            assert connection.execute(COUNT).scalar_one() <= 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert many(transactions) == 200


def test_errors_leave_all_connections_to_the_next_and_so_does_the_engines_end(transactions: Transactions) -> None:
    def fail_after_a_change() -> None:
        with transactions.writing() as write:
            write.change(ADD, name="one", at=AT, seen=True, data=None)
            raise ZeroDivisionError

    for _ in range(2 * READERS):
        with pytest.raises(DBAPIError), transactions.reading() as read:
            list(read.rows(text("SELECT * FROM nothing")))
        with pytest.raises(ZeroDivisionError):
            fail_after_a_change()
    transactions._engine.dispose()
    assert many(transactions) == 0
    assert add(transactions, "one") >= 1


def test_a_file_that_cannot_be_opened_is_a_database_that_does_not_answer(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata)
    transactions = Transactions(engine)
    engine.dispose()
    (tmp_path / "db.sqlite").unlink()
    (tmp_path / "db.sqlite").mkdir()
    for begin in (transactions.reading, transactions.writing):
        with pytest.raises(OperationalError), begin():
            pass


def test_one_that_is_not_to_wait_says_that_it_would_have_to(transactions: Transactions, database_url: str) -> None:
    def is_busy() -> list[bool]:
        found = []
        for begin in (transactions.writing, transactions.reading):
            try:
                with begin(wait=False) as one:
                    list(one.rows(COUNT))
            except BusyError:
                found.append(True)
            else:
                found.append(False)
        return found

    if not database_url.startswith("sqlite"):
        assert is_busy() == [True, True]
        return
    assert is_busy() == [False, False]
    with transactions.writing(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(is_busy).result() == [True, False]
    other = open_database(database_url, metadata)  # as another process has it
    with writing(other):
        assert is_busy() == [True, False]
    other.dispose()
    with ExitStack() as stack:
        for _ in range(READERS):
            stack.enter_context(transactions.reading())
        assert is_busy() == [False, True]
    assert is_busy() == [False, False]
    assert add(transactions, "one") == 1


def test_who_is_to_wait_does_so_after_one_that_was_not(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/db.sqlite"
    transactions, other = Transactions(open_database(url, metadata)), open_database(url, metadata)
    with ThreadPoolExecutor(1) as pool:
        with writing(other):  # as another process has it
            with pytest.raises(BusyError), transactions.writing(wait=False):
                pass
            waiting = pool.submit(add, transactions, "one")
            assert wait([waiting], timeout=0.3).not_done
        assert waiting.result() == 1
    with transactions.writing(wait=False) as write:
        assert len(list(write.rows(COUNT))) == 1
    for engine in (transactions._engine, other):
        engine.dispose()


RECOVERS = """
import fcntl, sys
with open(sys.argv[1], "r+b") as index:
    for lock in (120, 122):  # SQLite's locks of who writes, and of who recovers
        fcntl.lockf(index, fcntl.LOCK_EX, 1, lock)
    index.write(bytes(96))  # no index that anybody could go by
    index.flush()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_nobody_waits_who_is_not_to_while_another_process_recovers_the_file_of_a_killed_one(tmp_path: Path) -> None:
    transactions = Transactions(open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata))
    add(transactions, "one")
    command = [sys.executable, "-c", RECOVERS, str(tmp_path / "db.sqlite-shm")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BusyError), transactions.writing(wait=False):
            pass
        other.communicate()
    assert add(transactions, "two") == 2
    transactions._engine.dispose()
