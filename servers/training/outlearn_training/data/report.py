"""What the operator learns of a preparation. It has shares of labels, so it is kept in the vault."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from outlearn.sources import Lengths
from outlearn.tasks import LabelledItem
from outlearn_training.data.scan import Scan
from outlearn_training.data.selection import Chosen, Overlap, Selection
from outlearn_training.data.splits import Split


class Frozen(BaseModel):
    """A value that never changes."""

    model_config = ConfigDict(frozen=True)


class BadRowView(Frozen):
    """A row that was not used."""

    line: int
    reason: str
    detail: str


class SplitReport(Frozen):
    """One split. `longer_wins`: share of comparisons won by the longer response; None for claims."""

    items: int
    groups: int
    share_of_label_1: float
    characters: Lengths
    median_characters_of_label_0: int
    median_characters_of_label_1: int
    longer_wins: float | None


class Report(Frozen):
    """All of it. `bad_rows` lists the first thousand; `bad_counts` has them all."""

    recipe: dict[str, Any]
    rows: int
    usable: int
    bad_counts: dict[str, int]
    bad_rows: tuple[BadRowView, ...]
    duplicates: int
    near_duplicates: int
    contradictions: int
    linked_groups: int
    exact_overlap: int
    near_overlap: int
    splits: dict[str, SplitReport]


def make_report(
    recipe: Mapping[str, Any],
    scan: Scan,
    selection: Selection,
    overlap: Overlap,
    items: Mapping[Split, Sequence[LabelledItem]],
) -> Report:
    """Put the figures together."""
    return Report(
        recipe=dict(recipe),
        rows=scan.rows,
        usable=int(scan.usable.sum()),
        bad_counts=dict(sorted(scan.bad_counts.items())),
        bad_rows=tuple(BadRowView(line=one.line, reason=one.reason, detail=one.detail) for one in scan.bad_rows),
        duplicates=selection.duplicates,
        near_duplicates=selection.near_duplicates,
        contradictions=selection.contradictions,
        linked_groups=selection.linked_groups,
        exact_overlap=overlap.exact,
        near_overlap=overlap.near,
        splits={name: _split(items[name], chosen) for name, chosen in selection.splits.items()},
    )


def lengths(texts: Sequence[str]) -> Lengths:
    """Median, 95th percentile and maximum of the lengths, in characters."""
    sizes = np.array([len(text) for text in texts])
    median, p95 = np.percentile(sizes, [50, 95], method="higher")
    return Lengths(median=int(median), p95=int(p95), longest=int(sizes.max()))


def _split(items: Sequence[LabelledItem], chosen: Sequence[Chosen]) -> SplitReport:
    by_label = [[item.text for item in items if item.label == label] for label in (0, 1)]
    medians = [lengths(texts).median if texts else 0 for texts in by_label]
    pairs = [one.example for one in chosen if len(one.example.responses) == 2]
    wins = [len(pair.responses[pair.label]) > len(pair.responses[1 - pair.label]) for pair in pairs]
    return SplitReport(
        items=len(items),
        groups=len({item.group for item in items}),
        share_of_label_1=len(by_label[1]) / len(items),
        characters=lengths([item.text for item in items]),
        median_characters_of_label_0=medians[0],
        median_characters_of_label_1=medians[1],
        longer_wins=float(np.mean(wins)) if pairs else None,
    )
