"""The tool-server kit: what it refuses to register, what callers see of errors, who they are, both transports."""

import contextlib
import errno
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx2
import pytest
from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field
from sqlalchemy import create_engine, text

import outlearn.server
from outlearn import READ_ONLY, OutlearnError, ServerSettings, ToolServer, make_server, run
from outlearn.errors import ConfigError, PluginError
from outlearn.identity import Caller, TokenFile
from outlearn.server import at_once_or_in_thread, keeps_turn
from outlearn.testing import connect, connect_http, connect_stdio, http_server
from outlearn.transactions import BusyError

HERE = Path(__file__).parent


def make(**settings: Any) -> ToolServer:
    return make_server("kit", ServerSettings(**settings), instructions="For tests.")


def refusal(capsys: pytest.CaptureFixture[str], build: Any, *options: str) -> str:
    """The one line on stderr with which `run` refuses these options."""
    with pytest.raises(SystemExit) as stopped:
        run(build, ServerSettings, "outlearn-kit", list(options))
    said = capsys.readouterr()
    assert stopped.value.code == 2
    assert said.out == ""
    assert said.err.startswith("outlearn-kit: ")
    assert said.err.count("\n") == 1, said.err
    return said.err


# registration


def test_two_tools_of_one_name_are_refused() -> None:
    server = make()

    @server.tool()
    def echo() -> str:
        """Echo."""
        return ""

    with pytest.raises(PluginError, match="'kit' has a tool 'echo' already"):
        server.tool(name="echo")(lambda: "")


def test_two_resources_of_one_uri_are_refused() -> None:
    server = make()

    @server.resource("kit://rules")
    def rules() -> str:
        """Rules."""
        return ""

    @server.resource("kit://page/{name}")
    def page(name: str) -> str:
        """Page."""
        return name

    for uri in ("kit://rules", "kit://page/{name}"):
        with pytest.raises(PluginError, match="already; rename one of them"):
            server.resource(uri)


@pytest.mark.parametrize("docstring", [None, "", "  \n "])
def test_a_tool_without_a_docstring_is_refused(docstring: str | None) -> None:
    def nameless() -> str:
        return ""

    nameless.__doc__ = docstring
    with pytest.raises(PluginError, match="'nameless' of server 'kit' needs a docstring"):
        make().add_tool(nameless)


def test_a_description_will_do_in_place_of_a_docstring() -> None:
    make().add_tool(lambda: "", "described", description="What it does.")


# errors


async def failing(error: Exception, *, asynchronous: bool) -> str:
    server = make()
    if asynchronous:

        @server.tool(name="fail")
        async def fail_later() -> str:
            """Fail."""
            raise error
    else:

        @server.tool(name="fail")
        def fail() -> str:
            """Fail."""
            raise error

    async with connect(server) as client:
        with pytest.raises(ToolError) as failed:
            await client.call("fail")
    return str(failed.value)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_outlearn_error_reaches_the_caller_with_its_message(asynchronous: bool) -> None:
    message = await failing(OutlearnError("no task 'x'; there are: math"), asynchronous=asynchronous)
    assert "no task 'x'; there are: math" in message


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("label of t3 is 1"),
        KeyError("label of t3 is 1"),
        PermissionError(errno.EACCES, "label of t3 is 1", "/vault/label of t3 is 1"),
    ],
)
async def test_any_other_exception_keeps_its_text_on_the_server(error: Exception, asynchronous: bool) -> None:
    message = await failing(error, asynchronous=asynchronous)
    assert "fail" in message
    assert "label" not in message
    assert "vault" not in message


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_explained_without_paths(number: int, asynchronous: bool) -> None:
    message = await failing(OSError(number, "No space left", "/vault/secret"), asynchronous=asynchronous)
    assert "the disk is full; try the same call again" in message
    assert "vault" not in message


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("vote", {"on": 0, "how": "up"}, "vote: on: must be greater than or equal to 1"),
        ("vote", {"how": "sideways"}, "vote: on: field required; how: must be 'up' or 'down'"),
        ("vote", {"on": 1, "how": "up", "why": "?"}, "vote takes no 'why'; it takes: on, how"),
        ("veto", {}, "no tool 'veto'; there are: vote"),
    ],
)
async def test_wrong_arguments_are_explained_in_plain_words(tool: str, arguments: dict[str, Any], words: str) -> None:
    server = make()

    @server.tool()
    def vote(on: Annotated[int, Field(ge=1)], how: Literal["up", "down"]) -> str:
        """Vote."""
        return how

    async with connect(server) as client:
        with pytest.raises(ToolError) as caught:
            await client.call(tool, **arguments)
    assert str(caught.value) == words


async def test_a_failing_database_is_explained_without_its_statements() -> None:
    server = make()

    @server.tool()
    def ask() -> str:
        """Ask a database that lacks the table."""
        engine = create_engine("sqlite://")
        try:
            with engine.connect() as connection:
                return str(connection.execute(text("select label from hidden_truth")))
        finally:
            engine.dispose()

    async with connect(server) as client:
        with pytest.raises(ToolError, match="the database does not answer at present; try the same call") as failed:
            await client.call("ask")
    assert "hidden_truth" not in str(failed.value)


async def test_a_resource_explains_our_errors_and_hides_others() -> None:
    server = make()

    @server.resource("kit://ours")
    def ours() -> str:
        """Fail with an explanation."""
        raise OutlearnError("run `outlearn prepare` first")

    @server.resource("kit://bug")
    def bug() -> str:
        """Fail with a bug."""
        raise RuntimeError("secret of the server")

    async with connect(server) as client:
        with pytest.raises(MCPError, match="run `outlearn prepare` first"):
            await client.client.read_resource("kit://ours")
        with pytest.raises(MCPError) as failed:
            await client.client.read_resource("kit://bug")
    assert "secret" not in str(failed.value)


async def test_an_answer_of_the_wrong_type_does_not_reach_the_caller() -> None:
    server = make()

    @server.tool()
    def number() -> int:
        """A number."""
        return "label of t3"  # type: ignore[return-value]

    async with connect(server) as client:
        with pytest.raises(ToolError) as failed:
            await client.call("number")
    assert "label" not in str(failed.value)


async def test_a_tool_gets_its_context_although_the_kit_wraps_it() -> None:
    server = make()

    @server.tool(annotations=READ_ONLY)
    def whose(ctx: Context, word: str = "x") -> str:
        """Who serves this."""
        return f"{ctx.mcp_server.name} {word}"

    async with connect(server) as client:
        assert await client.call("whose") == "kit x"
        [tool] = (await client.client.list_tools()).tools
    assert list(tool.input_schema["properties"]) == ["word"]


# identity


async def test_without_a_token_the_caller_is_the_agent_of_the_settings() -> None:
    server = make(agent="ada")
    assert server.caller() == Caller(agent="ada", role="agent")


def test_settings_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLEARN_AGENT", "bob")
    assert make_server("kit", ServerSettings(), instructions="").caller().agent == "bob"


def test_a_token_is_stored_as_a_hash_in_a_private_file_and_can_be_revoked(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    ada, chief = tokens.issue("ada"), tokens.issue("chief", "operator")
    assert ada not in (tmp_path / "tokens.json").read_text()
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600
    reader = TokenFile(tmp_path / "tokens.json")
    assert reader.verify(ada) == Caller(agent="ada")
    assert reader.verify(chief) == Caller(agent="chief", role="operator")
    assert reader.verify(ada + "x") is None
    assert reader.verify("") is None
    left = {
        digest: who
        for digest, who in json.loads((tmp_path / "tokens.json").read_text()).items()
        if who["agent"] != "ada"
    }
    (tmp_path / "tokens.json").write_text(json.dumps(left))
    assert reader.verify(ada) is None
    assert reader.verify(chief) is not None


def test_tokens_issued_at_once_all_work(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    with ThreadPoolExecutor(4) as pool:
        issued = list(pool.map(lambda number: TokenFile(path).issue(f"agent-{number}"), range(40)))
    tokens = TokenFile(path)
    assert len({tokens.verify(token) for token in issued} - {None}) == 40


def test_an_agent_name_that_could_not_be_one_gets_no_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'Ada Lovelace' cannot be an agent's name"):
        TokenFile(tmp_path / "tokens.json").issue("Ada Lovelace")
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.parametrize(
    "contents", [None, "", "[]", '{"x": {"agent": "A B"}}', '{"x": {"agent": "a", "role": "king"}}']
)
def test_a_missing_or_damaged_token_file_is_refused_at_the_start(tmp_path: Path, contents: str | None) -> None:
    path = tmp_path / "tokens.json"
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(ConfigError, match="token file"):
        make(tokens=path)


# the command line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--bogus", "1"], "--bogus"),
        (["stray"], "stray"),
        (["--port"], "--port"),
        (["--port", "70000"], "--port"),
        (["--port", "many"], "--port"),
        (["--transport", "carrier-pigeon"], "--transport"),
        (["--agent", "Ada Lovelace"], "--agent"),
        (["--log-level", "chatty"], "--log-level"),
        (["--transport", "http", "--unsafe-no-tokens", "--host", "0.0.0.0"], "--tokens"),
        (["--transport", "http", "--unsafe-no-tokens", "--host", "example.org"], "--tokens"),
        (["--transport", "http", "--unsafe-no-tokens", "--host", "::"], "--tokens"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], options: list[str], named: str
) -> None:
    assert named in refusal(capsys, make, *options)


def test_a_bad_setting_in_the_environment_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLEARN_PORT", "many")
    assert "--port (or OUTLEARN_PORT): must be a whole number" in refusal(capsys, make)


@pytest.mark.parametrize("error", [OutlearnError("no task yet"), PermissionError(13, "Permission denied", "runs")])
def test_a_server_that_cannot_be_built_says_why_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(outlearn.server, "configure_logging", lambda _: None)

    def build(_: ServerSettings) -> ToolServer:
        raise error

    assert str(error) in refusal(capsys, build)


def test_a_taken_port_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlearn.server, "configure_logging", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"'127.0.0.1', port {port} " in refusal(
            capsys, lambda settings: make(), "--transport", "http", "--unsafe-no-tokens", "--port", port
        )


def test_http_without_tokens_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outlearn.server, "configure_logging", lambda _: None)
    home = tmp_path / "my home"

    def build(_: ServerSettings) -> ToolServer:
        raise AssertionError("built without tokens")

    said = refusal(capsys, build, "--transport", "http", "--home", str(home))
    assert f"`outlearn token NAME --tokens '{home}/tokens.json'` makes one" in said
    assert not home.exists()


def test_help_is_shown_without_building_anything(capsys: pytest.CaptureFixture[str]) -> None:
    def build(_: ServerSettings) -> ToolServer:
        raise AssertionError("built for --help")

    with pytest.raises(SystemExit) as stopped:
        run(build, ServerSettings, "outlearn-kit", ["--help"])
    said = capsys.readouterr()
    assert stopped.value.code == 0
    assert said.err == ""
    for words in ("--home", "--transport", "--tokens Path", "--ready-file", "OUTLEARN_HOME"):
        assert words in said.out


# transports


async def test_stdio_round_trip() -> None:
    with contextlib.chdir(HERE):
        async with connect_stdio("echo_server", "--agent", "ada", "--prefix", "> ", "--loud") as client:
            assert await client.tools() == ["count", "echo", "fail"]
            assert await client.call("echo", text="höi") == {"text": "> HÖI", "agent": "ada", "role": "agent"}
            assert await client.call("count", to=3) == [1, 2, 3]
            with pytest.raises(ToolError, match="'explained' cannot be done"):
                await client.call("fail", how="explained")


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.json"
    TokenFile(path).issue("nobody")
    return path


@pytest.fixture(scope="module")
def url(token_file: Path) -> Iterator[str]:
    """An echo server that wants tokens."""
    with contextlib.chdir(HERE), http_server("echo_server", "--tokens", str(token_file)) as address:
        yield address


HELLO = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


def post(url: str, method: str = "initialize", **headers: str) -> httpx2.Response:
    """One request, as a client would send it that we did not write."""
    accept = {"Accept": "application/json, text/event-stream"}
    params = HELLO if method == "initialize" else {}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return httpx2.post(url, headers=accept | headers, json=body, timeout=10)


async def test_over_http_the_token_says_who_calls(url: str, token_file: Path) -> None:
    ada, chief = TokenFile(token_file).issue("ada"), TokenFile(token_file).issue("chief", "operator")
    async with connect_http(url, ada) as one, connect_http(url, chief) as other:
        assert await one.call("echo", text="a") == {"text": "a", "agent": "ada", "role": "agent"}
        assert await other.call("echo", text="b") == {"text": "b", "agent": "chief", "role": "operator"}
        assert (await one.call("echo", text="c"))["agent"] == "ada"
        with pytest.raises(ToolError) as failed:
            await one.call("fail", how="bug")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YTpi"}])
def test_without_the_right_token_the_answer_is_401(url: str, headers: dict[str, str]) -> None:
    answer = post(url, **headers)
    assert answer.status_code == 401
    assert "echo" not in answer.text


def test_a_wrong_host_is_421_and_a_wrong_origin_403(url: str, token_file: Path) -> None:
    token = f"Bearer {TokenFile(token_file).issue('ada')}"
    assert post(url, Authorization=token, Host="evil.example:80").status_code == 421
    assert post(url, Authorization=token, Origin="http://evil.example").status_code == 403
    assert post(url, Authorization=token, Origin="http://localhost:1234").status_code == 200


def test_healthz_is_open(url: str) -> None:
    answer = httpx2.get(url.replace("/mcp", "/healthz"))
    assert answer.status_code == 200
    assert answer.json()["server"] == "echo"


def test_rotating_and_revoking_hold_at_once_while_the_server_runs(url: str, token_file: Path) -> None:
    tokens = TokenFile(token_file)
    first = tokens.issue("eve")
    second = tokens.rotate("eve")
    assert [post(url, Authorization=f"Bearer {token}").status_code for token in (first, second)] == [200, 200]
    third = tokens.rotate("eve", grace=timedelta(0))
    assert [post(url, Authorization=f"Bearer {token}").status_code for token in (first, second, third)] == [
        401,
        401,
        200,
    ]
    tokens.revoke("eve")
    assert post(url, Authorization=f"Bearer {third}").status_code == 401


async def test_revoking_ends_what_a_connected_client_may_do(url: str, token_file: Path) -> None:
    tokens = TokenFile(token_file)
    async with connect_http(url, tokens.issue("mallory")) as client:
        assert (await client.call("echo", text="a"))["agent"] == "mallory"
        tokens.revoke("mallory")
        with pytest.raises(MCPError):
            await client.call("echo", text="b")


def test_with_a_token_file_that_vanished_nobody_is_let_in(url: str, token_file: Path) -> None:
    token = TokenFile(token_file).issue("ada")
    hidden = token_file.rename(token_file.with_name("away"))
    assert post(url, Authorization=f"Bearer {token}").status_code == 401
    hidden.rename(token_file)
    assert post(url, Authorization=f"Bearer {token}").status_code == 200


def test_a_server_on_all_addresses_is_reached_under_any_name(token_file: Path) -> None:
    token = TokenFile(token_file).issue("ada")
    options = ("--host", "0.0.0.0", "--tokens", str(token_file))
    with contextlib.chdir(HERE), http_server("echo_server", *options) as address:
        url = address.replace("0.0.0.0", "127.0.0.1")
        assert post(url, Authorization=f"Bearer {token}").status_code == 200
        assert post(url, Authorization=f"Bearer {token}", Host="lab.example").status_code == 200
        assert post(url).status_code == 401


async def test_async_tools_give_their_turn_back_but_for_those_that_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    server, given_back = make_server("kit", ServerSettings(), instructions="For tests."), list[str]()
    monkeypatch.setattr("outlearn.server.step_aside", lambda: given_back.append("turn"))

    @server.tool()
    async def waits() -> str:
        """Wait for something."""
        return "waited"

    @server.tool()
    @keeps_turn
    async def works() -> str:
        """Work at once."""
        return "worked"

    async with connect(server) as client:
        await client.call("works")
        assert given_back == []
        await client.call("waits")
        assert given_back == ["turn"]


async def test_work_that_would_have_to_wait_goes_on_in_a_thread() -> None:
    async def told(busy: bool) -> tuple[int, bool]:
        def work(number: int, *, wait: bool = True) -> tuple[int, bool]:
            if busy and not wait:
                raise BusyError
            return number, threading.current_thread() is threading.main_thread()

        return await at_once_or_in_thread(work, 7)

    assert await told(busy=False) == (7, True)
    assert await told(busy=True) == (7, False)
