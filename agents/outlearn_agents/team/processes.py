"""Child processes of a team.

Each has a session of its own, so that Ctrl-C reaches the runner alone. Its stdin is a pipe from the runner, by which it
notices that the runner is gone, however it ended.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import httpx2
from pydantic import BaseModel, ConfigDict, ValidationError

from outlearn.errors import PluginError, ServerUnreachableError
from outlearn.locks import holder
from outlearn.registry import SERVERS as SERVER_PLUGINS
from outlearn.registry import Registry
from outlearn_agents.run_folder import RunFolder

SERVERS = ("training", "evaluation", "forum", "filesystem")
SERVER_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
POLITE_SECONDS = 5.0
POLL_SECONDS = 0.05
UNFLUSHED = 120
"""Exit code of a Python process that could not write what it had to say, whatever code it wanted to end with."""
FULL_BYTES = 2**20
LAST_BYTES = 4096
ERROR_LINE = re.compile(r"^[ |]*((?:\w+\.)*\w+(?:Error|Exception): .+)$", re.MULTILINE)
# servers run agents' code, which has no use for a key
PRIVATE = ("ANTHROPIC_", "OUTLEARN_TOKEN")


def plugin_servers() -> tuple[str, ...]:
    """Tool servers that other packages registered, sorted. Raises PluginError where one has an impossible name."""
    names = tuple(name for name in Registry(SERVER_PLUGINS).names() if name not in SERVERS)
    for name in names:
        if not SERVER_NAME.fullmatch(name):
            raise PluginError(f"the server {name!r} in {SERVER_PLUGINS!r} must have a name like 'coin-toss'")
    return names


class Ready(BaseModel):
    """What a server writes once it knows its address."""

    model_config = ConfigDict(frozen=True)

    url: str
    pid: int


class Child:
    """A process with a log file."""

    def __init__(self, name: str, argv: list[str], log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._begin = output.tell()
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=output, stderr=output, env=dict(env), start_new_session=True
            )

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def ending(self) -> str:
        """How it ended: its exit code and, where it was not killed, why, by what it said last or by its disk."""
        why = self._why() if (self.code or 0) > 0 else ""
        return f"exit code {self.code}" + (f": {why}" if why else "")

    def _why(self) -> str:
        if errors := ERROR_LINE.findall(self._last_words()):
            return str(errors[-1])[:200]
        if self.code == UNFLUSHED or disk_is_full(self.log.parent):
            return f"it could not write to {str(self.log)!r}; is the disk full?"
        return ""

    def _last_words(self) -> str:
        with self.log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            begin = file.seek(max(self._begin, end - LAST_BYTES))
            return file.read(max(0, end - begin)).decode(errors="replace")

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and what it started, now."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Collect a process that has ended."""
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.code is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def disk_is_full(folder: Path) -> bool:
    """Whether there is no room to work in on the disk of this folder."""
    return shutil.disk_usage(folder).free < FULL_BYTES


def tail(log: Path, lines: int = 5) -> str:
    """The end of a log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join(text.strip().splitlines()[-lines:])


async def stop_children(children: Iterable[Child], seconds: float = STOP_SECONDS) -> None:
    """End processes: politely at first, after `seconds` by force. Cancelling this ends them by force at once."""
    waiting = list(children)
    for child in waiting:
        child.terminate()
    try:
        with anyio.move_on_after(seconds):
            while any(child.code is None for child in waiting):
                await anyio.sleep(POLL_SECONDS)
    finally:
        for child in waiting:
            child.kill()


def server_argv(folder: RunFolder, name: str, extra: Iterable[str] = (), port: int = 0) -> list[str]:
    """The command line of a tool server for this folder."""
    options = {"transport": "http", "port": str(port), "log-format": "json", "home": str(folder.root)}
    files = {"ready-file": str(folder.ready(name)), "tokens": str(folder.tokens)}
    pairs = [part for key, value in {**options, **files}.items() for part in (f"--{key}", value)]
    program = [f"outlearn_{name}"] if name in SERVERS else ["outlearn_agents.team.plugin_server", name]
    leash = [sys.executable, "-m", "outlearn_agents.team.bound_child", str(folder.held(name))]
    return [*leash, *program, *pairs, *extra]


def clean_environment() -> dict[str, str]:
    """This process's environment without keys."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE)}


def start_server(folder: RunFolder, name: str, extra: Iterable[str] = (), port: int = 0) -> Child:
    """Start a tool server; `extra` has further command-line options, port 0 is a free one."""
    return Child(name, server_argv(folder, name, extra, port), folder.log(name), clean_environment())


def end_orphans(folder: RunFolder) -> list[str]:
    """End agents and servers that a killed team runner left behind. Returns their names."""
    return [lock.stem for lock in sorted(folder.held("x").parent.glob("*.lock")) if _end_holder(lock)]


def _end_holder(lock: Path) -> int | None:
    """End the process that holds the lock, by force where it does not end by itself. Returns its id."""
    pid = holder(lock)
    if pid is None:
        return None
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + POLITE_SECONDS
    while holder(lock) == pid:
        if time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
    return pid


async def wait_ready(folder: RunFolder, names: Iterable[str], check: Callable[[], None]) -> dict[str, str]:
    """Wait until every server answers; returns their URLs by name. `check` is called again and again and may raise.

    Raises:
        ServerUnreachableError: one takes too long.
    """
    deadline = time.monotonic() + START_SECONDS
    urls: dict[str, str] = {}
    waiting = set(names)
    async with httpx2.AsyncClient(timeout=2.0) as http:
        while waiting:
            check()
            for name in sorted(waiting):
                if url := await _answers(http, folder.ready(name)):
                    urls[name] = url
                    waiting.remove(name)
                elif time.monotonic() > deadline:
                    raise ServerUnreachableError(
                        f"the {name} server did not start in {START_SECONDS:.0f} s: {tail(folder.log(name))}"
                    )
            await anyio.sleep(POLL_SECONDS)
    return urls


async def _answers(http: httpx2.AsyncClient, ready_file: Path) -> str | None:
    """The URL in the ready file, if a tool server answers there."""
    ready = _read(ready_file)
    if ready is None:
        return None
    try:
        answer = await http.get(ready.url.removesuffix("/mcp") + "/healthz")
    except httpx2.HTTPError:
        return None
    return ready.url if answer.status_code == 200 else None


def _read(ready_file: Path) -> Ready | None:
    try:
        return Ready.model_validate(json.loads(ready_file.read_bytes()))
    except (FileNotFoundError, ValueError, ValidationError):
        return None
