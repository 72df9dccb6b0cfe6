"""`outlearn finalize`: nominated runs on fresh seeds, and the one look at the private half. For the operator."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outlearn.errors import InvalidInputError
from outlearn.hints import command_line
from outlearn_agents.terminal.options import Json, RunArgument

if TYPE_CHECKING:
    from outlearn_agents.terminal.progress import OnProgress
    from outlearn_evaluation.final import Rerun
    from outlearn_evaluation.release import Release
    from outlearn_training.settings import TrainingSettings


def finalize(
    run: RunArgument,
    task: Annotated[
        str | None, typer.Option(help="The task; default: the team's, else the only or newest one.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=5, help="How many fresh seeds; default 5. More make intervals narrower.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Training workers; default as many as the runs had.")
    ] = None,
    accept_failed: Annotated[
        bool, typer.Option("--accept-failed", help="Release although re-runs failed: no more tries, and no score.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Hold the final: nominees on fresh seeds, private items.

    Nominations close, the nominees run again, and the private half of the test items scores them. This ends the work on
    a task: from then on nobody can nominate or evaluate a run of it. The private half is opened once, and the release
    is kept in the vault: a second `outlearn finalize` shows the same. Interrupted, it goes on where it was. Where a run
    fails on the fresh seeds, nothing is opened: mend what it says and call it again, which tries that run alone; or, if
    the method is to blame, accept it. Sandbox, time limits and the like are those that the runs had;
    OUTLEARN_SEED_SECONDS and its like change them. Such as:

    outlearn finalize runs/mine --seeds 8
    """
    from outlearn.tasks import load_card
    from outlearn_agents.terminal.finals import print_release
    from outlearn_agents.terminal.working import console, renew_report
    from outlearn_evaluation.release import ReleaseBook

    name = load_card(run, task or _task_of(run)).name
    book = ReleaseBook(run / "vault", name)
    release = book.read() or _hold(run, name, seeds, workers, accept_failed)
    if as_json:
        typer.echo(release.model_dump_json(indent=1))
    else:
        print_release(console(), release, book.path)
    renew_report(run)


def _hold(run: Path, task: str, seeds: int | None, workers: int | None, accept_failed: bool) -> "Release":
    from outlearn_agents.run_folder import RunFolder
    from outlearn_agents.terminal.progress import progress_bar, resumable
    from outlearn_agents.terminal.working import warn_of_no_pgr
    from outlearn_evaluation.final import finalize as hold_final
    from outlearn_evaluation.settings import EvaluationSettings
    from outlearn_training.settings import TrainingSettings

    training = TrainingSettings.as_kept(run, **({"workers": workers} if workers else {}))
    warn_of_no_pgr(run, task)
    again = command_line("outlearn", "finalize", run)
    with resumable(f"`{again}`"), RunFolder(run).lock_for_final(), progress_bar(task) as report:
        rerun = _rerunning(training, task, report, retry_failed=not accept_failed)
        return hold_final(EvaluationSettings(home=run), task, rerun, seeds, accept_failed=accept_failed)


def _task_of(run: Path) -> str:
    from outlearn.tasks import default_task
    from outlearn_agents.run_folder import RunFolder

    folder = RunFolder(run)
    return default_task(run) if folder.is_plain_home else folder.read_spec().task


def _rerunning(settings: "TrainingSettings", task: str, report: "OnProgress", retry_failed: bool) -> "Rerun":
    """Runs again by the training package, which is found missing before anything is closed."""
    import numpy as np

    from outlearn.tasks import load_card
    from outlearn_evaluation.final import Reruns

    try:
        for needed in ("scipy.stats", "statsmodels.stats.multitest"):
            import_module(needed)
        from outlearn_training.calibration.calibrate import load_predictions
        from outlearn_training.rerun import rerun
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"a final trains models ({error}): pip install 'outlearn[agents,training]'") from error

    def run_again(run_ids: Sequence[str], into: Path, seeds: Sequence[int]) -> Reruns:
        runs = rerun(settings, task, run_ids, into, seeds=seeds, retry_failed=retry_failed, on_progress=report)
        found = load_predictions(into, load_card(into, task)).values()
        weak, ceiling = (np.stack([getattr(one, name) for one in found]) for name in ("weak_test", "ceiling_test"))
        return Reruns(runs, weak, ceiling)

    return run_again
