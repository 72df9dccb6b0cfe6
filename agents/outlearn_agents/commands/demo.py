"""`outlearn demo`: the main job in two minutes, offline."""

from pathlib import Path
from typing import Annotated

import typer

from outlearn.errors import ConflictError, NotFoundError
from outlearn.hints import command_line
from outlearn_agents.tasks import FIRST_TASK
from outlearn_agents.terminal.options import Json
from outlearn_agents.terminal.working import work

WARM_UP_SECONDS = 240.0
"""Imports of PyTorch by workers may take minutes on a busy machine."""


def demo(
    run: Annotated[
        Path | None, typer.Option(help="Run folder; default: the next free runs/demo, runs/demo-2, ...")
    ] = None,
    seconds: Annotated[float, typer.Option(min=10, help="Time for research, start and end not counted.")] = 110,
    agents: Annotated[int, typer.Option(min=1, max=64, help="How many offline researchers.")] = 3,
    task: Annotated[str, typer.Option(help="The task, one of the tiny testbed.")] = FIRST_TASK,
    seed: Annotated[int, typer.Option(help="Seed of the researchers' searches.")] = 0,
    as_json: Json = False,
) -> None:
    """Watch three offline researchers for two minutes.

    They raise PGR by real training of tiny Qwen3 models. At the end: a table of methods, the best finding, and
    report.html and summary.json in the run folder. Such as:

    outlearn demo --seconds 60 --agents 2
    """
    from outlearn.tasks import task_names
    from outlearn_agents.directions import choose_directions
    from outlearn_agents.run_folder import RunFolder, RunnerSettings, next_folder
    from outlearn_agents.team.runner import make_team
    from outlearn_training.testbed import TESTBEDS

    if task not in (*TESTBEDS, *(task_names(run) if run else ())):
        raise NotFoundError(f"no tiny task {task!r}; there are: {', '.join(TESTBEDS)}")
    folder = RunFolder(run or next_folder(Path("runs"), "demo"))
    wanted = make_team(task, choose_directions([], agents), seed=seed)
    # a fast machine would use up a day's evaluations before the time is over
    wanted = wanted.with_server_options("evaluation", ["--daily-evaluations", "30"])
    spec = folder.read_spec() if folder.spec_file.exists() else wanted
    if (spec.task, spec.agents) != (wanted.task, wanted.agents):
        again = command_line("outlearn", "team", folder.root)
        raise ConflictError(f"{str(folder.root)!r} has another team already: `{again}` goes on with it")
    work(folder, spec, seconds, as_json, RunnerSettings(warm_up_seconds=WARM_UP_SECONDS))
