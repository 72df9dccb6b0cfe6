"""HTTP as the kit serves it: under which names, and how much of it one caller can use up."""

import asyncio
import json
import os
import resource
import socket
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from typing import Any

import structlog
import uvicorn
from anyio.to_thread import current_default_thread_limiter
from mcp.server import MCPServer
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from outlearn.errors import ConfigError
from outlearn.files import write_atomic
from outlearn.settings import ServerSettings, is_loopback, is_wildcard

BACKLOG = 2048
ARRIVAL_SECONDS = 20.0
IDLE_SECONDS = 15
"""Clients give an idle connection up after 5: a server that does so in the same moment loses them a call."""
CALLS_AT_ONCE = 128
TURNS = 8
LARGE_BODY = 1 << 16
DESCRIPTORS = 65_536
log = structlog.get_logger("outlearn")


def serve_http(server: MCPServer[Any], settings: ServerSettings) -> None:
    """Serve streamable HTTP until a signal comes. Raises ConfigError where the port is taken."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    # without sessions there is none to take over or to use up, and a restart of the server is no event
    app = server.streamable_http_app(stateless_http=True, transport_security=_names(settings.host, host))
    server.session_manager.asgi_app = Limits(server.session_manager.asgi_app)  # type: ignore[assignment]
    config = uvicorn.Config(
        app,
        http=HastyProtocol,
        ws="none",
        log_config=None,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=IDLE_SECONDS,
        server_header=False,
    )
    _raise_descriptors()
    with _listen(settings.host, settings.port) as listener:
        url = f"http://{host}:{listener.getsockname()[1]}/mcp"
        if settings.ready_file:
            write_atomic(settings.ready_file, json.dumps({"url": url, "pid": os.getpid()}).encode())
        log.info("listening", server=server.name, url=url, authenticated=settings.token_file is not None)
        uvicorn.Server(config).run(sockets=[listener])


class Limits:
    """Behind the check of the token: how much one caller may have going on at once.

    A caller has `TURNS` calls at work; further ones wait for their turn, before anything is done for them. So a caller
    who floods the server has little of its time, and never all of its worker threads. Of calls with large bodies, which
    keep everybody waiting while they are parsed, one is at work.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._large = defaultdict[str, asyncio.Lock](asyncio.Lock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429 to what is too much."""
        user = scope.get("user")
        caller = user.username if isinstance(user, AuthenticatedUser) else ""
        if self._open[caller] >= CALLS_AT_ONCE:
            await _refuse(scope, receive, send)
            return
        self._open[caller] += 1
        try:
            if scope["method"] == "GET":  # a stream of notifications, which is open for long and does nothing
                await self._app(scope, receive, send)
                return
            alone = self._large[caller] if _is_large(scope) else nullcontext()
            async with alone, _taking_turns(self._turns_of(caller)):
                with suppress(ClientDisconnect):  # while it waited, before its body was read
                    await self._app(scope, receive, send)
        finally:
            self._open[caller] -= 1

    def _turns_of(self, caller: str) -> asyncio.Semaphore:
        if caller not in self._turns:
            self._turns[caller] = asyncio.Semaphore(TURNS)
            current_default_thread_limiter().total_tokens += TURNS  # however many callers flood, a thread is left
        return self._turns[caller]


def _is_large(scope: Scope) -> bool:
    """Whether a request's body is large, or may be."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return not length.isdigit() or int(length) > LARGE_BODY


class _Turn:
    """One of the turns of a caller, given back once: when nobody needs it any more, or earlier."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns: asyncio.Semaphore | None = turns
        self._needed_by = 0

    @contextmanager
    def needed(self) -> Iterator[None]:
        self._needed_by += 1
        try:
            yield
        finally:
            self._needed_by -= 1
            if not self._needed_by:
                self.give_back()

    def give_back(self) -> None:
        if self._turns:
            self._turns.release()
            self._turns = None


_turn: ContextVar[_Turn | None] = ContextVar("turn", default=None)


def step_aside() -> None:
    """Give the turn of the present call to the caller's next one. For calls that wait, in no thread, for long."""
    if turn := _turn.get():
        turn.give_back()


def at_work() -> AbstractContextManager[None]:
    """Keep the turn of the present call until this is over, also where its caller has left: a thread cannot be stopped,
    and who calls and leaves, again and again, would have them all."""
    turn = _turn.get()
    return turn.needed() if turn else nullcontext()


@asynccontextmanager
async def _taking_turns(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    await turns.acquire()
    turn = _Turn(turns)
    before = _turn.set(turn)
    try:
        with turn.needed():
            yield
    finally:
        _turn.reset(before)


class HastyProtocol(H11Protocol):
    """Closes connections on which a request, head and body, is overdue, and those of who does not read the answers:
    uvicorn would wait for ever."""

    _overdue: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()  # a part of the next request may have come before the answer was whole

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(ARRIVAL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._overdue, self._unread):
            if timer:
                timer.cancel()

    def _watch(self) -> None:
        arrived = self.cycle and not self.cycle.more_body and not self.cycle.response_complete
        if not arrived and self._overdue is None:
            self._overdue = self.loop.call_later(ARRIVAL_SECONDS, self.transport.abort)
        elif arrived and self._overdue:
            self._overdue.cancel()
            self._overdue = None


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    error = f"{CALLS_AT_ONCE} calls of yours are open; wait for one of them"
    await JSONResponse({"error": error}, 429, {"Retry-After": "1"})(scope, receive, send)


def _names(host: str, shown: str) -> TransportSecuritySettings:
    names = [shown, "localhost", "127.0.0.1", "[::1]"] if is_loopback(host) else [shown]
    return TransportSecuritySettings(
        # a wildcard address has names that only the operator knows; there the tokens keep strangers out
        enable_dns_rebinding_protection=not is_wildcard(host),
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:*" for name in names],
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # the address, which is named already
        raise ConfigError(
            f"no listening on {host!r}, port {port} ({why}); pass another --port, or 0 for a free one"
        ) from error


def _raise_descriptors() -> None:
    """Room for connections, as far as the system grants it: each takes a descriptor, and many begin with 1,024."""
    room, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(room, min(most, DESCRIPTORS)), most))
