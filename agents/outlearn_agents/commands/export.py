"""`outlearn export`: a run's students as folders that transformers and peft load."""

import json
from pathlib import Path
from typing import Annotated

import typer

from outlearn_agents.tasks import DEFAULT_HOME
from outlearn_agents.terminal.options import Home, Json


def export(
    run_id: Annotated[str, typer.Argument(help="A full run, such as run-1a2b3c4d5e.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="A new folder for the students.", show_default=False)],
    home: Home = DEFAULT_HOME,
    seed: Annotated[int | None, typer.Option(help="Only one of the run's seeds; default: all of them.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run's students for transformers or peft.

    AutoModelForCausalLM.from_pretrained loads them, or PeftModel's, where they are adapters. Each
    FOLDER/seed-K/student-J has the weights, the tokenizer and the task's card, whose template and label words the
    student knows. A run has a student for each seed, or several where its method is an ensemble. Such as:

    outlearn export run-1a2b3c4d5e students --home runs/mine
    """
    from outlearn_training.export import export_students

    written = export_students(home, run_id, seed, folder)
    typer.echo(json.dumps([str(path) for path in written]) if as_json else "\n".join(map(str, written)))
