"""A session of a team: servers and agents are kept alive, what the operator asks for is done, until all have left."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import anyio

from outlearn.errors import OutlearnError
from outlearn.files import write_atomic
from outlearn.identity import TokenFile
from outlearn_agents.run_folder import RunFolder, RunnerSettings, SessionFile, TeamSpec
from outlearn_agents.team.agents import AgentProcesses
from outlearn_agents.team.control import Control, change_control, read_control
from outlearn_agents.team.convergence import Nudger
from outlearn_agents.team.servers import ServerProcesses
from outlearn_agents.team.watch import TeamView, Watcher

LOOK_SECONDS = 1.0
KEEP_SECONDS = 0.1
GRACE_SECONDS = 35.0
NOTE_SECONDS = 30.0
NUDGE_SECONDS = 60.0
Observe = Callable[[TeamView], None]


@dataclass
class Stops:
    """How far the team was asked to stop: once, agents finish what they say; twice, everything ends now."""

    asked: int = 0
    told: bool = False
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    def ask(self) -> None:
        """Ask once more."""
        self.asked += 1
        if self.asked > 1:
            self.scope.cancel()


class TeamSession:
    """Everything of a session that is at work."""

    def __init__(
        self,
        folder: RunFolder,
        spec: TeamSpec,
        servers: ServerProcesses,
        crew: AgentProcesses,
        watcher: Watcher,
        stops: Stops,
        settings: RunnerSettings | None = None,
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._servers = servers
        self._crew = crew
        self._watcher = watcher
        self._stops = stops
        self._countdown = crew.countdown
        self._worked = spec.seconds_worked
        self._started_at = datetime.now(UTC)
        self._warm_at = anyio.current_time() + (settings or RunnerSettings()).warm_up_seconds
        self._noted: tuple[object, ...] = ()
        self._control = Control()
        self._failure: OutlearnError | OSError | None = None

    async def work(self, observe: Observe) -> None:
        """Work until the last agent has left; those that overstay are ended.

        Raises:
            ServerUnreachableError: a server died again and again.
            IntegrityError: `control.json` is damaged.
            OSError: the run folder cannot be written to, such as where the disk is full.
        """
        self._note()
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep)
            group.start_soon(self._nudge)
            while self._crew.names and self._failure is None:
                view = await self._watcher.look(self.seconds_left)
                if view.has_begun:
                    self._warm_at = 0.0
                observe(view)
                await anyio.sleep(LOOK_SECONDS)
            group.cancel_scope.cancel()
        if self._failure:
            raise self._failure
        self._write_spec()
        observe(await self._watcher.look(0.0))

    @property
    def seconds_left(self) -> float:
        """Seconds until agents have to finish."""
        return max(0.0, self._countdown.left)

    async def _keep(self) -> None:
        try:
            while True:
                self._servers.look()
                self._crew.look()
                self._obey(read_control(self._folder))
                if self._countdown.left < -GRACE_SECONDS:
                    await self._crew.end()
                self._note()
                await anyio.sleep(KEEP_SECONDS)
        except (OutlearnError, OSError) as error:
            self._failure = error

    async def _nudge(self) -> None:
        nudger = Nudger(self._folder)
        while True:
            await anyio.sleep(NUDGE_SECONDS)
            await nudger.look(self._watcher.tools)

    def _obey(self, control: Control) -> None:
        """Do what was asked for since the last look."""
        if (control.stop or self._stops.asked) and not self._stops.told:
            self._stops.told = True
            self._countdown.end()
            self._crew.ask_to_stop()
        for name in control.stopped - self._control.stopped:
            self._crew.ask_to_stop(name)
        if control.added:
            self._welcome(control)
        self._stand_still(control)
        self._control = control

    def _stand_still(self, control: Control) -> None:
        """Stop the clock while everybody who is there is paused, and while the first worker starts."""
        stands = self._crew.names <= control.paused or anyio.current_time() < self._warm_at
        if self._countdown.left <= 0 or not stands:
            self._countdown.go_on()
        elif not self._countdown.is_paused:
            self._countdown.pause()

    def _welcome(self, control: Control) -> None:
        """Take in new agents: each is in team.json before it leaves the list of those who wait."""
        known = {agent.name for agent in self.spec.agents}
        for agent in control.added:
            if agent.name not in known:
                self.spec = self.spec.with_member(agent)
                self._write_spec()
                self._crew.add(agent.name, TokenFile(self._folder.tokens).issue(agent.name, issuer="team"))
        self._watcher.spec = self.spec
        taken = {agent.name for agent in control.added}
        change_control(
            self._folder,
            lambda now: now.model_copy(update={"added": tuple(one for one in now.added if one.name not in taken)}),
        )

    def _note(self) -> None:
        """Keep session.json and the time worked up to date."""
        restarts = self._crew.restarts() | self._servers.restarts()
        countdown, now = self._countdown, datetime.now(UTC)
        news = (restarts, countdown.is_paused, self._stops.told, countdown.passed // NOTE_SECONDS)
        if news == self._noted:
            return
        self._noted = news
        note = SessionFile(
            started_at=self._started_at,
            ends_at=now + timedelta(seconds=self.seconds_left),
            paused_at=now if countdown.is_paused else None,
            restarts=restarts,
        )
        write_atomic(self._folder.session, note.model_dump_json(indent=1).encode())
        self._write_spec()

    def _write_spec(self) -> None:
        worked = self._worked + self._countdown.passed
        self.spec = self.spec.model_copy(update={"seconds_worked": worked})
        self._folder.write_spec(self.spec)
