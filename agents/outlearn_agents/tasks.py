"""Which task a command is about, and what makes one that is missing."""

from collections.abc import Iterable
from pathlib import Path

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.gap import public_gap
from outlearn.hints import command_line
from outlearn.tasks import default_task, load_baselines, load_secret, prepared_names, task_names

DEFAULT_HOME = Path("runs/default")
FIRST_TASK = "math"
"""The task of a home folder that has none yet."""


def find_task(home: Path, name: str | None, installable: Iterable[str]) -> str:
    """The task of this name, or the home's default task; in a home without tasks, the tiny math task.

    Args:
        installable: tiny tasks that are put into the home when somebody works there.

    Raises:
        NotFoundError: it is not there; the message has the commands that make it.
        InvalidInputError: no name is given, and none of several tasks is the newest.
    """
    known, waiting = task_names(home), prepared_names(home)
    if name is None and not known:
        name = waiting[0] if waiting else FIRST_TASK
    name = name or default_task(home)
    if name in known or (name in installable and name not in waiting):
        return name
    raise NotFoundError(how_to_make(home, name))


def next_commands(home: Path, name: str) -> str:
    """What comes next for a task: calibration, where it is only prepared, and a team, where runs can be scored."""
    team = command_line("outlearn", "team", home, "--task", name)
    if name in task_names(home):
        why = why_no_pgr(home, name)
        return f"next: no team yet: {why}" if why else f"next: {team}"
    return f"next: {command_line('outlearn', 'calibrate', name, '--home', home)}\nthen: {team}"


def why_no_pgr(home: Path, name: str) -> str:
    """Why no run of this task can be scored; empty where runs can be, or the task is not there yet."""
    if name in task_names(home):
        try:
            public_gap(load_baselines(home, name), load_secret(home, name))
        except InvalidInputError as error:
            return str(error)
    return ""


def how_to_make(home: Path, name: str) -> str:
    """That a task is missing, and how to make it in this home folder."""
    calibrate = command_line("outlearn", "calibrate", name, "--home", home)
    if name in prepared_names(home):
        return f"task {name!r} is prepared in {str(home)!r} and has to be calibrated: `{calibrate}`"
    from outlearn_training.testbed import TESTBEDS

    known = ", ".join(task_names(home))
    says = f"no task {name!r} in {str(home)!r}" + (f", which has {known}" if known else "") + "; "
    prepare = command_line("outlearn", "prepare", name, "--home", home)
    if name in TESTBEDS:
        says += f"`{prepare}` puts it there"
    else:
        says += f"`{prepare} --source ...` makes one of your data, and `{calibrate}` comes next"
    if home != DEFAULT_HOME and name in (*task_names(DEFAULT_HOME), *prepared_names(DEFAULT_HOME)):
        says += f"; {str(DEFAULT_HOME)!r} has one: a team works in the home folder of its task"
    return says
