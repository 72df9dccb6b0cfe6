"""The toolbox over HTTP: servers that are started again, listen elsewhere, or speak otherwise than before."""

import contextlib
import json
from pathlib import Path

import httpx2
import pytest
from mcp import MCPError
from mcp.types import HEADER_MISMATCH, CallToolResult, TextContent

from outlearn.errors import ServerUnreachableError
from outlearn.testing import http_server
from outlearn.toolbox import _call, open_toolbox, url_in

HERE = Path(__file__).parent


async def test_a_server_that_was_started_again_is_found_at_its_new_address(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with contextlib.chdir(HERE), http_server("echo_server") as new:
        ready.write_text(json.dumps({"url": "http://127.0.0.1:9/mcp", "pid": 1}))
        address = url_in(ready)

        def moving() -> str:
            url = address()
            ready.write_text(json.dumps({"url": new, "pid": 2}))
            return url

        async with open_toolbox({"echo": moving}) as tools:
            assert (await tools.call("echo", "echo", {"text": "x"})).content["text"] == "x"
            assert "echo" in {info.name for info in await tools.list()}


async def test_a_call_is_one_exchange_once_the_server_is_known() -> None:
    sent: list[str] = []

    async def note(request: httpx2.Request) -> None:
        sent.append(json.loads(request.content)["method"])

    with contextlib.chdir(HERE), http_server("echo_server") as url:
        async with open_toolbox({"echo": url}) as tools:
            tools._http.event_hooks = {"request": [note]}
            for text in "abc":
                assert (await tools.call("echo", "echo", {"text": text})).content["text"] == text
    assert sent == ["server/discover", "tools/call", "tools/call", "tools/call"]


async def test_a_server_that_did_not_answer_is_met_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn.toolbox.DIAL_SECONDS", (0.01,))
    urls: list[str] = []
    async with open_toolbox({"echo": lambda: urls[-1]}) as tools:
        for _ in range(2):
            with contextlib.chdir(HERE), http_server("echo_server") as url:
                urls.append(url)
                assert (await tools.call("echo", "echo", {"text": "x"})).content["text"] == "x"
            with pytest.raises(ServerUnreachableError, match="the echo server"):
                await tools.call("echo", "echo", {"text": "x"})
            assert not tools._met


async def test_arguments_that_belong_into_headers_are_sent_as_the_tools_schema_says() -> None:
    class Session:
        async def send_request(self, *_: object) -> None:
            raise MCPError(HEADER_MISMATCH, "the header is missing")

    class Client:
        session = Session()

        async def call_tool(self, tool: str, arguments: dict[str, str]) -> CallToolResult:
            return CallToolResult(content=[TextContent(type="text", text=f"{tool} {arguments}")])

    answer = await _call(Client(), "echo", {"text": "x"})  # type: ignore[arg-type]
    assert answer.content[0].text == "echo {'text': 'x'}"  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [None, "", "[]", "{}"])
async def test_a_server_that_never_said_where_it_listens_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr("outlearn.toolbox.DIAL_SECONDS", (0.01,))
    ready = tmp_path / "ready.json"
    if content is not None:
        ready.write_text(content)
    async with open_toolbox({"echo": url_in(ready)}) as tools:
        with pytest.raises(ServerUnreachableError, match="where it listens"):
            await tools.call("echo", "echo", {"text": "x"})
