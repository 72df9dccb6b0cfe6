"""The filesystem server in a process of its own, over stdio and over HTTP."""

import subprocess
import sys
from pathlib import Path

import pytest
from mcp.server.mcpserver.exceptions import ToolError

from outlearn.identity import TokenFile
from outlearn.testing import connect_http, connect_stdio, http_server
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.workspace import Workspace


async def test_filesystem_stdio_round_trip(tmp_path: Path) -> None:
    async with connect_stdio("outlearn_filesystem", "--home", str(tmp_path), "--agent", "alice") as alice:
        await alice.call("write_file", path="a.txt", text="over stdio")
        (match,) = (await alice.call("grep", pattern="st.io"))["matches"]
        assert (match["path"], match["line"]) == ("a.txt", 1)


async def test_filesystem_http_round_trip_with_two_agents_tokens(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    alice_token, bob_token = tokens.issue("alice"), tokens.issue("bob")
    options = ("--home", str(tmp_path), "--tokens", str(tmp_path / "tokens.json"))
    with http_server("outlearn_filesystem", *options) as url:
        async with connect_http(url, alice_token) as alice, connect_http(url, bob_token) as bob:
            await alice.call("write_file", path="a.txt", text="from alice")
            with pytest.raises(ToolError, match=r"no 'a\.txt'"):
                await bob.call("read_file", path="a.txt")
            saved = await alice.call("save_snapshot", message="look at this")
            (listed,) = (await bob.call("list_snapshots", agent="alice"))["snapshots"]
            assert listed == saved
            await bob.call("load_snapshot", snapshot_id=saved["snapshot_id"], folder="alices")
            assert (await bob.call("read_file", path="alices/a.txt"))["text"] == "from alice"


def test_what_a_killed_process_prepared_is_gone_with_the_next_change(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.workspace import Workspace

space = Workspace(FilesystemSettings(home=Path(sys.argv[1])), "alice")
with space.changing(), space.staging() as staged:
    staged.mkdir()
    (staged / "half").write_bytes(b"x" * 1_000_000)
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    space = Workspace(FilesystemSettings(home=tmp_path), "alice")
    space.write_file("a.txt", "a")
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) == 1
