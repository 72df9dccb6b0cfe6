"""`outlearn testbed-table`: every method on the tiny tasks."""

from pathlib import Path
from typing import Annotated

import typer

from outlearn_agents.terminal.options import Json


def results_table(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tiny tasks; default: all.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(help="Folder for testbed.json and testbed.md.")] = Path("docs/results"),
    as_json: Json = False,
) -> None:
    """Run every method on the tiny tasks, for a table.

    Over five fresh seeds; it takes minutes. What stands in the table about other tasks is kept. Such as:

    outlearn testbed-table math --out results
    """
    from outlearn_agents.terminal.progress import progress_bar
    from outlearn_training.testbed import TESTBEDS
    from outlearn_training.testbed.table import TABLE, as_markdown, make_table, write_table

    with progress_bar("testbed") as report_progress:
        rows = make_table(tasks or list(TESTBEDS), report_progress)
    table = write_table(out, rows)
    typer.echo(TABLE.dump_json(table, indent=1).decode() if as_json else as_markdown(table))
