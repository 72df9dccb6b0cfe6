"""Command-line options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from outlearn.errors import InvalidInputError, NotFoundError

Home = Annotated[
    Path,
    typer.Option("--home", envvar="OUTLEARN_HOME", help="The home folder of the tool servers; a team's run folder."),
]
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="The run folder, such as runs/mine. It is its servers' home folder: what `prepare` and `calibrate` "
        "--home made.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts on stdout; all else goes to stderr.")]

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the profile; give it several times: --set student_tuning.lr=1e-4 --set teacher=FOLDER. "
        "Fields: teacher, student, max_tokens, and epochs, lr, batch_size, warmup, lora_rank ... of teacher_tuning and "
        "student_tuning; a wrong name lists them all.",
    ),
]


def home_of(path: Path) -> Path:
    """The home folder. Raises NotFoundError where it is none."""
    if not (path / "vault").is_dir():
        raise NotFoundError(f"{str(path)!r} has no vault: it is no home folder of tool servers")
    return path


def pairs(given: list[str], option: str = "--option") -> dict[str, str]:
    """NAME=VALUE texts as a dict. Raises InvalidInputError."""
    parts = [one.partition("=") for one in given]
    for name, equals, _ in parts:
        if not (name and equals):
            raise InvalidInputError(f"{option} {name!r} must look like NAME=VALUE")
    return {name: value for name, _, value in parts}
