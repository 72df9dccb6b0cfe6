"""Locks on files: who holds one, who only looks, and what a killed holder leaves."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from outlearn.errors import ConflictError
from outlearn.files import write_atomic
from outlearn.locks import holder, holding, is_held, locked, take


def test_a_lock_keeps_others_out(tmp_path: Path) -> None:
    path = tmp_path / "count"
    write_atomic(path, b"0")

    def add_one(_: int) -> None:
        with locked(path):
            write_atomic(path, b"%d" % (int(path.read_bytes()) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(40)))
    assert path.read_bytes() == b"40"


def test_a_lock_tells_who_holds_it_and_is_free_when_they_are_gone(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    assert holder(lock) is None
    assert not lock.exists()
    with holding(lock):
        assert holder(lock) == os.getpid()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        with pytest.raises(ConflictError, match="another process holds"), holding(lock):
            pass
    assert holder(lock) is None


def test_a_killed_holder_leaves_the_lock_free(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    code = (
        "import sys, signal\nfrom pathlib import Path\nfrom outlearn.locks import holding\n"
        "with holding(Path(sys.argv[1])):\n    print('held', flush=True)\n    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        assert holder(lock) == process.pid
        assert take(lock) is None
        process.send_signal(signal.SIGKILL)
    assert not is_held(lock)
    with holding(lock):
        assert holder(lock) == os.getpid()


def test_a_lock_is_held_until_every_copy_of_it_is_closed(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    file = take(lock, "a name")
    assert file
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, pass_fds=[file.fileno()]) as process:
        file.close()
        assert is_held(lock)
        assert holder(lock) is None  # what it says is no process
        process.communicate()
    assert not is_held(lock)


def test_a_child_that_was_passed_no_copy_does_not_hold_it(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    file = take(lock)
    assert file
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(b"begun\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"begun\n"
        file.close()
        assert not is_held(lock)
        process.communicate()


def test_who_only_looks_keeps_nobody_from_a_lock(tmp_path: Path) -> None:
    lock, done = tmp_path / "x.lock", Event()

    def look() -> None:
        while not done.is_set():
            is_held(lock)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(look)
        try:
            for _ in range(200):
                with holding(lock):
                    pass
        finally:
            done.set()
