"""A summary without a team at work: the servers are asked in this process, on the run folder as it is."""

from pathlib import Path

import anyio

from outlearn import ServerSettings
from outlearn.identity import OPERATOR
from outlearn.logs import configure_logging
from outlearn.toolbox import open_toolbox
from outlearn_agents.plain_home import read_team
from outlearn_agents.report.page import write_summary
from outlearn_agents.report.summary import Summary, collect
from outlearn_agents.run_folder import RunFolder, TeamSpec
from outlearn_forum.server import build as build_forum
from outlearn_training.server import build as build_training
from outlearn_training.settings import TrainingSettings


class Idle:
    """An executor that leaves the queue alone."""

    def ensure(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Do nothing."""


async def collect_at_rest(folder: RunFolder, spec: TeamSpec) -> Summary:
    """What `collect` gives, when no server runs."""
    configure_logging(ServerSettings.model_construct(log_format="console", log_level="warning"))
    home = folder.root
    servers = {
        "training": build_training(TrainingSettings(home=home, agent=OPERATOR.agent, role=OPERATOR.role), Idle()),
        "forum": build_forum(ServerSettings(home=home, agent=OPERATOR.agent, role=OPERATOR.role)),
    }
    async with open_toolbox(servers) as tools:
        return await collect(tools, folder, spec)


def write_report_again(home: Path) -> None:
    """Bring the summary and the report of a home folder up to date, where a team worked in it or it has a report."""
    folder = RunFolder(home)
    if folder.spec_file.exists() or folder.report.exists():
        write_summary(folder, anyio.run(collect_at_rest, folder, read_team(folder)))
