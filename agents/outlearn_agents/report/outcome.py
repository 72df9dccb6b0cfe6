"""What is shown when a team has finished: the table of methods and the best finding."""

from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from outlearn.results import pgr_text
from outlearn_agents.report.labels import method_label, shorten
from outlearn_agents.report.page import duration
from outlearn_agents.report.summary import Summary
from outlearn_agents.team.live import clean

ROWS = 20


def print_outcome(console: Console, summary: Summary, report: Path) -> None:
    """Print the methods with PGR ± s.e. and who found them, the best finding's text, and where the report is."""
    console.print(_methods(summary) if summary.runs else Text("No run was evaluated."))
    if summary.lines:
        console.print(Text(f"for scale: {summary.for_scale()}", style="dim"))
    finding = summary.best_finding()
    if finding is not None:
        title = Text(f"the best finding: {clean(finding.title)} · {finding.author}")
        console.print(Panel(Text(clean(finding.text)), title=title, title_align="left", border_style="dim"))
    levels = f"teacher {100 * summary.weak_acc:.1f} %, ceiling {100 * summary.ceiling_acc:.1f} %"
    console.print(Text(f"{summary.task}: {levels}; {duration(summary.wall_seconds)}"))
    console.print(Text(f"report: {report}"), soft_wrap=True)


def _methods(summary: Summary) -> Table:
    table = Table(title=f"Methods on {summary.task}, best first", title_justify="left", title_style="bold", box=None)
    for column in ("PGR", "± s.e.", "seeds"):
        table.add_column(column, justify="right")
    for column in ("method", "found by", "run"):
        table.add_column(column)
    for run in summary.runs[:ROWS]:
        label = Text(clean(shorten(method_label(run.method, run.params), 70)))
        row = (pgr_text(run.pgr, run.at_most), f"{run.pgr_se:.2f}", str(run.seeds), label, run.agent, run.run_id)
        table.add_row(*row)
    return table
