"""The logs of runs: what methods printed and logged. Old ones make room, as students do."""

import codecs
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from outlearn.printable import show_plain
from outlearn.results import ResultBook
from outlearn.types import LogPage
from outlearn_training.queue.seed_claims import Claims
from outlearn_training.settings import TrainingSettings
from outlearn_training.weights import unwanted

MAX_CHARACTER_BYTES = 4


class RunLogs:
    """The logs of one home folder's runs, as its workers write them."""

    def __init__(self, settings: TrainingSettings, claims: Claims) -> None:
        self._settings, self._claims = settings, claims
        self._results = ResultBook(settings.home)

    def begin(self, run_id: str, agent: str) -> Path:
        """Where a run's output goes. Before its first, there is room made among the agent's."""
        path = self._settings.run_log(run_id)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._make_room(agent)
            path.touch()
        return path

    def _make_room(self, agent: str) -> None:
        """Remove logs of runs that have ended and were never evaluated, the oldest first, until the rest have
        `keep_logs_mb` together. The newest stays anyhow."""
        for run_id in unwanted(self._sizes(agent), self._results, int(self._settings.keep_logs_mb * 2**20)):
            self._settings.run_log(run_id).unlink(missing_ok=True)

    def _sizes(self, agent: str) -> Iterator[tuple[str, str, int]]:
        for run_id in self._claims.ended(agent):
            with suppress(FileNotFoundError):  # another worker may be making room as well
                yield run_id, agent, self._settings.run_log(run_id).stat().st_size


def read_page(path: Path, offset: int, max_bytes: int) -> LogPage:
    """A part of a log, cut at a character. Raises FileNotFoundError."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = file.seek(min(offset, size))
        data = file.read(max_bytes)
    whole = start + len(data) >= size or len(data) < MAX_CHARACTER_BYTES
    text, used = codecs.utf_8_decode(data, "replace", whole)
    end = start + used
    return LogPage(text=show_plain(text), offset=start, next_offset=end if end < size else None, size=size)
