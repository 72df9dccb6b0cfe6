"""How much memory an agent's process takes in a long session: `python tests/agents/long_session.py --turns 600`.

The process is one of a team's, with a tool server that answers with 5 to 20 kB over HTTP and the local Messages API,
whose model thinks, speaks and calls a tool in each turn. `--refuse compaction` plays an endpoint that cannot summarize,
`--refuse all` one that manages no context. Prints JSON; memory is in MB.
"""

import argparse
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from managed_context import BIND
from messages_api import Answer, MessagesApi
from scripted_model import Body

from outlearn.identity import TokenFile
from outlearn.server import READ_ONLY, ToolServer, make_server, run
from outlearn.settings import ServerSettings
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_agents.team.processes import SERVERS

AGENT = "ada"
REFUSED = {"compaction": {"compact-2026-01-12"}, "all": {"compact-2026-01-12", "context_management"}}
WORDS = "Early students know more than their teacher: “weights” of 0.25 × confidence → 3·10⁻⁴ better than before. "
SAMPLES = 6


@dataclass
class Session:
    """What came out."""

    turns: int
    peak_mb: float = 0.0
    resident_mb: dict[int, float] = field(default_factory=dict)
    """After so many turns."""
    longest_request_mb: float = 0.0
    transcript_mb: float = 0.0
    messages_sent: int = 0
    """In the last request."""
    exit_code: int | None = None


class Talker:
    """A model that thinks, speaks and reads long files for so many turns; every fifth time it writes one."""

    def __init__(self, session: Session) -> None:
        self.api = MessagesApi(model=self)
        self.pid = 0
        self._session = session
        self._turn = 0
        self._random = random.Random(0)

    def __call__(self, body: Body) -> Answer:
        self._look(body)
        self._turn += 1
        thought = {"type": "thinking", "thinking": WORDS * self._random.randint(4, 12), "signature": BIND}
        if self._turn > self._session.turns:
            return Answer([thought, {"type": "text", "text": "I have written down what I know."}])
        name, given = "read", {"path": f"log-{self._turn}.txt", "characters": self._random.randint(5, 20) * 1000}
        if self._turn % 5 == 0:
            name, given = "write", {"path": f"method-{self._turn}.py", "text": WORDS * 25}
        call = {
            "type": "tool_use",
            "id": f"toolu_{secrets.token_hex(12)}",
            "name": f"filesystem__{name}",
            "input": given,
        }
        return Answer([thought, {"type": "text", "text": WORDS}, call], "tool_use")

    def _look(self, body: Body) -> None:
        """Note how the process fares, and forget what was asked."""
        session = self._session
        session.messages_sent = len(body["messages"])
        session.longest_request_mb = max(session.longest_request_mb, int(self.api.headers[-1]["content-length"]) / 1e6)
        session.peak_mb = memory(self.pid, "VmHWM")
        if self._turn % max(1, session.turns // SAMPLES) == 0:
            session.resident_mb[self._turn] = memory(self.pid, "VmRSS")
        for kept in (self.api.requests, self.api.headers, self.api.usages, self.api.counted):
            kept.clear()


def memory(pid: int, name: str) -> float:
    """A process's memory in MB: `VmRSS` now, `VmHWM` the most so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024, 1)


def build(settings: ServerSettings) -> ToolServer:
    """A tool server with long answers."""
    server = make_server("filesystem", settings, instructions="Long files.")

    @server.tool(annotations=READ_ONLY)
    def read(path: str, characters: int) -> str:
        """Read a file."""
        return f"{path}\n{WORDS * (characters // len(WORDS) + 1)}"[:characters]

    @server.tool()
    def write(path: str, text: str, request_id: str = "") -> str:
        """Write a file."""
        return f"{path}: {len(text)} characters"

    return server


def hold(turns: int, root: Path, refuses: set[str]) -> Session:
    """Hold a session of so many turns in an empty folder."""
    folder, session = RunFolder(root / "run"), Session(turns)
    talker = Talker(session)
    talker.api.refuses = refuses
    options = {"max_turns": str(turns + 2), "price": "none", "max_tokens": str(10**12), "finish_seconds": "0"}
    member = AgentSpec(name=AGENT, researcher="claude", direction="# Look\n\nAround.", options=options)
    folder.root.mkdir(parents=True)
    folder.write_spec(TeamSpec(task="toy", agents=(member,)))
    token = TokenFile(folder.tokens).issue(AGENT)
    with talker.api.serve() as url, _tool_server(folder), _agent(folder, url, token) as process:
        talker.pid = process.pid
        session.exit_code = process.wait()
    session.transcript_mb = (folder.agent(AGENT) / "transcript.jsonl").stat().st_size / 1e6
    return session


@contextmanager
def _tool_server(folder: RunFolder) -> Iterator[None]:
    """One server that stands for all four."""
    ready = folder.ready("filesystem")
    argv = [sys.executable, __file__, "--serve", "--transport", "http", "--port", "0", "--ready-file", str(ready)]
    with subprocess.Popen([*argv, "--tokens", str(folder.tokens), "--log-level", "error"]) as process:
        try:
            while not ready.exists():
                assert process.poll() is None, "the tool server did not start"
                time.sleep(0.05)
            for name in SERVERS:
                if name != "filesystem":
                    folder.ready(name).symlink_to(ready)
            yield
        finally:
            process.terminate()


@contextmanager
def _agent(folder: RunFolder, url: str, token: str) -> Iterator["subprocess.Popen[bytes]"]:
    env = {**os.environ, "OUTLEARN_TOKEN": token, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "local"}
    argv = [sys.executable, "-m", "outlearn_agents.team.agent", "--run", str(folder.root), "--agent", AGENT]
    with (folder.root / "agent.log").open("wb") as log:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
        with subprocess.Popen([*argv, "--seconds", "100000"], env=env, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()


def main() -> None:
    """Hold a session and print what came out."""
    if "--serve" in sys.argv:
        run(build, ServerSettings, "long-session", [one for one in sys.argv[1:] if one != "--serve"])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=600)
    parser.add_argument("--refuse", choices=sorted(REFUSED), help="what the endpoint does not know")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        print(json.dumps(asdict(hold(given.turns, Path(root), REFUSED.get(given.refuse, set()))), indent=1))


if __name__ == "__main__":
    main()
