"""The tool servers of a team: one that dies is started again, at the same address where that is free."""

from collections.abc import Mapping, Sequence
from functools import partial
from urllib.parse import urlsplit

from outlearn.errors import ServerUnreachableError
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.team.processes import SERVERS, Child, start_server, stop_children, tail, wait_ready
from outlearn_agents.team.restarts import Kept

REFUSED = 2
"""Exit code of a server that cannot work as it was told to, such as on a port that is taken."""


class ServerProcesses:
    """The servers of a run folder. `options` has command-line options for some of them."""

    def __init__(
        self,
        folder: RunFolder,
        options: Mapping[str, Sequence[str]],
        restarts: int,
        names: Sequence[str] = SERVERS,
    ) -> None:
        self._folder = folder
        self._options = options
        self._most = restarts
        self._kept = {name: Kept(partial(self._start, name), restarts) for name in names}
        self._ports: dict[str, int] = {}

    def restarts(self) -> dict[str, int]:
        """How often each server was started again."""
        return {name: kept.restarts for name, kept in self._kept.items()}

    async def start(self) -> None:
        """Start the servers and wait until they answer.

        Raises:
            ServerUnreachableError: one cannot start; the end of its log is in the message.
        """
        for name in self._kept:
            self._folder.ready(name).unlink(missing_ok=True)
        urls = await wait_ready(self._folder, self._kept, self._look_at_start)
        self._ports = {name: urlsplit(url).port or 0 for name, url in urls.items()}

    def look(self) -> None:
        """Start dead servers again.

        Raises:
            ServerUnreachableError: one died too often.
        """
        for name, kept in self._kept.items():
            code = kept.take_end()
            if code == REFUSED:
                self._ports.pop(name, None)
            if code is not None and kept.try_again() is None:
                log = self._folder.log(name)
                raise ServerUnreachableError(
                    f"the {name} server died {self._most + 1} times in an hour, the last time with {kept.ending}; "
                    f"see {str(log)!r}"
                )
            kept.start_if_due()

    def _look_at_start(self) -> None:
        """As `look`; but a server that ended by itself before it ever answered would do so again."""
        for name, kept in self._kept.items():
            if kept.child and (kept.child.code or 0) > 0:
                raise ServerUnreachableError(
                    f"the {name} server ended with {kept.child.code}: {tail(self._folder.log(name))}"
                )
        self.look()

    async def end(self) -> None:
        """End the servers."""
        await stop_children(self._children())

    def _children(self) -> list[Child]:
        return [kept.child for kept in self._kept.values() if kept.child]

    def _start(self, name: str) -> Child:
        return start_server(self._folder, name, self._options.get(name, ()), self._ports.get(name, 0))
