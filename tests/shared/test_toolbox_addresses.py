"""Servers that are started again listen elsewhere: the toolbox reads their addresses anew."""

import contextlib
import json
from pathlib import Path

import pytest

from outlearn.errors import ServerUnreachableError
from outlearn.testing import http_server
from outlearn.toolbox import open_toolbox, url_in

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
