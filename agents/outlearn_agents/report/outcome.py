"""What is shown when a team has finished: the table of methods and the best finding."""

from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from outlearn.hints import command_line
from outlearn.results import pgr_text
from outlearn_agents.report.summary import Summary
from outlearn_agents.words import clean, duration, method_label, shorten

ROWS = 20


def print_outcome(console: Console, summary: Summary, report: Path) -> None:
    """Print the methods with PGR ± s.e. and who found them, the best finding's text, and where the report is."""
    if summary.runs:
        console.print(_methods(summary))
    else:
        console.print(Text(why_none(summary, report.parent)), soft_wrap=True)
    if summary.lines:
        console.print(Text(f"for scale: {summary.for_scale()}", style="dim"))
    finding = summary.best_finding()
    if finding is not None:
        title = Text(f"the best finding: {clean(finding.title)} · {finding.author}")
        console.print(Panel(Text(clean(finding.text)), title=title, title_align="left", border_style="dim"))
    levels = f"teacher {100 * summary.weak_acc:.1f} %, ceiling {100 * summary.ceiling_acc:.1f} %"
    console.print(Text(f"{summary.task}: {levels}; {duration(summary.wall_seconds)}"))
    console.print(Text(f"report: {report}"), soft_wrap=True)


def why_none(summary: Summary, run: Path) -> str:
    """That no run was evaluated, how far runs came, and what to do."""
    counts = ", ".join(f"{count} {status}" for status, count in summary.submitted.items()) or "none was submitted"
    if summary.submitted.get("cancelled"):
        counts += " (agents cancel what their time does not suffice for)"
    logs = [run / "logs" / f"{name}-*.log" for name in ("worker", "agent")]
    again = command_line("outlearn", "team", run, "--minutes", 10)
    return (
        f"No run was evaluated. Runs: {counts}.\n"
        f"What workers did is in {logs[0]}, what agents did in {logs[1]}. Where there was too little time, `{again}` "
        "goes on in the same folder, and a demo takes a longer --seconds."
    )


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
