"""`outlearn reveal` and `outlearn verify-commitment`: what the published hash of a task stands for."""

import json
from pathlib import Path
from typing import Annotated

import typer

from outlearn.audit import AuditKind, AuditLog
from outlearn.errors import ConflictError
from outlearn.files import write_atomic
from outlearn.hints import command_line
from outlearn_agents.tasks import DEFAULT_HOME
from outlearn_agents.terminal.options import Home, Json, home_of


def reveal(
    task: Annotated[str, typer.Argument(help="The task.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write, for anybody to check.", show_default=False)],
    home: Home = DEFAULT_HOME,
    early: Annotated[bool, typer.Option("--early", help="Although no final was held.")] = False,
    as_json: Json = False,
) -> None:
    """Write out what a task's commitment stands for.

    The labels, split, noise, baselines and nonce, for the operator. Whoever has the file can score anything: reveal it
    when the work on the task is over. Such as:

    outlearn reveal math --home runs/mine --out revealed.json
    """
    from outlearn_agents.terminal.working import renew_report
    from outlearn_evaluation.commitment import open_task
    from outlearn_evaluation.release import ReleaseBook

    opened = open_task(home_of(home), task)
    if not early and ReleaseBook(home / "vault", task).read() is None:
        raise ConflictError(
            f"no final of task {task!r} was held yet, and whoever sees its labels can win it: `outlearn finalize` "
            "first, or pass --early"
        )
    if out.exists():
        raise ConflictError(f"{str(out)!r} exists already; name another file")
    write_atomic(out, opened.model_dump_json().encode(), mode=0o600)
    known = {"task": task, "commitment": opened.commitment, "file": str(out)}
    typer.echo(json.dumps(known) if as_json else opened.commitment)
    check = command_line("outlearn", "verify-commitment", out, opened.commitment)
    typer.echo(f"written to {out}; whoever has it checks it against the hash above: `{check}`", err=True)
    AuditLog(home / "vault").append(AuditKind.COMMITMENT_REVEALED, "note", task=task)
    renew_report(home)


def verify_commitment(
    file: Annotated[Path, typer.Argument(help="What `outlearn reveal` wrote.", show_default=False)],
    published: Annotated[
        str,
        typer.Argument(help="The hash that `outlearn team status` showed and agents could read.", show_default=False),
    ],
    as_json: Json = False,
) -> None:
    """Check what `outlearn reveal` wrote.

    Labels, split, noise and baselines are those that were committed to at the start. Needs no home. Such as:

    outlearn verify-commitment revealed.json HASH
    """
    from outlearn_evaluation.commitment import read_opened, verify

    opened = read_opened(file)
    verify(opened, published)
    labels = len(opened.secret.test)
    words = f"{opened.task}: {labels} labels, split, noise and baselines are as committed"
    typer.echo(json.dumps({"task": opened.task, "labels": labels, "as_committed": True}) if as_json else words)
