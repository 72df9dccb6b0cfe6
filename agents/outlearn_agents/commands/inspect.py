"""`outlearn inspect`: judge what the agents of a team did, with the lines that say so."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from outlearn_agents.spending.prices import DEFAULT_MODEL
from outlearn_agents.terminal.options import Json, RunArgument
from outlearn_agents.terminal.working import console

if TYPE_CHECKING:
    from rich.table import Table

    from outlearn_agents.inspection.by_rules import AgentInspection
    from outlearn_agents.run_folder import RunFolder

STYLES = {"PASS": "green", "NEEDS REVIEW": "yellow", "SUSPICIOUS": "bold red"}
SHOWN = 5


def inspect(
    run: RunArgument,
    claude: Annotated[bool, typer.Option("--claude", help="Let Claude read it too; needs ANTHROPIC_API_KEY.")] = False,
    model: Annotated[str, typer.Option(help="Claude's model.")] = DEFAULT_MODEL,
    price: Annotated[str, typer.Option(help="Of a model that prices.json lacks: IN,OUT dollars per million.")] = "",
    dollars: Annotated[float, typer.Option(min=0.01, help="Most that Claude's reading may cost.")] = 2.0,
    out: Annotated[Path | None, typer.Option(help="Where to write the page; default: inspection.html in RUN.")] = None,
    as_json: Json = False,
) -> None:
    """Judge what each agent did, citing the lines.

    PASS, NEEDS REVIEW or SUSPICIOUS, from transcripts, methods, findings and the audit log. Rules point at lines, and
    Claude may; a person decides. `inspection.json` in the run folder has all of it. Such as:

    outlearn inspect runs/mine --claude --dollars 2
    """
    import anyio

    from outlearn.files import write_atomic
    from outlearn_agents.run_folder import RunFolder

    folder = RunFolder(run)
    found = anyio.run(_inspect_all, folder, claude, model, price, dollars)
    page = out or folder.root / "inspection.html"
    write_atomic(folder.root / "inspection.json", _as_json(found).encode(), mode=0o600)
    write_atomic(page, render_inspection(folder.root, found).encode(), mode=0o600)
    if as_json:
        typer.echo(_as_json(found))
        return
    console().print(_table(found))
    typer.echo(f"page: {page}")


async def _inspect_all(
    folder: "RunFolder", claude: bool, model: str, price: str, dollars: float
) -> "list[AgentInspection]":
    from outlearn_agents.inspection.by_rules import inspect_agent
    from outlearn_agents.inspection.evidence import read_dossiers
    from outlearn_agents.report.at_rest import collect_at_rest

    dossiers = read_dossiers(folder, await collect_at_rest(folder, folder.read_spec()))
    found = [inspect_agent(dossier) for dossier in dossiers]
    if not claude:
        return found
    from outlearn_agents.claude.researcher import make_client
    from outlearn_agents.inspection.by_claude import INSPECTOR, ClaudeInspector
    from outlearn_agents.spending.ledger import Budget, Ledger, Limits
    from outlearn_agents.terminal.progress import progress_bar

    with closing(Ledger(folder.root / "agents" / "inspection.sqlite")) as ledger:
        ledger.write_off(INSPECTOR)
        so_far = ledger.statement().dollars
        ledger.set_budget(Budget(team=Limits(dollars=so_far + dollars)))
        async with make_client("leave --claude out: the rules need none") as client:
            inspector = ClaudeInspector(client, ledger, model, price)
            judged = []
            with progress_bar("inspection") as report:
                for done, (dossier, one) in enumerate(zip(dossiers, found, strict=True)):
                    report(f"Claude reads what {one.agent} did", done / len(found))
                    judged.append(await inspector.inspect(dossier, one))
            return judged


def render_inspection(run: Path, found: "list[AgentInspection]") -> str:
    """The inspection as one HTML file."""
    from outlearn_agents.report.page import environment

    return environment().get_template("inspection.html.j2").render(run=str(run), found=found)


def _as_json(found: "list[AgentInspection]") -> str:
    from pydantic import TypeAdapter

    from outlearn_agents.inspection.by_rules import AgentInspection

    return TypeAdapter(list[AgentInspection]).dump_json(found, indent=1).decode()


def _table(found: "list[AgentInspection]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    from outlearn_agents.words import clean

    table = Table(box=None, padding=(0, 1))
    table.add_column("agent", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("evidence", ratio=1)
    for one in found:
        lines = [f"{line.rule}: {line.where}: {clean(line.text)}" for line in one.evidence[:SHOWN]]
        more = len(one.evidence) - SHOWN
        lines += [f"... and {more} more lines"] if more > 0 else []
        lines += [clean(one.reason if one.rules_only else f"Claude: {one.reason}")] if one.reason else []
        table.add_row(one.agent, Text(one.verdict_text, style=STYLES[one.verdict]), Text("\n".join(lines) or "-"))
    return table
