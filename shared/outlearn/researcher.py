"""What a researcher is: the protocol to implement, and the session that the team runner hands it.

A researcher is registered in the entry-point group `outlearn.researchers` as a class or function that takes its options
(a mapping of strings) and returns an object with `async def research(self, session)`.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel
from pydantic import BaseModel, ConfigDict, Field

from outlearn.countdown import Countdown
from outlearn.errors import PluginError, ToolRefusedError
from outlearn.registry import RESEARCHERS, Registry

Model = TypeVar("Model", bound=BaseModel)


class ToolInfo(BaseModel):
    """A tool as its server describes it."""

    model_config = ConfigDict(frozen=True)

    server: str
    name: str
    description: str
    input_schema: dict[str, Any]
    read_only: bool = False
    idempotent: bool = False

    @property
    def takes_request_id(self) -> bool:
        """Whether a call that carries a `request_id` can be repeated and happens once."""
        return "request_id" in self.input_schema.get("properties", {})

    @property
    def is_repeatable(self) -> bool:
        """Whether a call whose answer was lost can be made again, with its `request_id` if it takes one."""
        return self.read_only or self.idempotent or self.takes_request_id


class ToolAnswer(BaseModel):
    """What a tool answered. On an error, `text` says what to do about it."""

    model_config = ConfigDict(frozen=True)

    text: str
    content: Any = Field(None, description="The structured content, or None.")
    is_error: bool = False


class Tools(Protocol):
    """A researcher's access to the tool servers, under its own identity."""

    async def list(self) -> tuple[ToolInfo, ...]:
        """All tools of all servers. Raises ServerUnreachableError."""
        ...

    async def call(self, server: str, tool: str, arguments: Mapping[str, Any]) -> ToolAnswer:
        """Call a tool; an error that the tool reports is an answer. Raises ServerUnreachableError."""
        ...


class Stop:
    """When a researcher must stop: after `seconds`, or at once when somebody asks for it."""

    def __init__(self, seconds: float) -> None:
        self.countdown = Countdown(seconds)
        self._asked = anyio.Event()

    def ask(self) -> None:
        """Ask the researcher to finish what it is saying and leave."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether somebody asked for it before the time was over."""
        return self._asked.is_set()

    @property
    def seconds_left(self) -> float:
        """Seconds until the end; 0 once stopped."""
        return 0.0 if self.asked else max(0.0, self.countdown.left)

    async def wait_asked(self) -> None:
        """Wait until somebody asks for it."""
        await self._asked.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until the end if that is sooner."""
        with anyio.move_on_after(min(seconds, self.seconds_left)):
            await self._asked.wait()


class Log(Protocol):
    """A structured log, such as structlog's."""

    def info(self, event: str, /, **fields: Any) -> Any: ...

    def warning(self, event: str, /, **fields: Any) -> Any: ...


@dataclass(frozen=True)
class Session:
    """One researcher's piece of work: who it is, what to look into, its tools, and when to stop.

    Started again with the same `folder` and servers, a researcher goes on from where it was.
    """

    agent: str
    direction: str
    task: str
    tools: Tools
    stop: Stop
    log: Log
    folder: Path
    """Private files, such as a transcript; the agent's workspace is on the filesystem server."""
    seed: int = 0
    spending: Path | None = None
    """The ledger that a team's researchers share; None: this one counts for itself."""
    on_status: Callable[[str], None] = field(default=lambda _: None)
    on_wait: Callable[[str], None] | None = None
    """As `on_status`, with what the researcher waits for; None: `on_status`."""
    until_resumed: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
    """Returns once the operator does not want the agent to pause. Tool calls wait for that by themselves."""

    def say(self, doing: str, **fields: Any) -> None:
        """Tell the operator in a few words what the researcher is doing now."""
        self.log.info(doing, **fields)
        self.on_status(doing)

    def tell_waiting(self, why: str) -> None:
        """Tell the operator what the researcher waits for."""
        (self.on_wait or self.on_status)(why)

    async def wait(self, why: str, seconds: float) -> None:
        """Wait for somebody else, for `seconds` or until the stop; a pause that the operator wants is kept."""
        self.tell_waiting(why)
        await self.stop.sleep(seconds)
        await self.until_resumed()

    async def ask(self, answer: type[Model], server: str, tool: str, /, **arguments: Any) -> Model:
        """Call a tool and parse its answer, as the function `ask` does."""
        return await ask(self.tools, answer, server, tool, **arguments)


async def ask(tools: Tools, answer: type[Model], server: str, tool: str, /, **arguments: Any) -> Model:
    """Call a tool and parse its structured content as `answer`, one of `outlearn.types`.

    Raises:
        ToolRefusedError: the tool answered with an error.
        ServerUnreachableError: the server did not answer.
    """
    result = await tools.call(server, tool, arguments)
    if result.is_error:
        raise ToolRefusedError(f"{server}.{tool}: {result.text}")
    return answer.model_validate(result.content)


class Researcher(Protocol):
    """Somebody who improves PGR through the tool servers."""

    async def research(self, session: Session) -> None:
        """Work until `session.stop`; then say what is left to say within a few seconds, and return."""
        ...


def make_researcher(name: str, options: Mapping[str, str]) -> Researcher:
    """A new researcher of the registered kind `name`.

    Raises:
        PluginError: there is none of this name, or it does not take one mapping, its options.
    """
    kind = Registry(RESEARCHERS).load(name)
    try:
        inspect.signature(kind).bind(options)
    except TypeError as error:
        raise PluginError(f"the researcher {name!r} must take one argument, its options, a mapping: {error}") from error
    made: Researcher = kind(dict(options))
    return made
