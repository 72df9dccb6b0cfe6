"""`outlearn prepare` for real data: from a source to a task in the vault, ready to be calibrated."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from outlearn.errors import ConflictError, InvalidInputError
from outlearn.prepared import Parts, hide_labels, read_prepared, write_prepared
from outlearn.registry import SOURCES, Registry
from outlearn.sources import DataFacts, Kind, Source, SourceRequest
from outlearn.tasks import LabelledItem, TaskCard, TaskName, with_fingerprint
from outlearn_training.data.files import sha256_of
from outlearn_training.data.report import Report, lengths, make_report
from outlearn_training.data.scan import MAX_LISTED, Scan
from outlearn_training.data.selection import Chosen, Selection, check, select
from outlearn_training.data.splits import ORDER, Split, winners
from outlearn_training.data.templates import Wording, compose, wording
from outlearn_training.places import check_words
from outlearn_training.profiles import Profile

OnProgress = Callable[[str, float], None]
LISTED_IN_ERROR = 20


class DataRequest(BaseModel):
    """Which data becomes which task. All but `files` and `on_bad_row` is the task's recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: TaskName
    source: str
    files: tuple[Path, ...] = ()
    kind: Kind | None = None
    columns: dict[str, str] = {}
    classes: tuple[str, str] | None = None
    options: dict[str, str] = {}
    licence: str = ""
    train: int = Field(500, ge=2)
    pool: int = Field(2000, ge=2)
    test: int = Field(1000, ge=4)
    seed: int = Field(0, ge=0)
    balance: bool = True
    similarity: float = Field(0.8, ge=0.5, le=1, description="From here on two texts are nearly the same.")
    on_bad_row: Literal["refuse", "skip"] = "refuse"
    profile: Profile

    @property
    def sizes(self) -> dict[Split, int]:
        """How many items each split is to have."""
        return {"test": self.test, "train": self.train, "pool": self.pool}


def prepare_data(home: Path, request: DataRequest, on_progress: OnProgress | None = None) -> tuple[TaskCard, Report]:
    """Make a task of somebody's data and put it into the vault. A second time changes nothing.

    Args:
        on_progress: called with what is being done and the share of it that is done, in [0, 1].

    Raises:
        PluginError, NotFoundError: no such source or file.
        InvalidInputError: malformed rows that are not to be skipped, too few items, an option that does not fit, or
            models without single tokens for the label words.
        ConflictError: the task was prepared from other data (the source has changed), or in another way.
    """
    report = on_progress or (lambda _what, _share: None)
    source: Source = Registry(SOURCES).load(request.source)
    kind = _kind(source, request)
    hashes = [sha256_of(path) for path in request.files]
    recipe = request.model_dump(mode="json", exclude={"files", "on_bad_row"}) | {"kind": kind, "sha256": hashes}
    if known := _known(home, request.name, recipe):
        return known
    with closing(Scan(home / "vault")) as scan:
        scan.read(source.rows(_source_request(home, request, report)))
        _refuse(scan, request)
        words = wording(kind, comparisons=bool(scan.comparisons))
        for model in (request.profile.teacher, request.profile.student):
            check_words(model, words.words)
        report("duplicates and splits", 0)
        rng = np.random.default_rng([*scan.key, request.seed])
        selection = select(scan, request.sizes, request.similarity, rng, balanced=request.balance)
        items = {name: _items(kind, chosen, request.balance, rng) for name, chosen in selection.splits.items()}
        facts = _facts(source, request, scan, selection, items, hashes[0] if len(hashes) == 1 else scan.sha256)
        parts = _parts(request, kind, words, facts, items)
        made = make_report(recipe, scan, selection, check(selection.splits, request.similarity), items)
    card = write_prepared(home, parts, recipe, made.model_dump_json(indent=1))
    report("done", 1)
    return card, made


def _kind(source: Source, request: DataRequest) -> Kind:
    unknown = set(request.options) - set(source.options)
    if unknown:
        raise InvalidInputError(
            f"source {request.source!r} has no options {sorted(unknown)}; it has: {', '.join(source.options) or 'none'}"
        )
    kind = request.kind or source.kind
    if kind is None:
        raise InvalidInputError(f"source {request.source!r} can be of any kind; say --kind math, chat or code")
    if source.kind not in (None, kind):
        raise InvalidInputError(f"source {request.source!r} is of kind {source.kind!r}, not {kind!r}; leave --kind out")
    return kind


def _known(home: Path, name: str, recipe: Mapping[str, Any]) -> tuple[TaskCard, Report] | None:
    """The task as it was prepared before. Without files there is no telling yet whether its source has changed."""
    prepared = read_prepared(home, name)
    if prepared is None:
        return None
    changed = sorted(key for key in recipe if prepared.recipe.get(key) != recipe[key])
    if changed == ["sha256"]:
        raise ConflictError(
            f"the source of task {name!r} has changed since it was prepared: its SHA-256 was "
            f"{prepared.recipe['sha256']}, now it is {recipe['sha256']}; restore the file, or prepare it under "
            "another name or in another home folder"
        )
    if changed:
        raise ConflictError(
            f"task {name!r} was prepared with other settings ({', '.join(changed)}); use those again, or another name"
        )
    if not recipe["sha256"]:
        return None
    return prepared.card, Report.model_validate_json((home / "vault" / name / "report.json").read_bytes())


def _source_request(home: Path, request: DataRequest, report: OnProgress) -> SourceRequest:
    return SourceRequest(
        files=request.files,
        columns=request.columns,
        classes=request.classes,
        options=request.options,
        seed=request.seed,
        vault=home / "vault",
        on_share=lambda share: report("reading and checking rows", share),
    )


def _refuse(scan: Scan, request: DataRequest) -> None:
    """Raises InvalidInputError where there is no row, or where there are malformed ones that are not to be skipped."""
    if not scan.rows:
        raise InvalidInputError(f"{', '.join(repr(str(path)) for path in request.files) or 'the source'} is empty")
    bad = scan.bad_counts.total()
    if not bad or (request.on_bad_row == "skip" and bad < scan.rows):
        return
    lines = []
    for reason, count in sorted(scan.bad_counts.items()):
        listed = [one for one in scan.bad_rows if one.reason == reason][:LISTED_IN_ERROR]
        found = []
        for detail in dict.fromkeys(one.detail for one in listed):
            found += [str(one.line) for one in listed if one.detail == detail]
            found[-1] += f" ({detail})" if detail else ""
        more = ["..."] if count > len(listed) else []
        lines.append(f"  {reason}: {count}, in line {', '.join([*found, *more])}")
    advice = f"mend them, or leave them out with --on-bad-row skip (the report lists the first {MAX_LISTED:,})"
    if bad == scan.rows:
        advice = "no row is left: " + ("is --map right?" if request.columns else "is it a file of this source?")
    raise InvalidInputError(
        f"{bad:,} of {scan.rows:,} rows are malformed, so nothing was prepared:\n" + "\n".join([*lines, advice])
    )


def _items(kind: Kind, chosen: Sequence[Chosen], balance: bool, rng: np.random.Generator) -> tuple[LabelledItem, ...]:
    """Items under names that say nothing; of comparisons, each position wins half where they are to be balanced."""
    places = winners(len(chosen), rng) if balance else rng.integers(0, 2, len(chosen))
    items = []
    for one, place in zip(chosen, places.tolist(), strict=True):
        label = int(place) if len(one.example.responses) == 2 else one.example.label
        text = compose(kind, one.example, swapped=label != one.example.label)
        items.append(LabelledItem(id=f"{one.key:016x}", text=text, group=f"{one.group:016x}", label=label))
    return tuple(items)


def _facts(
    source: Source,
    request: DataRequest,
    scan: Scan,
    selection: Selection,
    items: Mapping[Split, Sequence[LabelledItem]],
    sha256: str,
) -> DataFacts:
    groups = {name: len({item.group for item in items[name]}) for name in ORDER}
    return DataFacts(
        source=request.source,
        licence=request.licence or source.licence,
        source_sha256=sha256,
        rows=scan.rows,
        skipped_rows=sum(scan.bad_counts.values()),
        duplicates=selection.duplicates + selection.near_duplicates,
        contradictions=selection.contradictions,
        train_size=len(items["train"]),
        train_groups=groups["train"],
        pool_groups=groups["pool"],
        test_groups=groups["test"],
        balanced=request.balance,
        pool_characters=lengths([item.text for item in items["pool"]]),
    )


def _parts(
    request: DataRequest,
    kind: Kind,
    words: Wording,
    facts: DataFacts,
    items: Mapping[Split, tuple[LabelledItem, ...]],
) -> Parts:
    profile = request.profile
    pool, secret = hide_labels(items["train"], items["pool"], items["test"], request.seed)
    card = TaskCard(
        name=request.name,
        kind=kind,
        question=words.question,
        template=words.template,
        label_words=words.words,
        zero_shot_words=words.words,
        **profile.model_dump(include={"teacher", "student", "max_tokens"}),
        teacher_tuning=profile.teacher_tuning,
        student_tuning=profile.student_tuning,
        pool_size=len(pool),
        test_size=len(secret.test),
        source=f"{request.source}; {facts.licence or 'licence not stated'}",
        data=facts,
    )
    return with_fingerprint(card, pool, secret), pool, secret
