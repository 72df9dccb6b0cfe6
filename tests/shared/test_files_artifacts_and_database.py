"""State on disk: whole or not at all, also when a writer is killed or two processes begin at once."""

import errno
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import (
    URL,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError as DuplicateError

from outlearn import database
from outlearn.artifacts import LocalArtifactStore
from outlearn.database import open_database, reading, writing
from outlearn.errors import ConfigError, IntegrityError, InvalidInputError, NotFoundError
from outlearn.files import create_once, private_folder, write_atomic
from outlearn.settings import ServerSettings

metadata = MetaData()
counters = Table("counters", metadata, Column("name", String(20), primary_key=True), Column("value", Integer))

# files


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_atomic, create_once])
def test_a_loss_of_power_takes_neither_a_file_nor_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., object]
) -> None:
    sync, synced = os.fsync, list[tuple[bool, bool]]()

    def syncing(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "file").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", syncing)
    write(tmp_path / "file", b"data")
    assert synced[0] == (False, False), "its content first"
    assert synced[-1] == (True, True), "and then the folder that has its name"
    synced.clear()
    write_atomic(tmp_path / "file", b"fast", durable=False)
    assert synced == []
    write(tmp_path / "new" / "newer" / "file", b"data")
    assert [is_folder for is_folder, _ in synced].count(True) >= 3, "the names of new folders, too"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_folders_is_written_to_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refusing)
    write_atomic(tmp_path / "file", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize("name", ["x" * 255, "\N{PILE OF POO}" * 63, ".hidden"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path, name: str) -> None:
    write_atomic(tmp_path / name, b"data")
    assert (tmp_path / name).read_bytes() == b"data"
    assert create_once(tmp_path / name, b"other") == b"data"


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "folder", b"data")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("write", [write_atomic, create_once])
def test_what_cannot_be_written_is_named_and_not_its_draft(tmp_path: Path, write: Callable[..., object]) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError) as refused:
        write(tmp_path / "file" / "card.json", b"data")
    assert (refused.value.filename, refused.value.filename2) == (str(tmp_path / "file" / "card.json"), None)
    assert "draft" not in str(refused.value)


def test_a_folder_in_the_way_is_named_and_not_the_draft(tmp_path: Path) -> None:
    (tmp_path / "card.json").mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        write_atomic(tmp_path / "card.json", b"data")
    assert str(refused.value).endswith(f"Is a directory: '{tmp_path}/card.json'")


WRITER = """
import sys
from pathlib import Path
from outlearn.files import write_atomic
path = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_atomic(path, str(number % 10).encode() * 3_000_000)
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        seen = 0
        while seen < 20 or not path.exists():
            if path.exists():
                data = path.read_bytes()
                assert len(data) == 3_000_000
                assert len(set(data)) == 1
                seen += 1
        writer.send_signal(signal.SIGKILL)
    data = path.read_bytes()
    assert (len(data), len(set(data))) == (3_000_000, 1)
    write_atomic(path, b"after")
    assert path.read_bytes() == b"after"


def test_of_many_that_create_a_file_once_all_get_the_same(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(lambda number: create_once(path, b"%d" % number), range(64)))
    assert got == {path.read_bytes()}
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_nlink == 1


# artifacts


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=2000))
def test_an_artifact_comes_back_by_its_digest(tmp_path: Path, data: bytes) -> None:
    store = LocalArtifactStore(tmp_path)
    digest = store.put(data)
    assert store.put(data) == digest
    assert store.has(digest)
    assert store.get(digest) == data


def test_a_damaged_artifact_is_refused_and_a_missing_one_named(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    digest = store.put(b"weights")
    (tmp_path / digest[:2] / digest).write_bytes(b"other weights")
    with pytest.raises(IntegrityError, match="was damaged on disk"):
        store.get(digest)
    with pytest.raises(NotFoundError, match="no artifact"):
        store.get("0" * 64)
    assert not store.has("0" * 64)


@pytest.mark.parametrize("digest", ["", "../" + "0" * 61, "0" * 63, "0" * 64 + "\n", "A" * 64, "/etc/passwd"])
def test_a_digest_cannot_be_a_path(tmp_path: Path, digest: str) -> None:
    store = LocalArtifactStore(tmp_path)
    with pytest.raises(InvalidInputError, match="is not a SHA-256 digest"):
        store.get(digest)
    with pytest.raises(InvalidInputError):
        store.has(digest)


# databases

OPENER = """
import sys
from sqlalchemy import Column, Integer, MetaData, String, Table, update
from outlearn.database import open_database, writing
metadata = MetaData()
counters = Table("counters", metadata, Column("name", String(20), primary_key=True), Column("value", Integer))
more = [Table(f"more_{i}", metadata, Column("id", Integer, primary_key=True)) for i in range(10)]
print("ready", flush=True)
sys.stdin.readline()
for url in sys.argv[1:]:
    engine = open_database(url, metadata)
    with writing(engine) as connection:
        connection.execute(counters.insert().prefix_with("OR IGNORE").values(name="n", value=0))
        connection.execute(update(counters).values(value=counters.c.value + 1))
    engine.dispose()
"""


def test_processes_that_create_the_tables_at_once_both_succeed(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/new/{number}.sqlite" for number in range(20)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, *urls], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    for process in processes:
        process.communicate(timeout=60)
    assert [process.returncode for process in processes] == [0, 0]
    for url in urls:
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            assert connection.execute("select value from counters").fetchall() == [(2,)]
        connection.close()


@pytest.mark.parametrize("name", ["a%20b", "what?", "a#b", "ü @:", "c=d&e"])
def test_a_database_is_in_its_home_whatever_the_name_of_that_is(tmp_path: Path, name: str) -> None:
    engine = open_database(ServerSettings(home=tmp_path / name / "home").database("forum"), metadata)
    engine.dispose()
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert (tmp_path / name / "home" / "forum.sqlite").is_file()


def test_a_database_is_in_its_home_with_sqlalchemy_2_0_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves %3F in a URL as it is; SQLAlchemy 2.1 makes a question mark of it."""
    monkeypatch.setattr(database, "make_url", lambda url: URL.create("sqlite", database=url.removeprefix("sqlite:///")))
    open_database(database.sqlite_url(tmp_path / "a%20b?" / "forum.sqlite"), metadata).dispose()
    assert {path.name for path in tmp_path.iterdir()} == {"a%20b?"}


def test_a_write_transaction_lets_no_other_in_between_its_read_and_its_write(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata)
    with writing(engine) as connection:
        connection.execute(insert(counters).values(name="n", value=0))

    def add_one(_: int) -> None:
        with writing(engine) as connection:
            value = connection.execute(select(counters.c.value)).scalar_one()
            connection.execute(update(counters).values(value=value + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(100)))
    with reading(engine) as connection:
        assert connection.execute(select(counters.c.value)).scalar_one() == 100
    engine.dispose()


def test_columns_and_indexes_of_a_later_version_are_added_to_the_tables_of_an_earlier_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/db.sqlite"
    engine = open_database(url, metadata)
    with writing(engine) as connection:
        connection.execute(insert(counters).values(name="n", value=7))
    engine.dispose()
    newer = MetaData()
    columns = (Column("name", String(20), primary_key=True), Column("value", Integer), Column("note", String(9)))
    table = Table(counters.name, newer, *columns, Index("by_note", "note"))
    for _ in range(2):
        engine = open_database(url, newer)
        with reading(engine) as connection:
            assert connection.execute(select(table)).one() == ("n", 7, None)
            assert [index["name"] for index in inspect(connection).get_indexes(counters.name)] == ["by_note"]
        engine.dispose()


def test_a_reader_sees_one_state_and_blocks_no_writer(database_url: str) -> None:
    engine = open_database(database_url, metadata)
    count = select(func.count()).select_from(counters)
    with reading(engine) as reader:
        assert reader.execute(count).scalar_one() == 0
        with writing(engine) as writer:
            writer.execute(insert(counters).values(name="n", value=1))
        assert reader.execute(count).scalar_one() == 0
    with reading(engine) as reader:
        assert reader.execute(count).scalar_one() == 1
    engine.dispose()


def test_what_fails_in_a_transaction_leaves_no_part_of_it(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata)

    def insert_twice() -> None:
        with writing(engine) as connection:
            connection.execute(insert(counters).values(name="n", value=1))
            connection.execute(insert(counters).values(name="n", value=2))

    with pytest.raises(DuplicateError):
        insert_twice()
    with writing(engine) as connection:
        assert connection.execute(select(func.count()).select_from(counters)).scalar_one() == 0
    engine.dispose()


def test_a_transaction_of_a_killed_process_is_undone_and_its_lock_freed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/db.sqlite"
    code = OPENER.split("sys.stdin")[0].replace('print("ready", flush=True)', "") + (
        "engine = open_database(sys.argv[1], metadata)\n"
        "with writing(engine) as connection:\n"
        "    connection.execute(counters.insert().values(name='n', value=1))\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        holder.kill()
    engine = open_database(url, metadata)
    with writing(engine) as connection:
        assert connection.execute(select(func.count()).select_from(counters)).scalar_one() == 0
    engine.dispose()


def test_threads_share_one_engine(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata)
    barrier = threading.Barrier(4)

    def insert_one(number: int) -> None:
        barrier.wait(timeout=30)
        with writing(engine) as connection:
            connection.execute(insert(counters).values(name=str(number), value=number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(insert_one, range(4)))
    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(counters)).scalar_one() == 4
    engine.dispose()


def test_writers_that_wait_keep_no_connection_from_readers(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata)
    begun, in_use = threading.Barrier(21), [0]
    event.listen(engine, "checkout", lambda *_: in_use.append(engine.pool.checkedout()))

    def insert_one(number: int) -> None:
        begun.wait(timeout=30)
        with writing(engine) as connection:
            connection.execute(insert(counters).values(name=str(number), value=number))

    with ThreadPoolExecutor(20) as pool:
        with writing(engine):
            written = pool.map(insert_one, range(20))
            begun.wait(timeout=30)
            for _ in range(100):
                with reading(engine) as connection:
                    assert connection.execute(select(func.count()).select_from(counters)).scalar_one() == 0
        list(written)
    assert max(in_use) == 2, "a writer and a reader"
    engine.dispose()


@pytest.mark.parametrize("url", ["garbage", "sqlit:///x", "", "nosuch://host/db"])
def test_what_is_not_a_database_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="not a database URL"):
        open_database(url, metadata)


def test_a_file_that_is_no_database_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "db.sqlite").write_bytes(b"certainly not a database" * 100)
    with pytest.raises(ConfigError, match="cannot open the database"):
        open_database(f"sqlite:///{tmp_path}/db.sqlite", metadata)
    assert (tmp_path / "db.sqlite").read_bytes() == b"certainly not a database" * 100


def test_a_password_in_the_url_is_not_shown() -> None:
    with pytest.raises(ConfigError) as failed:
        open_database("postgresql+psycopg://ada:hunter2@127.0.0.1:1/db", metadata)
    assert "hunter2" not in str(failed.value)


def test_umask_does_not_open_private_files(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_once(tmp_path / "key", b"secret")
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


# what other users of the machine may see


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Most machines' umask: what is not made private, everybody may read."""
    old = os.umask(0o022)
    yield
    os.umask(old)


@pytest.mark.usefixtures("open_umask")
def test_a_home_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    home = ServerSettings(home=tmp_path / "runs" / "mine")
    engine = open_database(home.database("forum"), metadata)
    with writing(engine) as connection:
        connection.execute(insert(counters).values(name="n", value=1))
    assert mode(home.home) == 0o700
    found = {path.name: mode(path) for path in home.home.glob("forum*")}
    assert found == {"forum.sqlite": 0o600, "forum.sqlite-wal": 0o600, "forum.sqlite-shm": 0o600}
    digest = LocalArtifactStore(home.home / "artifacts").put(b"not shared")
    assert [mode(path) for path in (home.home / "artifacts", *home.home.rglob(digest))] == [0o700, 0o600]
    engine.dispose()


@pytest.mark.usefixtures("open_umask")
def test_a_home_folder_that_others_may_look_into_is_closed_when_a_server_opens_it(tmp_path: Path) -> None:
    home = ServerSettings(home=tmp_path / "home")
    home.home.mkdir()
    with sqlite3.connect(home.home / "forum.sqlite") as older:
        older.execute("PRAGMA journal_mode = WAL")
        older.execute("CREATE TABLE old (id INTEGER)")
        assert {mode(path) for path in home.home.iterdir()} == {0o644}
        open_database(home.database("forum"), metadata).dispose()
        assert mode(home.home) == 0o700
        assert {mode(path) for path in home.home.glob("forum*")} == {0o600}
    older.close()


@pytest.mark.parametrize(
    ("before", "after"), [(0o755, 0o700), (0o775, 0o700), (0o750, 0o750), (0o500, 0o500), (0o1777, 0o1777)]
)
def test_a_folder_that_was_opened_to_a_group_alone_stays_so_and_nothing_is_loosened(
    tmp_path: Path, before: int, after: int
) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(before)
    private_folder(folder)
    assert folder.stat().st_mode & 0o7777 == after


READER = """
import os, sys
from pathlib import Path
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
root = Path(sys.argv[1])
try:
    list(root.iterdir())
    print("entered", end=" ")
except PermissionError:
    pass
for name in sys.argv[2:]:
    try:
        (root / name).read_bytes()
        print(name, end=" ")
    except PermissionError:
        pass
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.usefixtures("open_umask")
def test_another_user_of_the_machine_reads_nothing_of_a_home_folder() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = ServerSettings(home=Path(folder) / "home")
        write_atomic(home.home / "results" / "run.json", b"public")
        open_database(home.database("evaluation"), metadata).dispose()
        LocalArtifactStore(home.home / "artifacts").put(b"not shared")
        names = [str(path.relative_to(home.home)) for path in home.home.rglob("*") if path.is_file()]
        assert {"evaluation.sqlite", "results/run.json"} < set(names)

        def seen() -> list[str]:
            command = [sys.executable, "-S", "-c", READER, str(home.home), *names]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

        assert seen() == []
        home.home.chmod(0o755)
        assert seen() == ["entered", "results/run.json"], "databases and artifacts do not hang on the folder alone"


LOCKER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)  # where SQLite's connections have their locks
"""


def test_a_database_that_is_opened_again_keeps_the_locks_that_its_process_has(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    engine = open_database(f"sqlite:///{path}", metadata)
    with reading(engine) as connection:
        connection.execute(select(counters)).all()
        open_database(f"sqlite:///{path}", metadata).dispose()
        command = [sys.executable, "-S", "-c", LOCKER, str(path)]
        locking = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "BlockingIOError" in locking.stderr
    engine.dispose()


# homes that share a PostgreSQL database


def count_up(settings: ServerSettings) -> int:
    """Adds to a counter in the home's tables, and says how far it got."""
    engine = open_database(settings.database("forum"), metadata)
    with writing(engine) as connection:
        connection.execute(insert(counters).values(name=os.urandom(8).hex(), value=1))
    with reading(engine) as connection:
        count = connection.execute(select(func.count()).select_from(counters)).scalar_one()
    engine.dispose()
    return int(count)


def test_each_home_has_tables_of_its_own_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    one, two = (ServerSettings(home=tmp_path / name, database_url=postgresql_url) for name in ("One 1", "two"))
    assert [count_up(one), count_up(one), count_up(two)] == [1, 2, 1]
    assert (one.home / "database-schema").read_text().startswith("outlearn_one_1_")
    moved = two.model_copy(update={"home": two.home.rename(tmp_path / "elsewhere")})
    assert count_up(moved) == 2


def test_a_schema_can_be_named_and_shared(tmp_path: Path, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLEARN_DATABASE_URL", postgresql_url)
    monkeypatch.setenv("OUTLEARN_DATABASE_SCHEMA", "teams")
    assert [count_up(ServerSettings(home=tmp_path / name)) for name in ("one", "two")] == [1, 2]
    assert not (tmp_path / "one" / "database-schema").exists()
    with pytest.raises(ValidationError):
        ServerSettings(home=tmp_path, database_schema='a"; drop')


def test_servers_of_a_new_home_that_start_at_once_make_its_schema_once(tmp_path: Path, postgresql_url: str) -> None:
    settings = ServerSettings(home=tmp_path / "home", database_url=postgresql_url)
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(count_up, [settings] * 6))[-1] == 6


def test_a_write_in_one_home_does_not_wait_for_one_in_another(tmp_path: Path, postgresql_url: str) -> None:
    engines = [
        open_database(ServerSettings(home=tmp_path / name, database_url=postgresql_url).database("x"), metadata)
        for name in ("one", "two")
    ]
    with writing(engines[0]), writing(engines[1]) as connection:
        connection.execute(insert(counters).values(name="n", value=1))
    for engine in engines:
        engine.dispose()
