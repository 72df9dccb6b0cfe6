"""Who worked in a home folder: a team, or MCP clients that used its tool servers without one."""

from datetime import UTC, datetime

from sqlalchemy import func, select

from outlearn.database import as_utc, open_database, reading
from outlearn.tasks import default_task
from outlearn_agents.run_folder import AgentSpec, RunFolder, TeamSpec
from outlearn_training.queue.tables import metadata, runs
from outlearn_training.settings import TrainingSettings


def read_team(folder: RunFolder) -> TeamSpec:
    """The team of a run folder. Of a home folder without one, those who submitted a run or have a workspace there,
    without researchers and directions.

    Raises:
        NotFoundError: it is neither, or has no task.
        IntegrityError: `team.json` is damaged.
    """
    if not folder.is_plain_home:
        return folder.read_spec()
    engine = open_database(TrainingSettings(home=folder.root).database("training"), metadata)
    with reading(engine) as connection:
        found = connection.execute(select(runs.c.agent, func.min(runs.c.submitted_at)).group_by(runs.c.agent))
        began = {agent: as_utc(at) for agent, at in found}
    engine.dispose()
    workspaces = {path.name for path in folder.root.glob("workspaces/[!.]*") if path.is_dir()}
    return TeamSpec(
        task=default_task(folder.root),
        agents=tuple(AgentSpec(name=name, researcher="", direction="") for name in sorted({*began, *workspaces})),
        created_at=min(began.values(), default=datetime.now(UTC)),
    )
