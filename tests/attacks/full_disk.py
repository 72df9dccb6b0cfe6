"""A disk that is full in the middle of a call: nothing is charged or done twice, and nothing is left half done."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from floods import NoWorkers
from homes import ADA, RUNS, evaluating, file_run, refused, toy_home
from registry import Family
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from outlearn import transactions
from outlearn.database import set_up_sqlite
from outlearn.results import ResultBook

attacks = Family()


@contextmanager
def no_room_for_files() -> Iterator[None]:
    """Whatever is written cannot be brought to the disk."""
    with mock.patch.object(os, "fsync", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        yield


@contextmanager
def no_room_in(engine: Engine) -> Iterator[None]:
    """The database cannot grow by a page."""

    def fill(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # which means: no more than there are

    def set_up(connection: Any) -> None:
        set_up_sqlite(connection)
        fill(connection)

    engine.dispose()
    event.listen(engine, "connect", fill)
    try:
        with mock.patch.object(transactions, "set_up_sqlite", set_up):
            yield
    finally:
        event.remove(engine, "connect", fill)
        engine.dispose()


def until_full(act: Callable[[int], object]) -> int | None:
    """The number of the call that the full disk refused; None where a thousand went through."""
    return next((number for number in range(1000) if refused(lambda n=number: act(n), OSError, OperationalError)), None)


@attacks
def publishing_a_result(folder: Path) -> bool:
    """The answer was given and charged when its file could not be written: the same call gives it, and the file."""
    home = toy_home(folder)
    file_run(home, RUNS[0])
    with evaluating(home) as service:
        with no_room_for_files():
            refused(lambda: service.evaluate(ADA, RUNS[0], None), OSError)
        answers = [service.evaluate(ADA, RUNS[0], None) for _ in range(2)]
        once = service.budget(ADA).agent_left == 29 and len({one.pgr for one in answers}) == 1
        return once and ResultBook(home).lookup(RUNS[0]) is not None


@attacks
def charging(folder: Path) -> bool:
    """Where the ledger cannot grow, nothing is charged; afterwards each question is charged once."""
    home = toy_home(folder)
    for number, run_id in enumerate(RUNS[:40]):
        file_run(home, run_id, rng=number)
    with evaluating(home, agent_evaluations=99, daily_evaluations=99) as service:
        with no_room_in(service.engine):
            failed = until_full(lambda n: service.evaluate(ADA, RUNS[n], None))
        if failed is None or service.budget(ADA).agent_left != 99 - failed:
            return False
        for run_id in RUNS[: failed + 1]:
            service.evaluate(ADA, run_id, None)
        rows = service.leaderboard("", 99).rows
        return service.budget(ADA).agent_left == 98 - failed and len(rows) == failed + 1


@attacks
def submitting(folder: Path) -> bool:
    """A method that could not be stored is not queued, and the retry queues it once."""
    from outlearn_training.service import TrainingService
    from outlearn_training.settings import TrainingSettings

    service = TrainingService(TrainingSettings(home=toy_home(folder), max_waiting=1000), NoWorkers())
    given: dict[str, Any] = {"method": "vanilla", "file": None, "params": {}, "kind": "full", "task": ""}

    def submit(request_id: str) -> str:
        return service.submit(ADA, **given, request_id=request_id).run_id

    with no_room_for_files():
        failed = refused(lambda: submit("a"), OSError)
    none = not service.list_runs(ADA, None, 50, None).runs
    twice = submit("a") == submit("a")
    with no_room_in(service.engine):
        full = until_full(lambda n: submit(f"b{n}"))
    last = submit(f"b{full}") == submit(f"b{full}")
    return failed and none and twice and full is not None and last and service._queue.waiting() == full + 2


@attacks
def posting(folder: Path) -> bool:
    """A post is there whole, with its words in the index and its thread counted, or not at all."""
    from outlearn_forum.store import ForumStore

    store = ForumStore(f"sqlite:///{folder}/forum.sqlite", ResultBook(folder))
    thread = store.post_finding("ada", title="first", text="first", kind="error").post_id

    def reply(number: int) -> None:
        store.reply("bob", thread_id=thread, text=f"word{number} " + "more " * 200, request_id=f"r{number}")

    with no_room_in(store.engine):
        full = until_full(reply)
    if full is None:
        return False
    reply(full)
    reply(full)
    with store.engine.begin() as connection:
        posts = connection.exec_driver_sql("select count(*) from posts where kind is null").scalar()
        counted = connection.exec_driver_sql(f"select replies from posts where post_id = '{thread}'").scalar()
        intact = connection.exec_driver_sql("pragma integrity_check").scalar()
    store.engine.dispose()
    return (posts, counted, intact) == (full + 1, full + 1, "ok")


@attacks
def writing_a_file(folder: Path) -> bool:
    """The file is as it was, and nothing is left in the staging folder."""
    from outlearn_filesystem.settings import FilesystemSettings
    from outlearn_filesystem.workspace import Workspace

    space = Workspace(FilesystemSettings(home=folder), "ada")
    space.write_file("a", "old")
    with no_room_for_files():
        held = [
            refused(lambda: space.write_file("a", "new"), OSError),
            refused(lambda: space.edit_file("a", "old", "new"), OSError),
            refused(lambda: space.write_file("b", "new"), OSError),
        ]
    files = [path.name for path in space.root.iterdir()]
    staged = [*(folder / "workspaces" / ".staging").iterdir()]
    return all(held) and files == ["a"] and space.read_text("a") == "old" and not staged


@attacks
def noting_in_the_audit_log(folder: Path) -> bool:
    """A record that does not fit is taken back whole; the log stays whole, and goes on."""
    from outlearn.audit import AuditLog

    log = AuditLog(folder)
    log.append("first", "note")
    with no_room_for_files():
        held = refused(lambda: log.append("second", "note"), OSError)
    log.append("third", "note")
    log.verify()
    return held and [one.kind for one in log.records()] == ["first", "third"]
