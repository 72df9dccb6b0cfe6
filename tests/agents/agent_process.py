"""Agents' processes for tests that kill them: each a Claude researcher on the toy task's servers, in one process.

`python agent_process.py HOME FOLDER` forks an agent for each line on stdin, as importing all of it takes seconds, and
prints the agent's process id and, once it ended, its exit code. Where the line names a tool, the agent kills itself (as
kill -9 does) right after that tool took effect, before anybody saw the answer.
"""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import anyio
import structlog

from conftest import good_parts, open_tools
from outlearn.researcher import Session, Stop, ToolAnswer
from outlearn_agents.claude import ClaudeResearcher


async def work(home: Path, folder: Path, deadly_tool: str) -> None:
    async with open_tools(home, "ada", good_parts) as tools:
        call = tools.call

        async def call_and_die(server: str, tool: str, arguments: Any) -> ToolAnswer:
            answer: ToolAnswer = await call(server, tool, arguments)
            if tool == deadly_tool:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        tools.call = call_and_die  # type: ignore[method-assign]
        options = {"retry_seconds": "0.1", "finish_seconds": "0", "max_turns": "1"}
        await ClaudeResearcher(options).research(
            Session(
                agent="ada",
                direction="# Trust",
                task="toy",
                tools=tools,
                stop=Stop(120),
                log=structlog.get_logger("test"),
                folder=folder,
            )
        )


def main() -> None:
    home, folder = map(Path, sys.argv[1:])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            os.dup2(2, 1)  # stdout is the test's
            try:
                anyio.run(work, home, folder, line.strip())
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
