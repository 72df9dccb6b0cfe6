"""`outlearn report`: the summary and the report of a run folder, made again."""

from outlearn_agents.terminal.options import Json, RunArgument
from outlearn_agents.terminal.working import show_summary


def report(run: RunArgument, as_json: Json = False) -> None:
    """Write summary.json and report.html of a run again.

    Also after a team that was killed, and of a home folder that MCP clients used without a team. Such as:

    outlearn report runs/mine --json
    """
    import anyio

    from outlearn_agents.plain_home import read_team
    from outlearn_agents.report.at_rest import collect_at_rest
    from outlearn_agents.report.page import write_summary
    from outlearn_agents.run_folder import RunFolder

    folder = RunFolder(run)
    summary = anyio.run(collect_at_rest, folder, read_team(folder))
    write_summary(folder, summary)
    show_summary(summary, folder, as_json)
