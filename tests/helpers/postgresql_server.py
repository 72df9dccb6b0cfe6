"""A PostgreSQL server for tests, where its programs are installed."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

BINARIES = ":".join(["/usr/lib/postgresql/17/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/15/bin"])
UNSAFE = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=", "max_connections=200")


class PostgreSQL:
    """A server that listens on a socket in its folder, and nowhere else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new, empty database. Yields its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self._run(f"CREATE DATABASE {name}")
        try:
            yield f"postgresql+psycopg://tester@/{name}?host={self._folder}"
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    def _run(self, statement: str) -> None:
        command = [_program("psql"), "-qXh", str(self._folder), "-U", "tester", "-c", statement, "postgres"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def is_installed() -> bool:
    """Whether a server, its client and the driver are here."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return False
    return all(shutil.which(name, path=_path()) for name in ("initdb", "postgres", "psql"))


@contextmanager
def running() -> Iterator[PostgreSQL]:
    """A server with its files in a new folder; it keeps nothing."""
    folder = Path(mkdtemp(prefix="outlearn-pg-"))  # pytest's folders have names too long for a socket
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL does not run as root
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    init = [_program("initdb"), "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"]
    subprocess.run(init, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
    options = [part for one in UNSAFE for part in ("-c", one)]
    serve = [_program("postgres"), "-D", str(data), "-k", str(folder), *options]
    with (folder / "log").open("wb") as log, subprocess.Popen(serve, user=user, cwd=folder, stderr=log) as server:
        try:
            _wait(server, folder)
            yield PostgreSQL(folder)
        finally:
            server.terminate()
            server.wait(60)
            shutil.rmtree(folder)


def _wait(server: "subprocess.Popen[bytes]", folder: Path) -> None:
    ready = [_program("pg_isready"), "-qh", str(folder), "-t", "1"]
    while subprocess.run(ready, check=False).returncode != 0:
        if server.poll() is not None:
            raise RuntimeError((folder / "log").read_text())


def _program(name: str) -> str:
    return shutil.which(name, path=_path()) or name


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{BINARIES}"
