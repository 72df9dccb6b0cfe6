"""Progress on stderr: a bar with the time that is left on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

OnProgress = Callable[[str, float], None]
SPEED_SECONDS = 600.0
"""Steps may be minutes apart."""
LINE_SECONDS = 30.0


@contextmanager
def resumable(again: str = "the same command") -> Iterator[None]:
    """Where Ctrl-C stops what is done here, say that `again` goes on with it, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"stopped; {again} goes on where it was", err=True)
        raise typer.Exit(130) from None


@contextmanager
def progress_bar(name: str) -> Iterator[OnProgress]:
    """Show what is being done, the share of it that is done and the time that is left; call what it yields with both.

    A share below the last one begins something new, whose time is estimated anew. Nothing is shown before the first
    call, so that an error in the input stands alone.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainProgress(name, lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False))
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, speed_estimate_period=SPEED_SECONDS)
    bar = progress.add_task(name, total=1.0)

    def report(what: str, share: float) -> None:
        progress.start()
        if share < progress.tasks[0].completed:
            progress.reset(bar)
        progress.update(bar, description=what, completed=share)

    try:
        yield report
    finally:
        progress.stop()


class PlainProgress:
    """A line for each new thing that is done, and one now and then where nothing new is."""

    def __init__(self, name: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._write = write
        self._clock = clock
        self._begin = clock()
        self._said: set[str] = set()
        self._said_at = self._begin

    def __call__(self, what: str, share: float) -> None:
        now = self._clock()
        if what in self._said and now - self._said_at < LINE_SECONDS:
            return
        self._said.add(what)
        self._said_at = now
        self._write(f"{self._name}: [{now - self._begin:6.1f} s] {what}, {100 * share:.0f} %")
