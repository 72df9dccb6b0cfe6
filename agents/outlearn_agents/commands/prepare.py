"""`outlearn prepare`: a tiny task, or anyone's data as a task."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn_agents.tasks import DEFAULT_HOME, next_commands
from outlearn_agents.terminal.options import Home, Json, Set, pairs

if TYPE_CHECKING:
    from outlearn.tasks import TaskCard
    from outlearn_training.data.report import Report

LISTED = 20


Name = Annotated[str, typer.Argument(help="The task: a tiny one such as math, or a name for your own.")]
Source = Annotated[
    str | None, typer.Option(help="Where real data comes from: local, gsm8k, helpsteer3, ...; see `plugins`.")
]
Files = Annotated[list[Path] | None, typer.Option(help="The source's file: JSONL, JSON, CSV, Parquet, a folder.")]
Mapping = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="ROLE=COLUMN,...", help="For local files: prompt=question,response=answer,..."),
]
Classes = Annotated[
    str | None, typer.Option(metavar="ZERO,ONE", help="The values of the label column that mean 0 and 1.")
]
SourceOptions = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of the source: split=train, variants=40 ...")
]
Kind = Annotated[str | None, typer.Option(help="math, chat or code, where the source does not know.")]
Licence = Annotated[str | None, typer.Option(help="The data's licence, for the card.")]
Train = Annotated[int | None, typer.Option(min=2, help="Labelled items for the teacher; default 500.")]
Pool = Annotated[int | None, typer.Option(min=2, help="Items that get weak labels; default 2000.")]
Test = Annotated[int | None, typer.Option(min=4, help="Test items; default 1000.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the random choices; default 0.")]
Balance = Annotated[bool | None, typer.Option("--balance/--no-balance", help="Both labels equally often; default yes.")]
Similarity = Annotated[
    float | None, typer.Option(min=0.5, max=1, help="Share of common text that makes a near duplicate: 0.8.")
]
OnBadRow = Annotated[str | None, typer.Option(help="refuse (default) or skip malformed rows.")]
Profile = Annotated[
    str | None,
    typer.Option(
        help="Models and their fine-tuning: tiny, smol, paper (default), or a .toml file. tiny is for the built-in "
        "tasks: its models know nothing else. smol was run by us, on a CPU; paper, with Qwen3-4B from the Hugging "
        "Face hub for a large GPU, was not run by us yet."
    ),
]
Teacher = Annotated[str | None, typer.Option(help="Another teacher than the profile's.")]
Student = Annotated[str | None, typer.Option(help="Another student than the profile's.")]
MaxTokens = Annotated[int | None, typer.Option(min=16, help="Longest prompt, in tokens.")]


def prepare(
    name: Name = "math",
    home: Home = DEFAULT_HOME,
    source: Source = None,
    file: Files = None,
    mapping: Mapping = None,
    classes: Classes = None,
    option: SourceOptions = None,
    kind: Kind = None,
    licence: Licence = None,
    train: Train = None,
    pool: Pool = None,
    test: Test = None,
    seed: Seed = None,
    balance: Balance = None,
    similarity: Similarity = None,
    on_bad_row: OnBadRow = None,
    profile: Profile = None,
    changed: Set = None,
    teacher: Teacher = None,
    student: Student = None,
    max_tokens: MaxTokens = None,
    as_json: Json = False,
) -> None:
    """Make a task: a tiny one, or of your own data.

    A tiny one comes with its calibration; with --source it is one of real data, to calibrate next. A second run changes
    nothing, and one after Ctrl-C runs no program twice. A prepared task lies in the vault; agents see it once it is
    calibrated, with this profile or another (`outlearn calibrate --help`). Such as:

    outlearn prepare mine --source local --file items.jsonl --map prompt=question,response=answer,label=ok
    """
    request = _given(
        files=file,
        columns=pairs([part for one in mapping or [] for part in one.split(",")], "--map") or None,
        classes=_two(classes) if classes else None,
        options=pairs(option or []) or None,
        kind=kind,
        licence=licence,
        train=train,
        pool=pool,
        test=test,
        seed=seed,
        balance=balance,
        similarity=similarity,
        on_bad_row=on_bad_row,
    )
    changes = _given(teacher=teacher, student=student, max_tokens=max_tokens) | pairs(changed or [], "--set")
    if source is not None:
        _prepare_data(home, {"name": name, "source": source, **request}, profile or "paper", changes, as_json)
    elif request or changes or profile not in (None, "tiny"):
        raise InvalidInputError(
            "all options but --home, --json and --profile tiny go with --source (local, for a file of yours); "
            "without it a tiny task is installed as it is"
        )
    else:
        _install(home, name, as_json)


def _install(home: Path, name: str, as_json: bool) -> None:
    from outlearn_training.prepare import prepare as install
    from outlearn_training.testbed import TESTBEDS

    if name not in TESTBEDS:
        raise NotFoundError(f"no tiny task {name!r}; there are: {', '.join(TESTBEDS)}. Data of your own needs --source")
    card = install(home, name)
    sizes = f"{card.pool_size} pool items, {card.test_size} test items, seeds {list(card.seeds)}"
    following = next_commands(home, name)
    typer.echo(card.model_dump_json(indent=1) if as_json else f"{card.name}: {sizes} in {home}\n{following}")


def _prepare_data(home: Path, request: dict[str, Any], profile: str, changes: dict[str, Any], as_json: bool) -> None:
    import json

    from pydantic import ValidationError

    from outlearn.tasks import NAME_RULE, TASK_NAME
    from outlearn_agents.terminal.progress import progress_bar
    from outlearn_training.data.pipeline import DataRequest, prepare_data
    from outlearn_training.places import caveat
    from outlearn_training.profiles import load_profile

    if not TASK_NAME.fullmatch(request["name"]):
        raise InvalidInputError(f"{request['name']!r} cannot be a task's name; {NAME_RULE}")
    try:
        wanted = DataRequest(**request, profile=load_profile(profile, changes))
    except ValidationError as error:
        found = (f"{_option(one['loc'])}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors())
        raise InvalidInputError("; ".join(found)) from error
    with progress_bar(wanted.name) as report_progress:
        card, report = prepare_data(home, wanted, report_progress)
    if as_json:
        typer.echo(json.dumps({"card": card.model_dump(mode="json"), "report": report.model_dump(mode="json")}))
    else:
        _print(home, card, report)
    for text in filter(None, dict.fromkeys(map(caveat, (card.teacher, card.student)))):
        typer.echo(f"before you calibrate: {text}", err=True)


def _print(home: Path, card: "TaskCard", report: "Report") -> None:
    for reason, count in report.bad_counts.items():
        lines = [str(row.line) for row in report.bad_rows if row.reason == reason]
        more = f", ... (see {home}/vault/{card.name}/report.json)" if count > LISTED else ""
        typer.echo(f"skipped, {reason}: {count} in line {', '.join(lines[:LISTED])}{more}", err=True)
    for name, split in report.splits.items():
        typer.echo(
            f"{name}: {split.items} items of {split.groups} groups, {100 * split.share_of_label_1:.0f} % label 1"
        )
    typer.echo(
        f"{report.rows} rows; left out: {report.duplicates} duplicates, {report.near_duplicates} near duplicates, "
        f"{report.contradictions} with both labels; in two splits: none\n"
        f"{card.name} ({card.fingerprint[:12]}) is in the vault of {home}\n{next_commands(home, card.name)}"
    )


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _two(text: str) -> tuple[str, str]:
    zero, comma, one = text.partition(",")
    if not (comma and zero and one) or "," in one:
        raise InvalidInputError(f"--classes {text!r} must be two values with a comma, such as no,yes")
    return zero, one


def _option(place: tuple[int | str, ...]) -> str:
    return "--" + str(place[0]).replace("_", "-")
