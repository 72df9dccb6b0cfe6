"""A progress bar on stderr, with the time that is left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

SPEED_SECONDS = 600.0
"""Steps may be minutes apart."""


@contextmanager
def progress_bar(name: str) -> Iterator[Callable[[str, float], None]]:
    """Show what is being done, the share of it that is done and the time that is left; call what it yields with both.

    A share below the last one begins something new, whose time is estimated anew.
    """
    from rich.console import Console
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
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=SPEED_SECONDS) as progress:
        bar = progress.add_task(name, total=1.0)

        def report(what: str, share: float) -> None:
            if share < progress.tasks[0].completed:
                progress.reset(bar)
            progress.update(bar, description=what, completed=share)

        yield report
