"""`outlearn compare`: teams side by side, with a plot."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outlearn.errors import InvalidInputError
from outlearn.results import pgr_text
from outlearn_agents.terminal.options import Json
from outlearn_agents.terminal.working import console
from outlearn_agents.words import duration

if TYPE_CHECKING:
    from rich.table import Table

    from outlearn_agents.report.comparison import Area, Comparison
    from outlearn_agents.report.summary import RunSummary

WIDE, NARROW = 760, 340


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders of one task, one or more.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page; default: compare.html in the first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare teams: best PGR over time, diversity of ideas.

    Verified PGR, over evaluations too. Intervals cover what was measured, not how another team would have fared;
    several folders an arm show that. Such as:

    outlearn compare runs/diverse runs/same
    """
    import anyio

    from outlearn.files import write_atomic
    from outlearn_agents.report.at_rest import collect_at_rest
    from outlearn_agents.report.comparison import compare_teams
    from outlearn_agents.report.families import submitted_runs
    from outlearn_agents.run_folder import RunFolder

    if twice := [str(run) for run, count in Counter(run.resolve() for run in runs).items() if count > 1]:
        raise InvalidInputError(f"{twice[0]!r} is given twice; name each run folder once")
    distinct = len({run.resolve().name for run in runs}) == len(runs)
    teams = {}
    for run in runs:
        folder = RunFolder(run)
        teams[run.resolve().name if distinct else str(run)] = (
            anyio.run(collect_at_rest, folder, folder.read_spec()),
            submitted_runs(folder),
        )
    comparison = compare_teams(teams)
    page = out or runs[0] / "compare.html"
    write_atomic(page, render_comparison(comparison).encode())
    if as_json:
        typer.echo(comparison.model_dump_json(indent=1))
        return
    console().print(comparison_table(comparison))
    for one in comparison.differences:
        typer.echo(f"{one.first} - {one.second}: {one.pgr:+.2f} ± {one.pgr_se:.2f}: {one.verdict}")
    for caveat in comparison.caveats:
        typer.echo(f"note: {caveat}")
    typer.echo(f"page: {page}")


def render_comparison(comparison: "Comparison") -> str:
    """The comparison as one HTML file."""
    from markupsafe import Markup

    from outlearn_agents.report.charts import comparison_chart
    from outlearn_agents.report.page import environment

    charts = {
        by_time: [Markup(comparison_chart(comparison, width, by_time)) for width in (WIDE, NARROW)]  # noqa: S704
        for by_time in (False, True)
    }
    return (
        environment()
        .get_template("compare.html.j2")
        .render(comparison=comparison, charts=charts, area=area_text, best=_best_text, stretches=_stretches(comparison))
    )


def _stretches(comparison: "Comparison") -> tuple[str, str]:
    """How far areas go, such as `12 evaluations` and `3 h 20 min`."""
    count = comparison.common_evaluations
    return f"{count} evaluation{'' if count == 1 else 's'}", duration(3600 * comparison.common_hours)


def area_text(area: "Area | None") -> str:
    """Such as `0.61 (0.55 to 0.66)`."""
    return "-" if area is None else f"{area.mean:.2f} ({area.low:.2f} to {area.high:.2f})"


def _best_text(best: "RunSummary | None") -> str:
    """Such as `0.80 ± 0.07`."""
    return "-" if best is None else f"{pgr_text(best.pgr, best.at_most)} ± {best.pgr_se:.2f}"


def comparison_table(comparison: "Comparison") -> "Table":
    """The comparison as a table for the terminal."""
    from rich.table import Table

    table = Table(title=f"Teams on {comparison.task}", title_justify="left", title_style="bold", box=None)
    areas = [f"area over {one}" for one in _stretches(comparison)]
    for column in ("run", "agents", "evals", "best PGR", *areas, "families", "text distance"):
        table.add_column(column, overflow="fold")
    for team in comparison.teams:
        ideas = team.diversity
        distance = "-" if ideas.text_distance is None else f"{ideas.text_distance:.2f}"
        row = (
            str(team.agents),
            str(team.evaluations),
            _best_text(team.best),
            area_text(team.area_over_evaluations),
            area_text(team.area_over_time),
            f"{ideas.effective_families:.1f}",
            distance,
        )
        table.add_row(team.run, *row)
    return table
