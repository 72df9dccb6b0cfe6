"""`report.html`: one file with everything in it, made from a summary alone."""

import re
from datetime import timedelta

import jinja2
from markupsafe import Markup

from outlearn.files import write_atomic
from outlearn_agents.report.charts import colours, methods_chart, progress_chart
from outlearn_agents.report.final_chart import final_chart
from outlearn_agents.report.lineage import lineage_graph
from outlearn_agents.report.lineage_chart import lineage_chart
from outlearn_agents.report.summary import Summary
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.words import duration, method_label

WIDE = 760
NARROW = 340


def write_summary(folder: RunFolder, summary: Summary) -> None:
    """Write `summary.json` and `report.html`."""
    write_atomic(folder.summary, summary.model_dump_json(indent=1).encode())
    write_atomic(folder.report, render_report(summary).encode())


def render_report(summary: Summary) -> str:
    """The report as HTML. Titles and texts of findings are shown as text, whatever they contain."""
    page = environment()
    page.filters["clock"] = lambda moment: f"+{timedelta(seconds=round(3600 * summary.hours_at(moment)))}"
    page.filters["without_marks"] = lambda text: re.sub(r"^#+ +", "", text, flags=re.MULTILINE)
    graph, release = lineage_graph(summary), summary.final.release if summary.final else None
    finalists = release.finalists if release else ()
    scored = [one for one in finalists if not one.failed]
    return page.get_template("report.html.j2").render(
        summary=summary,
        best_finding=summary.best_finding(),
        colours=colours(summary),
        label=lambda run: method_label(run.method, run.params),
        duration=duration(summary.wall_seconds),
        progress=[Markup(progress_chart(summary, width)) for width in (WIDE, NARROW)],  # noqa: S704
        methods=[Markup(methods_chart(summary, width)) for width in (WIDE, NARROW)],  # noqa: S704
        graph=graph,
        lineage=[Markup(lineage_chart(graph, summary, width)) for width in (WIDE, NARROW)],  # noqa: S704
        final=summary.final,
        best_in_final=summary.best_in_final(),
        finals=[Markup(final_chart(release, summary, width)) for width in (WIDE, NARROW)] if release else [],  # noqa: S704
        undefined_pgr=bool(scored) and all(one.pgr is None for one in scored),
        place={one.run_id: number for number, one in enumerate(finalists, 1)},
    )


def environment() -> jinja2.Environment:
    """Where the pages' templates are. Whatever texts contain, they are shown as text."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("outlearn_agents"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
