"""A release as it is shown: the finalists, what differs significantly, and where to read on."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlearn.hints import command_line
from outlearn.results import pgr_text
from outlearn_agents.words import clean, method_label, shorten
from outlearn_evaluation.release import Comparison, Finalist, Interval, Release

PAIRS = 20


def print_release(console: Console, release: Release, file: Path) -> None:
    """Print the finalists with PGR and its interval, the comparisons, and the files."""
    console.print(_finalists(release))
    for one in release.finalists:
        if one.failed:
            console.print(Text(f"{one.run_id} has no score: {clean(shorten(one.failed, 200))}"))
    if release.comparisons:
        console.print(_comparisons(release))
    levels = f"teacher {100 * release.weak_acc:.1f} %, ceiling {100 * release.ceiling_acc:.1f} %"
    of = f"{release.items} private items" + (f" in {release.groups} groups" if release.groups < release.items else "")
    console.print(Text(f"{release.task}: {levels} on {of}, {len(release.seeds)} fresh seeds"))
    console.print(Text(_note(release), style="dim"))
    console.print(Text(f"release: {file}"), soft_wrap=True)
    reveal = command_line("outlearn", "reveal", release.task, "--home", file.parents[2], "--out", "revealed.json")
    console.print(Text(f"what the task's commitment stands for: {reveal}", style="dim"), soft_wrap=True)


def _finalists(release: Release) -> Table:
    title = f"The final of {release.task}, opened {release.opened_at:%Y-%m-%d %H:%M} UTC"
    table = _table(title, ("", "PGR", "95 %", "items, seeds", "told", "public half"), "nominated run")
    for number, one in enumerate(release.finalists, 1):
        label = f"{one.run_id} by {one.agent}: {method_label(one.method, one.params)}"
        table.add_row(str(number), *_numbers(one), Text(clean(shorten(label, 100))))
    return table


def _numbers(one: Finalist) -> tuple[str, ...]:
    told = pgr_text(one.told, one.told_at_most)
    if one.pgr is None:
        return "failed" if one.failed else "-", "", "", told, ""
    parts = f"±{one.pgr.se_items:.2f}, ±{one.pgr.se_seeds:.2f}"
    fall = f"{one.fall.value:+.2f} ±{one.fall.se:.2f}" if one.fall else ""
    return f"{one.pgr.value:.2f}", _span(one.pgr), parts, told, fall


def _comparisons(release: Release) -> Table:
    numbers = {one.run_id: number for number, one in enumerate(release.finalists, 1)}
    left = len(release.comparisons) - PAIRS
    title = "Differences in points, on the same items and seeds" + (f"; {left} more in the release" if left > 0 else "")
    table = _table(title, ("", "points", "95 %", "p", "p (Holm)"), "")
    for pair in release.comparisons[:PAIRS]:
        which = f"{numbers[pair.run_id]} - {numbers[pair.other]}"
        table.add_row(which, *_difference(pair), "" if pair.significant else "not significant")
    return table


def _difference(pair: Comparison) -> tuple[str, ...]:
    points = f"{100 * pair.difference.value:+.2f}"
    return points, _span(pair.difference, 100), f"{pair.p_value:.3f}", f"{pair.p_holm:.3f}"


def _span(interval: Interval, scale: float = 1.0) -> str:
    return f"[{scale * interval.low:.2f}, {scale * interval.high:.2f}]"


def _table(title: str, numbers: Iterable[str], last: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(last)
    return table


def _note(release: Release) -> str:
    scored = [one for one in release.finalists if not one.failed]
    if scored and all(one.pgr is None for one in scored):
        gap = f"{100 * release.gap.value:.1f} points {_span(release.gap, 100)}"
        return f"PGR is undefined: the gap between teacher and ceiling, {gap}, is not significant."
    significant, pairs = sum(pair.significant for pair in release.comparisons), len(release.comparisons)
    return (
        "PGR on the private half, and by how much it is higher on the public one, with standard errors. Intervals are "
        "for new items and new seeds. "
        f"{significant} of {pairs} differences are significant (5 % for all together, Holm); "
        "where they are not, the order means nothing."
    )
