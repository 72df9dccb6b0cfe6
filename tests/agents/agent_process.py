"""An agent's process for tests that kill it: a Claude researcher on the toy task's servers, in one process.

`python agent_process.py HOME FOLDER [TOOL]`: with TOOL, it kills itself (as kill -9 does) right after that tool took
effect, before anybody saw the answer.
"""

import os
import signal
import sys
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


if __name__ == "__main__":
    anyio.run(work, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
