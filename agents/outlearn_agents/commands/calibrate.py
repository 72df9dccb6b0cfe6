"""`outlearn calibrate`: teachers, ceilings and controls for a task, on the executor that agents' runs are on."""

from typing import Annotated

import typer

from outlearn.errors import InvalidInputError, NotFoundError
from outlearn.prepared import read_prepared
from outlearn_agents.tasks import DEFAULT_HOME, how_to_make, next_commands
from outlearn_agents.terminal.options import Home, Json, Set, pairs

NO_GAP = (
    "next: no team yet, as no run could be scored. Prepare and calibrate the task in a home folder of its own (--home) "
    "with a larger student (--profile; tiny is for the built-in tasks), more items to learn from (--pool) or more test "
    "items (--test)"
)


def calibrate(
    name: Annotated[str, typer.Argument(help="The task: one that was prepared, or a tiny one such as math.")] = "math",
    home: Home = DEFAULT_HOME,
    seeds: Annotated[int, typer.Option(min=5, max=100, help="How many seeds, from 0; 16 make errors small.")] = 5,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Other models and fine-tuning than it was prepared with: tiny (for the built-in tasks: its models "
            "know nothing else), smol, paper, a .toml file."
        ),
    ] = None,
    changes: Set = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Most seeds to train side by side; default one a GPU, else one a core.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for each seed; default 1.")] = None,
    as_json: Json = False,
) -> None:
    """Train teachers and ceilings for a prepared task.

    One of each for each seed; weak labels become public, baselines stay in the vault. Seeds train side by side where
    devices are free, and share them with the home folder's training server. An interrupted calibration goes on where it
    was. The report is kept in the vault. Another profile needs another home folder:

    outlearn calibrate math --home runs/lr --set student_tuning.lr=1e-4
    """
    from outlearn_agents.terminal.progress import progress_bar, resumable
    from outlearn_training.calibration.report import read_report
    from outlearn_training.settings import TrainingSettings
    from outlearn_training.testbed import TESTBEDS

    if name not in TESTBEDS and read_prepared(home, name) is None:
        raise NotFoundError(how_to_make(home, name))
    try:
        from outlearn_training.calibration.calibrate import calibrate as train
        from outlearn_training.calibration.slots import SlotTraining
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"calibration trains models ({error}): pip install 'outlearn[training]'") from error
    given = {key: value for key, value in {"workers": workers, "threads": threads}.items() if value is not None}
    slots = SlotTraining(TrainingSettings(home=home).model_copy(update=given))
    with resumable(), progress_bar(name) as report:
        train(home, name, range(seeds), report, profile=profile, changes=pairs(changes or [], "--set"), train=slots)
    found = read_report(home, name)
    following = next_commands(home, name) if found.significant else NO_GAP
    typer.echo(found.model_dump_json(indent=1) if as_json else f"{found}\n{following}")
