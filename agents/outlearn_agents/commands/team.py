"""`outlearn team`: start a team, and from another terminal look at it, pause, resume, stop it or add an agent."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from outlearn.errors import ConflictError, InvalidInputError, NotFoundError
from outlearn.hints import command_line
from outlearn_agents.spending.prices import DEFAULT_MODEL
from outlearn_agents.tasks import find_task
from outlearn_agents.terminal.mistyped import refuse_mistyped
from outlearn_agents.terminal.options import Json, RunArgument, pairs
from outlearn_agents.terminal.working import console, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from outlearn_agents.run_folder import RunFolder, TeamSpec
    from outlearn_agents.team.control import Control


DirectionMode = Literal["diverse", "same", "prescriptive"]


class StartByDefault(TyperGroup):
    """`outlearn team RUN ...` is `outlearn team start RUN ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that is meant.

        Raises InvalidInputError where another one is mistyped, rather than that a new folder is named so.
        """
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            if "/" not in args[0] and not Path(args[0]).is_dir():
                other = f" `{command_line('outlearn', 'team', f'./{args[0]}')}` works in a new folder of that name"
                refuse_mistyped(args[0], [f"team {name}" for name in self.commands], other)
            args = ["start", *args]
        return super().parse_args(ctx, args)


team = typer.Typer(
    cls=StartByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Let a team work: `outlearn team RUN`.\n\nFrom another terminal: status, pause, resume, stop, budget, add.\n\n"
    "Such as: outlearn team runs/mine --researcher claude --minutes 600 --dollars 50; `outlearn team start --help` has "
    "all options.",
)

Agents = Annotated[
    list[str] | None,
    typer.Option("--agent", metavar="NAME", help="Only this agent; give it several times. Default: all."),
]
Direction = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="A starting direction, by name or as a text file; give it several times."),
]
Option = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help=f"Of the researcher: model={DEFAULT_MODEL} ...")
]
Minutes = Annotated[float, typer.Option(min=0.1, max=525_600, help="Time for this session.")]
Dollars = Annotated[float | None, typer.Option(min=0.01, help="Most that the team may spend on models.")]
Tokens = Annotated[int | None, typer.Option(min=1, help="Most tokens of the team, but for input from a cache.")]
Hours = Annotated[float | None, typer.Option(min=0.01, help="Most agent-hours of the team.")]
Evaluations = Annotated[int | None, typer.Option(min=0, help="Evaluations of the team; default 200.")]
DeviceSeconds = Annotated[float | None, typer.Option(min=0.1, help="Most seconds of training devices for the team.")]
AgentBudget = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Of each agent; give it several times: dollars=5, tokens=, hours=, evaluations= (default 30), "
        "evaluations_a_day= (default 6, days being UTC), device_seconds=",
    ),
]
Restarts = Annotated[int, typer.Option(min=0, help="Deaths of an agent or server in an hour that are made good.")]


@team.command()
def start(
    run: RunArgument,
    task: Annotated[str | None, typer.Option(help="The task; default: the one that RUN has, else math.")] = None,
    agents: Annotated[int | None, typer.Option(min=1, max=64, help="How many researchers; default 3.")] = None,
    direction: Direction = None,
    directions: Annotated[
        DirectionMode | None,
        typer.Option(help="diverse (default): nine vague ones; same: one for all; prescriptive: steps to follow."),
    ] = None,
    researcher: Annotated[str | None, typer.Option(help="offline, claude or a plugin's; default offline.")] = None,
    option: Option = None,
    minutes: Minutes = 30,
    seed: Annotated[int | None, typer.Option(help="Seed of the first researcher; the next has the next.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Training workers; default one a GPU, else one a core.")
    ] = None,
    dollars: Dollars = None,
    tokens: Tokens = None,
    hours: Hours = None,
    evaluations: Evaluations = None,
    device_seconds: DeviceSeconds = None,
    agent_budget: AgentBudget = None,
    restarts: Restarts = 10,
    as_json: Json = False,
) -> None:
    """Let a team work in a run folder.

    In a folder where it worked before, it goes on. `start` may be left out. The folder is its servers' home: a task of
    your own is one that was prepared and calibrated with --home RUN. Each session makes tokens of its own, in place of
    the last session's; what `outlearn token` made goes on.

    Ctrl-C once: agents finish what they are saying, and the report is written. Twice: everything ends now. Such as:

    outlearn team runs/mine --researcher claude --agents 9 --minutes 600 --dollars 50
    """
    from outlearn_agents.directions import choose_directions
    from outlearn_agents.run_folder import RunFolder, RunnerSettings
    from outlearn_agents.spending.budgets import change_budget
    from outlearn_agents.team.runner import make_team
    from outlearn_training.testbed import TESTBEDS

    folder = RunFolder(run)
    spec = folder.read_spec() if folder.spec_file.exists() else None
    if spec is None or any(
        one not in (None, []) for one in (task, agents, direction, directions, researcher, option, seed)
    ):
        texts = choose_directions(direction or [], agents or max(3, len(direction or [])), directions or "diverse")
        chosen = task or (spec.task if spec else find_task(run, None, TESTBEDS))
        wanted = make_team(chosen, texts, researcher or "offline", seed or 0, pairs(option or []))
        if spec and (wanted.task, wanted.agents) != (spec.task, spec.agents):
            raise InvalidInputError(
                f"{str(run)!r} has another team already: leave out what describes a team to go on with it, "
                "or name another folder"
            )
        spec = spec or wanted
    if workers:
        spec = spec.with_server_options("training", ["--workers", str(workers)])
    given = {"dollars": dollars, "tokens": tokens, "hours": hours, "evaluations": evaluations}
    budget = change_budget(
        folder, given | {"device_seconds": device_seconds}, pairs(agent_budget or [], "--agent-budget")
    )
    work(folder, spec, 60 * minutes, as_json, RunnerSettings(restarts=restarts), budget)


@team.command()
def resume(
    run: RunArgument,
    agent: Agents = None,
    minutes: Minutes = 30,
    restarts: Restarts = 10,
    as_json: Json = False,
) -> None:
    """Let paused agents, or the whole team, go on.

    Where no team runner is at work, also after a kill, it starts again with its team. Such as:

    outlearn team resume runs/mine --minutes 600
    """
    from outlearn_agents.run_folder import RunFolder, RunnerSettings

    folder = RunFolder(run)
    spec = folder.read_spec()
    names = _members(spec, agent)
    if folder.is_at_work:
        _ask(folder, lambda now: now.model_copy(update={"paused": now.paused - names}))
        _tell(names, "going on", "", as_json)
        return
    if agent:
        whole = command_line("outlearn", "team", "resume", run)
        raise ConflictError(f"no team is at work in {str(run)!r}, so no agent is paused; `{whole}` starts all of them")
    work(folder, spec, 60 * minutes, as_json, RunnerSettings(restarts=restarts))


@team.command()
def status(run: RunArgument, as_json: Json = False) -> None:
    """Show what agents do, spend and have left.

    And what waits for a device. Such as:

    outlearn team status runs/mine --json
    """
    from outlearn_agents.run_folder import RunFolder
    from outlearn_agents.team.overview import look_over
    from outlearn_agents.team.overview_table import print_overview

    overview = look_over(RunFolder(run))
    if as_json:
        typer.echo(overview.model_dump_json(indent=1))
    else:
        print_overview(console(), overview)


@team.command()
def pause(run: RunArgument, agent: Agents = None, as_json: Json = False) -> None:
    """Have agents wait at their next tool call.

    A pause does not count towards an agent's hours. While all are paused, the session's time stands still too. Runs
    that are queued go on. Such as:

    outlearn team pause runs/mine --agent ada
    """
    from outlearn_agents.team.control import read_control

    folder, names = _at_work(run, agent)
    was = read_control(folder).paused
    _ask(folder, lambda now: now.model_copy(update={"paused": now.paused | names}))
    resume = command_line("outlearn", "team", "resume", run)
    _tell(names, "paused already" if names <= was else "pausing", f"`{resume}` lets them go on", as_json)


@team.command()
def stop(run: RunArgument, agent: Agents = None, as_json: Json = False) -> None:
    """Have agents write down what they know and leave.

    Without --agent, the report is written and the session ends. Such as:

    outlearn team stop runs/mine
    """
    folder, names = _at_work(run, agent)
    if agent:
        _ask(folder, lambda now: now.model_copy(update={"stopped": now.stopped | names, "paused": now.paused - names}))
    else:
        _ask(folder, lambda now: now.model_copy(update={"stop": True}))
    _tell(names, "finishing", f"`{command_line('outlearn', 'team', run)}` goes on another time", as_json)


@team.command()
def budget(
    run: RunArgument,
    dollars: Dollars = None,
    tokens: Tokens = None,
    hours: Hours = None,
    agent_budget: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Of each agent: dollars=5, tokens=, hours=")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what may be spent.

    Agents at work go by it from their next model call on, those that wait for room at once. Evaluations and device
    seconds are the servers': give them to `outlearn team RUN` when a session begins. Such as:

    outlearn team budget runs/mine --dollars 80 --agent-budget dollars=10
    """
    from outlearn_agents.run_folder import RunFolder
    from outlearn_agents.spending.budgets import change_budget, write_budget

    folder, own = RunFolder(run), pairs(agent_budget or [], "--agent-budget")
    folder.read_spec()
    if held := own.keys() & {"evaluations", "evaluations_a_day", "device_seconds"}:
        starts = command_line("outlearn", "team", run, "--agent-budget", f"{min(held)}=NUMBER")
        raise InvalidInputError(f"{min(held)!r} cannot change here; `{starts}` sets it when a session begins")
    changed = change_budget(folder, {"dollars": dollars, "tokens": tokens, "hours": hours}, own)
    if changed is None:
        raise InvalidInputError("give a limit, such as --dollars 50")
    write_budget(folder, changed)
    typer.echo(changed.model_dump_json() if as_json else f"team: {changed.team}; each agent: {changed.agent}")


@team.command()
def add(
    run: RunArgument,
    direction: Annotated[str | None, typer.Option(help="Its direction, by name or as a text file.")] = None,
    researcher: Annotated[str | None, typer.Option(help="Default: as the first agent's.")] = None,
    option: Option = None,
    seed: Annotated[int | None, typer.Option(help="Default: the next one.")] = None,
    as_json: Json = False,
) -> None:
    """Add an agent to a team.

    It starts at once where the team is at work, else with the next session. Such as:

    outlearn team add runs/mine --direction confidence
    """
    from outlearn_agents.run_folder import RunFolder
    from outlearn_agents.team.runner import ask_for_member

    folder = RunFolder(run)
    made = ask_for_member(folder, direction, researcher, pairs(option) if option else None, seed)
    when = "starting" if folder.is_at_work else "starts with the next session"
    _tell([made.name], when, "", as_json)


def _tell(names: "Iterable[str]", what: str, hint: str, as_json: bool) -> None:
    """Print what agents do now, and what to do next."""
    if as_json:
        typer.echo(json.dumps({"agents": sorted(names), "state": what}))
    else:
        typer.echo(f"{', '.join(sorted(names))}: {what}" + (f"; {hint}" if hint else ""))


def _at_work(run: "Any", agents: list[str] | None) -> "tuple[RunFolder, frozenset[str]]":
    from outlearn_agents.run_folder import RunFolder

    folder = RunFolder(run)
    names = _members(folder.read_spec(), agents)
    if not folder.is_at_work:
        resume = command_line("outlearn", "team", "resume", run)
        raise ConflictError(f"no team is at work in {str(run)!r}; `{resume}` starts it again")
    return folder, names


def _members(spec: "TeamSpec", agents: list[str] | None) -> frozenset[str]:
    known = [agent.name for agent in spec.agents]
    for name in agents or ():
        if name not in known:
            raise NotFoundError(f"no agent {name!r} in this team; there are: {', '.join(known)}")
    return frozenset(agents or known)


def _ask(folder: "RunFolder", change: "Callable[[Control], Control]") -> None:
    from outlearn_agents.team.control import change_control

    change_control(folder, change)
