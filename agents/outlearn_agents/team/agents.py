"""The agents of a team as processes: started one after the other, started again when they die, ended together."""

import os
import signal
import sys
from contextlib import closing
from functools import partial

from outlearn.countdown import Countdown
from outlearn_agents.run_folder import RunFolder, RunnerSettings
from outlearn_agents.spending.ledger import Ledger
from outlearn_agents.team.processes import Child, stop_children
from outlearn_agents.team.restarts import Kept
from outlearn_agents.team.status import read_status, write_status

CANNOT_WORK = 2
"""Exit code of an agent that no restart would help."""
KILL_SECONDS = 0.5
MIN_SECONDS = 1.0


class AgentProcesses:
    """The agents' processes. Agents work until the countdown's end, whenever they were started."""

    def __init__(self, folder: RunFolder, settings: RunnerSettings, countdown: Countdown) -> None:
        self._folder = folder
        self._settings = settings
        self.countdown = countdown
        self._kept: dict[str, Kept] = {}

    @property
    def names(self) -> frozenset[str]:
        """The agents that are at work or will be."""
        return frozenset(name for name, kept in self._kept.items() if not kept.is_over)

    def restarts(self) -> dict[str, int]:
        """How often each agent was started again."""
        return {name: kept.restarts for name, kept in self._kept.items()}

    def add(self, name: str, token: str, after: float = 0.0) -> None:
        """Have an agent started, `after` seconds from now."""
        write_status(self._folder, name, "starting")
        self._kept[name] = Kept(partial(self._start, name, token), self._settings.restarts, after)

    def look(self) -> None:
        """Start agents whose time has come, and see to those that ended."""
        for name, kept in self._kept.items():
            code = kept.take_end()
            if code is not None:
                self._see_to(name, kept, code)
            if self.countdown.left > 0:
                kept.start_if_due()
            elif kept.child is None:
                kept.is_over = True

    def ask_to_stop(self, name: str | None = None) -> None:
        """Ask an agent, or all, to write down what they know and leave; they are not started again."""
        for one, kept in self._kept.items():
            if name in (None, one) and not kept.is_over:
                kept.is_over = kept.child is None
                kept.is_leaving = True
                if kept.child:
                    kept.child.terminate()
                else:
                    self._free(one)

    async def end(self) -> None:
        """End all agents that are still there."""
        await stop_children([kept.child for kept in self._kept.values() if kept.child], KILL_SECONDS)

    def _see_to(self, name: str, kept: Kept, code: int) -> None:
        """An agent ended: with its work, for good, or to be started again."""
        status = read_status(self._folder, name)
        if code in (0, CANNOT_WORK) or kept.is_leaving or self.countdown.left <= MIN_SECONDS:
            kept.is_over = True
            if kept.is_leaving and code == -signal.SIGTERM:  # at work, it would have taken the signal itself
                write_status(self._folder, name, "stopped while it was starting", "finished")
            elif code != 0 and status.state != "failed":
                write_status(
                    self._folder, name, f"died with {kept.ending}; see {self._folder.log(f'agent-{name}')}", "failed"
                )
            self._free(name)
            return
        reason = status.doing if status.state == "failed" else f"died with {kept.ending}"
        pause = kept.try_again()
        if pause is None:
            often = f"given up after {self._settings.restarts} restarts in an hour"
            write_status(self._folder, name, f"{often}: {reason}; see {self._folder.log(f'agent-{name}')}", "failed")
            self._free(name)
        else:
            write_status(self._folder, name, f"starts again in {pause:.1f} s: {reason}")

    def _free(self, name: str) -> None:
        """Nobody has to wait for what an agent that is gone had set aside; the call that it died in counts as spent."""
        with closing(Ledger(self._folder.spending)) as ledger:
            ledger.write_off(name)
            ledger.leave(name)

    def _start(self, name: str, token: str) -> Child:
        argv = [sys.executable, "-m", "outlearn_agents.team.agent", "--run", str(self._folder.root)]
        argv += ["--agent", name, "--seconds", f"{max(MIN_SECONDS, self.countdown.left):.3f}"]
        env = {**os.environ, "OUTLEARN_TOKEN": token}
        return Child(f"agent-{name}", argv, self._folder.log(f"agent-{name}"), env)
