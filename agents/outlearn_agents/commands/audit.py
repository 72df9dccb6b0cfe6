"""`outlearn audit` and `outlearn review`: what the detectors saw, and what the operator makes of it."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ValidationError

from outlearn.errors import InvalidInputError, NotFoundError, OutlearnError
from outlearn_agents.terminal.options import Json, RunArgument, home_of

if TYPE_CHECKING:
    from outlearn.audit import AuditLog, AuditRecord
    from outlearn.types import Finding, RunView
    from outlearn_evaluation.service import EvaluationService
    from outlearn_evaluation.teacher_check import Change

NOMINEES = "nominees"
Decision = Literal["release", "quarantine", "disqualify"]


def audit(
    run: RunArgument,
    kind: Annotated[str | None, typer.Option(help="Only this detector's records, such as 'random masks'.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only records about this agent.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="Only records about this run, such as run-0123.")] = None,
    scan: Annotated[bool, typer.Option(help="First look at every evaluated run and at the forum's claims.")] = True,
    check_teacher: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUN|nominees",
            help="First train these runs again, two seeds each: on inverted weak labels, and on a changed pool, of "
            "which methods meet the items with other digits. Answers that a program works out from words are not seen.",
        ),
    ] = None,
    accept_failed: Annotated[
        bool,
        typer.Option(
            "--accept-failed", help="Take re-runs that a limit or the machine ended for failed: no more tries."
        ),
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain of hashes, and print the last one.")
    ] = False,
    thresholds: Annotated[
        bool, typer.Option("--thresholds", help="Show the detectors' thresholds, task by task, and what they are from.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what detectors flagged. For the operator.

    What they withheld and disqualified, too. The log is in the vault, is only ever added to, and no agent sees it.
    `outlearn review` decides about a run. Such as:

    outlearn audit runs/mine --kind "random masks" --json
    """
    from outlearn.audit import AuditKind, AuditLog
    from outlearn.receipts import has_receipts

    log = AuditLog(home_of(run) / "vault")
    if kind is not None and kind not in (known := {*AuditKind, *(one.kind for one in log.records())}):
        raise InvalidInputError(f"no kind of record {kind!r}; there are: {', '.join(sorted(known))}")
    if agent is not None and not (_is_recorded(log, agent) or (_is_agent(agent) and _has_worked(run, agent))):
        raise NotFoundError(f"no agent {agent!r} ever worked in {str(run)!r}")
    if run_id is not None and not (
        has_receipts(run / "vault", run_id) or any(r.run_id == run_id for r in log.records())
    ):
        raise NotFoundError(f"no run {run_id!r} in {str(run)!r} has receipts or records")
    if verify:
        count, head = log.verify()
        words = f"{count} records; the chain of hashes is intact, the last is {head}"
        typer.echo(json.dumps({"records": count, "head": head}) if as_json else words)
        return
    if thresholds:
        _print_thresholds(run, as_json)
        return
    if scan or check_teacher:
        _look(run, check_teacher or [], scan, accept_failed)
    wanted = {"kind": kind, "agent": agent, "run_id": run_id}
    records = [
        one for one in log.records() if all(value in (None, getattr(one, name)) for name, value in wanted.items())
    ]
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in records], indent=1))
    else:
        _print(records)
        _say_where_thresholds_are_constants(run)


def review(
    run: RunArgument,
    decision: Annotated[Decision, typer.Argument(help="release, quarantine or disqualify.", show_default=False)],
    subject: Annotated[str, typer.Argument(help="A run (run-0123) or an agent.", show_default=False)],
    because: Annotated[str, typer.Option(help="Why, for the log.")] = "",
    as_json: Json = False,
) -> None:
    """Release or withhold a run or an agent.

    Only what is released, or was never withheld, stands on the leaderboard.

    Such as: outlearn review runs/mine release run-0123456789 --because "both seeds hold"
    """
    from outlearn.audit import AuditKind, AuditLog
    from outlearn.receipts import RUN_ID, has_receipts

    is_run = RUN_ID.fullmatch(subject) is not None
    if not is_run and (subject.startswith("run-") or not _is_agent(subject)):
        raise InvalidInputError(f"{subject!r} is neither a run, such as run-0123456789, nor an agent's name")
    home = home_of(run)
    if is_run and not has_receipts(home / "vault", subject):  # genuine or not: a forged one is to be reviewed, too
        raise NotFoundError(f"no run {subject!r} in {str(home)!r} has receipts; the leaderboard has the runs' ids")
    if not is_run and not _has_worked(home, subject):
        raise NotFoundError(f"no agent {subject!r} ever worked in {str(home)!r}")
    AuditLog(home / "vault").append(
        AuditKind.OPERATOR,
        decision,
        run_id=subject if is_run else "",
        agent="" if is_run else subject,
        evidence={"because": because} if because else {},
    )
    what = "run" if is_run else "agent"
    typer.echo(json.dumps({"decision": decision, what: subject}) if as_json else f"{decision}: {what} {subject}")


def _is_agent(name: str) -> bool:
    from outlearn.identity import Caller

    try:
        Caller(agent=name)
    except ValidationError:
        return False
    return True


def _is_recorded(log: "AuditLog", agent: str) -> bool:
    return any(one.agent == agent for one in log.records())


def _has_worked(home: Path, agent: str) -> bool:
    """Whether this agent has a workspace here, or an evaluated run."""
    from outlearn_evaluation.service import EvaluationService
    from outlearn_evaluation.settings import EvaluationSettings

    if (home / "workspaces" / agent).is_dir():
        return True
    service = EvaluationService(EvaluationSettings(home=home))
    try:
        return any(row.agent == agent for row in service.evaluated())
    finally:
        service.engine.dispose()


def _look(home: Path, teacher_of: Sequence[str], scan: bool, accept_failed: bool) -> None:
    """What takes too long for `evaluate`, or happens elsewhere."""
    from outlearn import ServerSettings
    from outlearn.logs import configure_logging
    from outlearn_evaluation.service import EvaluationService
    from outlearn_evaluation.settings import EvaluationSettings

    configure_logging(ServerSettings.model_construct(log_format="console", log_level="warning"))
    service = EvaluationService(EvaluationSettings(home=home))
    try:
        if scan:
            service.inspect_again()
            _check_claims(home, service)
        if teacher_of:
            _check_teacher(home, service, teacher_of, accept_failed)
    finally:
        service.engine.dispose()


def _check_claims(home: Path, service: "EvaluationService") -> None:
    """Read all findings as an agent would, and hold what they say against the record."""
    import anyio

    from outlearn_evaluation.false_claims import false_claim

    board = service.evaluated()
    for finding in anyio.run(_read_findings, home):
        if found := false_claim(finding, board):
            service.auditor.file(found, finding.run_id or "", finding.author, "")


async def _read_findings(home: Path) -> list["Finding"]:
    """With their whole texts, oldest first."""
    from outlearn import ServerSettings
    from outlearn.identity import OPERATOR
    from outlearn.researcher import ask
    from outlearn.toolbox import open_toolbox
    from outlearn.types import Thread
    from outlearn_agents.reading import all_findings
    from outlearn_forum.server import build

    settings = ServerSettings(home=home, agent=OPERATOR.agent, role=OPERATOR.role)
    async with open_toolbox({"forum": build(settings)}) as tools:
        return [
            (await ask(tools, Thread, "forum", "read_thread", thread_id=one.finding_id)).finding
            if one.text_cut
            else one
            for one in await all_findings(tools)
        ]


def _check_teacher(home: Path, service: "EvaluationService", subjects: Sequence[str], accept_failed: bool) -> None:
    from outlearn_agents.terminal.progress import progress_bar, resumable
    from outlearn_evaluation.teacher_check import check_teacher
    from outlearn_training.settings import TrainingSettings

    try:
        from outlearn_training.rerun import rerun
    except ModuleNotFoundError as error:
        raise InvalidInputError(f"this trains models ({error}): pip install 'outlearn[training]'") from error
    run_ids = [one for one in subjects if one != NOMINEES]
    if NOMINEES in subjects:
        run_ids += [row.run_id for row in service.evaluated() if row.nominated]
    with resumable(), progress_bar("learns from the teacher?") as report:

        def again(
            task: str, some: Sequence[str], into: Path, seeds: Sequence[int], change: "Change | None"
        ) -> Mapping[str, "RunView"]:
            how = {"invert": True} if change is None else change._asdict()
            how["retry_failed"] = not accept_failed
            return rerun(TrainingSettings.as_kept(home), task, some, into, seeds=seeds, on_progress=report, **how)

        for receipt, found in check_teacher(home, list(dict.fromkeys(run_ids)), again, accept_failed=accept_failed):
            service.auditor.file(found, receipt.run_id, receipt.agent, receipt.task)


def _print(records: Sequence["AuditRecord"]) -> None:
    from rich.table import Table
    from rich.text import Text

    from outlearn_agents.terminal.working import console

    table = Table(box=None)
    for column in ("at (UTC)", "kind", "action", "agent", "run"):
        table.add_column(column, no_wrap=True)
    table.add_column("evidence", overflow="fold")
    for one in records:
        evidence = ", ".join(f"{name} {_short(value)}" for name, value in one.evidence.items())
        row = (f"{one.at:%Y-%m-%d %H:%M}", one.kind, one.action, one.agent, one.run_id, evidence)
        table.add_row(*(Text(cell) for cell in row))  # an agent's text must not be markup
    console().print(table)
    typer.echo(f"{len(records)} record{'' if len(records) == 1 else 's'}")


def _print_thresholds(home: Path, as_json: bool) -> None:
    from outlearn_evaluation.thresholds import in_force

    found = in_force(home)
    if as_json:
        typer.echo(json.dumps({task: asdict(one) for task, one in found.items()}, indent=1))
        return
    for task, one in found.items():
        alike = f"seeds that disagree on less than {100 * one.alike:.2g} % of the items"
        typer.echo(f"task {task}, from {one.source}")
        typer.echo(f"  seeds alike   {alike if one.alike else 'off: too few items to tell equal seeds by'}")
        typer.echo(f"  seeds apart   seeds that disagree more than {100 * one.apart:.0f} % as often as strangers")
        typer.echo(f"  random masks  changes with an effect under {one.doubt:.2f}")


def _say_where_thresholds_are_constants(home: Path) -> None:
    from outlearn_evaluation.thresholds import in_force

    with suppress(OutlearnError):  # a task that cannot be opened has no detectors either, and the log is shown
        for task, one in in_force(home).items():
            if not one.calibrated:
                typer.echo(f"thresholds of task {task}: {one.source}")


def _short(value: int | float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
