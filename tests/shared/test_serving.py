"""HTTP as the kit serves it, against clients that mean no good: web pages, floods, and those that never finish."""

import asyncio
import contextlib
import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from outlearn.identity import TokenFile
from outlearn.server import make_server
from outlearn.serving import ARRIVAL_SECONDS, TURNS, Limits, at_work, serve_http, step_aside
from outlearn.settings import ServerSettings
from outlearn.testing import http_server

HERE = Path(__file__).parent
MIB = 1 << 20
PATIENCE_SECONDS = 5.0
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "echo"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hello"}}}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenFile:
    file = TokenFile(tmp_path_factory.mktemp("tokens") / "tokens.json")
    file.issue("nobody")
    return file


@pytest.fixture(scope="module")
def url(tokens: TokenFile) -> Iterator[str]:
    with contextlib.chdir(HERE), http_server("strict_echo_server", "--tokens", str(tokens.path)) as address:
        yield address


@pytest.fixture
def ada(tokens: TokenFile) -> dict[str, str]:
    return headers(tokens.issue("ada"))


def headers(token: str) -> dict[str, str]:
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    return accept | {"Authorization": f"Bearer {token}"}


def who(answer: httpx2.Response) -> str:
    """Whom the echo server took the caller for."""
    data = answer.text.split("data: ", 1)[1]
    return str(json.loads(data)["result"]["structuredContent"]["agent"])


def head(url: str, extra: dict[str, str]) -> bytes:
    """The head of a POST, line by line."""
    lines = ["POST /mcp HTTP/1.1", f"Host: {urlsplit(url).netloc}", *(f"{k}: {v}" for k, v in extra.items())]
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


@contextlib.contextmanager
def connection(url: str) -> Iterator[socket.socket]:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=PATIENCE_SECONDS) as one:
        yield one


def all_of(one: socket.socket) -> bytes:
    """What comes until the server closes the connection; a TimeoutError where it does not."""
    return b"".join(iter(lambda: one.recv(65536), b""))


# bodies


def chunks() -> Iterator[bytes]:
    yield from [b" " * MIB] * 5


BODIES: list[tuple[int, Callable[[], Any], dict[str, str]]] = [
    (413, lambda: b" " * (5 * MIB), {}),
    (413, chunks, {}),
    (400, lambda: b"[" * 200_000, {}),
    (400, lambda: json.dumps(CALL).replace('"hello"', '{"a":' * 5_000 + "1" + "}" * 5_000).encode(), {}),
    (400, lambda: b"9" * 100_000, {}),
    (400, lambda: gzip.compress(json.dumps(CALL).encode()), {"Content-Encoding": "gzip"}),
    (400, lambda: json.dumps(CALL).encode(), {"Content-Type": "text/plain"}),
]


@pytest.mark.parametrize("era", [{}, MODERN])
@pytest.mark.parametrize(("status", "body", "extra"), BODIES)
def test_a_body_that_would_cost_much_is_refused(
    url: str, ada: dict[str, str], era: dict[str, str], status: int, body: Callable[[], Any], extra: dict[str, str]
) -> None:
    assert httpx2.post(url, headers=ada | era | extra, content=body()).status_code == status
    assert who(httpx2.post(url, headers=ada, json=CALL)) == "ada"


def test_a_huge_announced_body_is_refused_before_it_comes(url: str, ada: dict[str, str]) -> None:
    with connection(url) as one:
        one.sendall(head(url, ada | {"Content-Length": "99999999999"}))
        assert one.recv(65536).startswith(b"HTTP/1.1 413")


def test_no_body_is_waited_for_without_a_token(url: str) -> None:
    with connection(url) as one:
        one.sendall(head(url, {"Content-Type": "application/json", "Content-Length": "1000"}))
        assert one.recv(65536).startswith(b"HTTP/1.1 401")


def test_a_body_that_does_not_come_in_time_ends_the_call(url: str, ada: dict[str, str]) -> None:
    for _ in range(4):  # more than one caller may have open
        with connection(url) as one:
            one.sendall(head(url, ada | {"Content-Length": "1000"}) + b"{")
            assert b"200" not in all_of(one)
    assert who(httpx2.post(url, headers=ada, json=CALL)) == "ada"


# connections


def test_an_idle_connection_is_given_up_by_its_client_and_not_in_the_same_moment_by_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = list[uvicorn.Server]()
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, **_: served.append(server))
    settings = ServerSettings(home=tmp_path, port=0)
    serve_http(make_server("idle", settings, instructions="Nothing."), settings)
    [server] = served
    given_up = httpx2.Limits().keepalive_expiry
    assert given_up is not None
    assert 2 * given_up < server.config.timeout_keep_alive < ARRIVAL_SECONDS


def test_a_connection_on_which_nothing_is_said_is_closed(url: str) -> None:
    with connection(url) as one:
        assert all_of(one) == b""


def drip(one: socket.socket) -> None:
    """Send a byte of a head now and then, for as long as the server has patience, or we have."""
    one.settimeout(0.05)
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        one.sendall(b"X")
        with contextlib.suppress(TimeoutError):
            if one.recv(1) == b"":
                raise ConnectionResetError


def test_a_head_that_drips_is_not_waited_for(url: str) -> None:
    with connection(url) as one, pytest.raises(ConnectionError):
        drip(one)


def test_nor_on_a_connection_that_was_used_before(url: str, ada: dict[str, str]) -> None:
    body = json.dumps(CALL).encode()
    whole = head(url, ada | {"Content-Length": str(len(body))}) + body
    with connection(url) as one:
        one.sendall(whole)
        assert b"200 OK" in one.recv(65536)
        one.sendall(whole[:40])
        all_of(one)


def test_who_reads_no_answers_is_not_waited_for(url: str, ada: dict[str, str]) -> None:
    body = json.dumps(CALL | {"params": {"name": "echo", "arguments": {"text": "x" * MIB}}}).encode()
    ask = head(url, ada | {"Content-Length": str(len(body))}) + body
    with connection(url) as one, pytest.raises(ConnectionError):
        one.sendall(ask * 20)  # until nothing more goes through, and then until the server has enough


def test_what_is_no_request_leaves_no_line_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(HERE), http_server("echo_server") as open_url:
        upgrade = f"GET /healthz HTTP/1.1\r\nHost: {urlsplit(open_url).netloc}\r\nUpgrade: websocket\r\n"
        capfd.readouterr()
        for data in (b"\0\r\n\r\n", upgrade.encode() + b"Connection: Upgrade\r\n\r\n"):
            with connection(open_url) as one:
                one.sendall(data)
                assert one.recv(65536).startswith(b"HTTP/1.1 ")
        assert capfd.readouterr().err == ""


def test_one_agent_cannot_have_all_calls_to_itself(url: str, ada: dict[str, str], tokens: TokenFile) -> None:
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(httpx2.Client(headers=ada))
        for _ in range(2):
            stream = stack.enter_context(http.stream("GET", url, headers={"Accept": "text/event-stream"}))
            assert stream.status_code == 200
        refused = http.post(url, json=CALL)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "2 calls of yours are open" in refused.json()["error"]
        assert who(httpx2.post(url, headers=headers(tokens.issue("bob")), json=CALL)) == "bob"
    end = time.monotonic() + PATIENCE_SECONDS
    while httpx2.post(url, headers=ada, json=CALL).status_code != 200:
        assert time.monotonic() < end


WORKER_THREADS = 40


def test_one_agents_calls_leave_a_thread_and_a_turn_to_another(tokens: TokenFile, tmp_path: Path) -> None:
    fifo, flood = tmp_path / "fifo", WORKER_THREADS + 10
    os.mkfifo(fifo)
    ada, bob = headers(tokens.issue("ada")), headers(tokens.issue("bob"))
    held = CALL | {"params": {"name": "hold", "arguments": {"fifo": str(fifo)}}}
    with (
        contextlib.chdir(HERE),
        http_server("slow_echo_server", "--tokens", str(tokens.path)) as slow,
        ThreadPoolExecutor(flood) as pool,
    ):
        answers = [pool.submit(httpx2.post, slow, headers=ada, json=held, timeout=60) for _ in range(flood)]
        descriptors = [os.open(fifo, os.O_WRONLY)]  # it opens once a call is at work
        assert who(httpx2.post(slow, headers=bob, json=CALL, timeout=PATIENCE_SECONDS)) == "bob"
        while not all(answer.done() for answer in answers):
            with contextlib.suppress(OSError):  # nobody is at work just now
                descriptors.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
            while descriptors:
                os.close(descriptors.pop())
        assert {answer.result().status_code for answer in answers} == {200}


def test_who_calls_and_leaves_again_and_again_has_no_more_threads_either(tokens: TokenFile, tmp_path: Path) -> None:
    fifo, flood = tmp_path / "fifo", WORKER_THREADS + 2 * TURNS + 10
    os.mkfifo(fifo)
    ada, bob = headers(tokens.issue("ada")), headers(tokens.issue("bob"))
    body = json.dumps(CALL | {"params": {"name": "hold", "arguments": {"fifo": str(fifo)}}}).encode()
    with contextlib.chdir(HERE), http_server("slow_echo_server", "--tokens", str(tokens.path)) as slow:
        assert who(httpx2.post(slow, headers=bob, json=CALL)) == "bob"  # from now on there are threads for bob as well
        for _ in range(flood):
            with connection(slow) as one:
                one.sendall(head(slow, ada | {"Content-Length": str(len(body))}) + body)
                one.settimeout(0.05)
                with contextlib.suppress(TimeoutError):  # the answer begins, and goes no further
                    all_of(one)
        writer = os.open(fifo, os.O_WRONLY)  # it opens once a call is at work
        try:
            assert who(httpx2.post(slow, headers=bob, json=CALL, timeout=PATIENCE_SECONDS)) == "bob"
        finally:
            fifo.unlink()  # later calls fail at once
            os.close(writer)


class App:
    """What stands behind the limits: it notes whom it serves, and goes on when it is told to."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.served: list[str] = []
        self.go_on, self._before = asyncio.Event(), before

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served.append(scope["user"].username)
        self._before()
        await self.go_on.wait()


def request(agent: str, method: str = "POST", length: bytes = b"9") -> Scope:
    user = AuthenticatedUser(AccessToken(token="", client_id=agent, scopes=[]))
    headers = [(b"mcp-method", b"subscriptions/listen")]  # which old protocols do not look at
    headers += [(b"content-length", length)] if length else []
    return {"type": "http", "method": method, "headers": headers, "user": user}


async def nothing(*_: Any) -> Any:
    raise AssertionError


async def serve(app: App, *requests: Scope) -> list[str]:
    """Whom the app serves before anybody is done. Afterwards all are served."""

    limits = Limits(app)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(limits(one, nothing, nothing)) for one in requests]
        for _ in calls:
            await asyncio.sleep(0)
        first = list(app.served)
        app.go_on.set()
    assert len(app.served) == len(requests)
    return first


async def test_a_caller_has_so_many_calls_at_work_and_the_others_wait_for_their_turn() -> None:
    flood = [request("ada") for _ in range(3 * TURNS)]
    assert await serve(App(), *flood, request("bob")) == ["ada"] * TURNS + ["bob"]


@pytest.mark.parametrize("length", [b"", b"4000000"])
async def test_a_callers_large_bodies_are_read_one_after_another(length: bytes) -> None:
    flood = [request("ada", length=length) for _ in range(2 * TURNS)]
    assert await serve(App(), *flood, request("ada"), request("bob", length=length)) == ["ada", "ada", "bob"]


async def test_calls_that_only_wait_take_no_turn() -> None:
    waiting, many = App(before=step_aside), 3 * TURNS
    assert len(await serve(waiting, *(request("ada") for _ in range(many)))) == many
    assert len(await serve(App(), *(request("ada", "GET") for _ in range(many)))) == many
    assert len(await serve(App(), *(request("ada") for _ in range(many)))) == TURNS


async def test_a_turn_is_kept_while_work_goes_on_for_who_has_left() -> None:
    go_on, served, more = asyncio.Event(), list[str](), 2 * TURNS

    async def work() -> None:
        with at_work():
            await go_on.wait()

    async with asyncio.TaskGroup() as group:

        async def leaving(scope: Scope, _: Receive, __: Send) -> None:
            served.append(scope["user"].username)
            group.create_task(work())
            await asyncio.sleep(0)

        limits = Limits(leaving)
        calls = [group.create_task(limits(request("ada"), nothing, nothing)) for _ in range(more)]
        for _ in range(3 * more):
            await asyncio.sleep(0)
        assert len(served) == TURNS
        go_on.set()
        await asyncio.gather(*calls)
    assert len(served) == more


async def test_who_listens_to_many_resources_is_answered_all_the_same(tokens: TokenFile, ada: dict[str, str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(contextlib.chdir(HERE))
        url = stack.enter_context(http_server("echo_server", "--tokens", str(tokens.path)))
        http = httpx2.AsyncClient(headers={"Authorization": ada["Authorization"]})
        http = await stack.enter_async_context(http)
        client = await stack.enter_async_context(Client(streamable_http_client(url, http_client=http)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            for number in range(3 * TURNS):
                await stack.enter_async_context(client.listen(resource_subscriptions=[f"echo://{number}"]))
            said = await client.call_tool("echo", {"text": "hello"})
    assert said.structured_content == {"text": "hello", "agent": "ada", "role": "agent"}


async def test_a_client_that_left_while_its_call_waited_is_no_error_of_the_servers() -> None:
    def gone() -> None:
        raise ClientDisconnect

    assert len(await serve(App(before=gone), request("ada"))) == 1


# sessions


def test_there_is_no_session_to_take_over(url: str, ada: dict[str, str], tokens: TokenFile) -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
    opened = httpx2.post(url, headers=ada, json=CALL | {"method": "initialize", "params": hello})
    assert opened.status_code == 200
    assert "mcp-session-id" not in opened.headers
    fixed = {"Mcp-Session-Id": "0" * 32}
    assert who(httpx2.post(url, headers=ada | fixed, json=CALL)) == "ada"
    assert who(httpx2.post(url, headers=headers(tokens.issue("bob")) | fixed, json=CALL)) == "bob"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_clients_of_either_protocol_need_none(url: str, ada: dict[str, str], mode: Any) -> None:
    seen: list[float] = []

    async def progress(done: float, _: float | None, __: str | None) -> None:
        seen.append(done)

    async with (
        httpx2.AsyncClient(headers={"Authorization": ada["Authorization"]}) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        said = await client.call_tool("echo", {"text": "hello"})
        await client.call_tool("count", {"to": 3}, progress_callback=progress)
    assert said.structured_content == {"text": "hello", "agent": "ada", "role": "agent"}
    assert seen == [1, 2, 3]


# web pages


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "https://localhost", "null", "http://localhost.evil.example:1"]
)
def test_a_web_page_from_elsewhere_is_refused(url: str, ada: dict[str, str], origin: str) -> None:
    assert httpx2.post(url, headers=ada | {"Origin": origin}, json=CALL).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "localhost.evil.example:80", "127.0.0.1.nip.io:80"]
)
def test_a_name_that_was_bound_to_our_address_is_refused(url: str, ada: dict[str, str], host: str) -> None:
    assert httpx2.post(url, headers=ada | {"Host": host}, json=CALL).status_code == 421


def test_no_web_page_is_allowed_to_send_json(url: str, ada: dict[str, str]) -> None:
    asks = {"Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"}
    preflight = httpx2.options(url, headers=asks)
    assert preflight.status_code == 401
    assert not [name for name in preflight.headers if name.startswith("access-control")]
    preflight = httpx2.options(url, headers=ada | asks)
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_without_tokens_a_web_page_is_refused_too() -> None:
    with contextlib.chdir(HERE), http_server("echo_server") as open_url:
        local = headers("none") | {"Authorization": ""}
        assert who(httpx2.post(open_url, headers=local, json=CALL)) == "local"
        for extra, status in (
            ({"Origin": "http://evil.example"}, 403),
            ({"Host": "evil.example:80"}, 421),
            ({"Content-Type": "text/plain"}, 400),
        ):
            assert httpx2.post(open_url, headers=local | extra, content=json.dumps(CALL)).status_code == status
        preflight = httpx2.options(open_url, headers={"Origin": "http://localhost:1"})
        assert not [name for name in preflight.headers if name.startswith("access-control")]
