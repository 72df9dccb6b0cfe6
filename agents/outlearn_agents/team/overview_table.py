"""The tables of `outlearn team status`."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from outlearn.hints import command_line
from outlearn_agents.spending.ledger import HOUR
from outlearn_agents.team.overview import AgentOverview, Overview, QueuedRun, Spent
from outlearn_agents.words import clean, duration, shorten


def print_overview(console: Console, overview: Overview) -> None:
    """Print an overview for people."""
    console.print(Text(f"{overview.run} · {overview.task} · {_state(overview)}", style="bold"), soft_wrap=True)
    if overview.disk_is_full:
        text = f"the disk of {overview.run} is full: nothing can be written until there is room"
        console.print(Text(text, style="red"), soft_wrap=True)
    console.print(Text(_money(overview)), soft_wrap=True)
    limits = overview.spent.limits
    evaluations = f"evaluations left: {overview.evaluations_left}, {overview.evaluations_a_day} a day for each agent"
    console.print(Text(f"budget of the team: {limits}; {evaluations}"), soft_wrap=True)
    if overview.commitment:
        console.print(Text(f"commitment to labels, split, noise and baselines: {overview.commitment}"), soft_wrap=True)
    if died := [f"{name} {count}" for name, count in overview.server_restarts.items() if count]:
        console.print(Text(f"servers started again: {', '.join(died)}"))
    for agent, why in overview.refused.items():
        review = command_line("outlearn", "review", overview.run, "release", agent)
        text = f"{agent} gets no new answers: {clean(why)}. See `outlearn audit`; `{review}` lets it go on"
        console.print(Text(text, style="yellow"), soft_wrap=True)
    console.print(_agents(overview.agents))
    console.print(_queue(overview.queue) if overview.queue else Text("No run waits or trains.", style="dim"))


def _state(overview: Overview) -> str:
    finalize = command_line("outlearn", "finalize", overview.run)
    if overview.is_at_work:
        if overview.seconds_left is None:
            return "starting"
        return f"{'paused' if overview.is_paused else 'at work'}, {duration(overview.seconds_left)} left"
    if overview.final == "at work":
        return "its final is at work"
    if overview.final == "begun":
        return f"not at work; the final has begun: `{finalize}` goes on"
    if overview.final == "held":
        return f"not at work; the final was held: `{finalize}` shows it"
    return "no team" if all(agent.state == "client" for agent in overview.agents) else "not at work"


def _money(overview: Overview) -> str:
    spent = overview.spent
    parts = [f"spent ${spent.dollars:,.2f}, {spent.tokens:,} tokens, {spent.hours:.2f} agent-hours"]
    if spent.dollars_per_hour is not None:
        parts.append(f"${spent.dollars_per_hour:,.2f} an agent-hour")
    if overview.forecast_dollars is not None and overview.is_at_work:
        parts.append(f"forecast ${overview.forecast_dollars:,.2f} at the end")
    if spent.hours_left is not None:
        lasts = f"lasts for {duration(HOUR * spent.hours_left)} of an agent's work" if spent.hours_left else "is spent"
        parts.append(f"the budget {lasts}")
    return "; ".join(parts)


def _agents(agents: tuple[AgentOverview, ...]) -> Table:
    table = Table(title="Agents", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for column in ("agent", "state", "$", "$/h", "evals left"):
        table.add_column(column, justify="left" if column in ("agent", "state") else "right", no_wrap=True)
    table.add_column("doing", ratio=1, overflow="fold")
    for agent in agents:
        evaluations = f"{agent.evaluations_left} ({agent.evaluations_today_left} today)"
        numbers = (f"{agent.spent.dollars:.2f}", _rate(agent.spent), evaluations)
        last = "last: " if agent.state == "resting" and agent.doing else ""
        doing = last + clean(shorten(agent.doing, 120))
        doing += "" if agent.seconds_ago is None else f" ({duration(agent.seconds_ago)} ago)"
        doing += f"; restarts: {agent.restarts}" if agent.restarts else ""
        table.add_row(agent.name, agent.state, *numbers, Text(doing))
    return table


def _rate(spent: Spent) -> str:
    return "" if spent.dollars_per_hour is None else f"{spent.dollars_per_hour:.2f}"


def _queue(queue: tuple[QueuedRun, ...]) -> Table:
    table = Table(title="Runs", title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for column in ("run", "agent", "kind"):
        table.add_column(column, no_wrap=True)  # what is copied is never cut
    for column in ("state", "method"):
        table.add_column(column, overflow="fold")
    for run in queue:
        label = Text(clean(shorten(run.method, 50)))
        table.add_row(run.run_id, run.agent, run.kind, _when(run), label)
    return table


def _when(run: QueuedRun) -> str:
    if run.status == "queued":
        wait = "" if run.expected_wait_seconds is None else f", starts in about {duration(run.expected_wait_seconds)}"
        return f"{run.ahead} ahead{wait}"
    left = "" if run.seconds_left is None else f", {duration(run.seconds_left)} left"
    return f"{100 * run.progress:.0f} %{left}"
