"""What is shown when a team has finished: the table of methods and the best finding."""

from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from sqlalchemy import select

from outlearn.database import open_database, reading
from outlearn.hints import command_line
from outlearn.results import pgr_text
from outlearn_agents.report.summary import Summary
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.tasks import why_no_pgr
from outlearn_agents.words import clean, duration, failures, method_label, shorten
from outlearn_training.queue.tables import metadata, runs
from outlearn_training.settings import TrainingSettings

ROWS = 20
PANEL = 120


def print_outcome(console: Console, summary: Summary, report: Path, last_words: str = "") -> None:
    """Print the methods with PGR ± s.e. and who found them, the best finding's text, and where the report is.

    `last_words` says why agents failed, where all did.
    """
    if summary.runs:
        console.print(_methods(summary))
        if (more := len(summary.runs) - ROWS) > 0:
            everything = command_line("outlearn", "report", report.parent, "--json")
            console.print(Text(f"... and {more} more: `{everything}`", style="dim"), soft_wrap=True)
    else:
        console.print(Text(why_none(summary, report.parent, last_words)), soft_wrap=True)
    if summary.lines:
        console.print(Text(f"for scale: {summary.for_scale()}", style="dim"))
    finding = summary.best_finding()
    if finding is not None:
        title = Text(f"the best finding: {clean(finding.title)} · {finding.author}")
        panel = Panel(Text(clean(finding.text)), title=title, title_align="left", border_style="dim")
        console.print(panel, width=min(console.width, PANEL))
    if (best := summary.best_in_final()) and best.pgr:
        label, interval = clean(method_label(best.method, best.params)), f"{best.pgr.low:.2f} to {best.pgr.high:.2f}"
        console.print(Text(f"best in the final: PGR {best.pgr.value:.2f} ({interval}), {label} by {best.agent}"))
    levels = f"teacher {100 * summary.weak_acc:.1f} %, ceiling {100 * summary.ceiling_acc:.1f} %"
    worked = f"; {duration(summary.wall_seconds)}" if summary.wall_seconds else ""
    console.print(Text(f"{summary.task}: {levels}{worked}"))
    console.print(Text(f"report: {report}"), soft_wrap=True)


def why_none(summary: Summary, run: Path, last_words: str = "") -> str:
    """That no run was evaluated, how far runs came, why agents failed where all did (`last_words`), and what to do."""
    counts = {status: f"{count} {status}" for status, count in summary.submitted.items()}
    if "cancelled" in counts:
        counts["cancelled"] += " (agents cancel what their time does not suffice for)"
    if "failed" in counts:
        counts["failed"] = failures(_said_by_failed_runs(run)) or counts["failed"]
    begin = f"No run was evaluated. Runs: {', '.join(counts.values()) or 'none was submitted'}.\n"
    if why := why_no_pgr(run, summary.task):
        return f"{begin}{why[0].upper()}{why[1:]}."
    logs = [run / "logs" / f"{name}-*.log" for name in ("worker", "agent")]
    if RunFolder(run).is_plain_home:
        return f"{begin}What workers did is in {logs[0]}."
    if last_words:
        again = command_line("outlearn", "team", run)
        return f"{begin}Agents: {last_words}. Their logs are {logs[1]}; `{again}` goes on once that is mended."
    again = command_line("outlearn", "team", run, "--minutes", 10)
    return (
        f"{begin}What workers did is in {logs[0]}, what agents did in {logs[1]}. Where there was too little time, "
        f"`{again}` goes on in the same folder."
    )


def _said_by_failed_runs(run: Path) -> list[str]:
    engine = open_database(TrainingSettings(home=run).database("training"), metadata)
    try:
        with reading(engine) as connection:
            return list(connection.scalars(select(runs.c.message).where(runs.c.status == "failed")))
    finally:
        engine.dispose()


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
