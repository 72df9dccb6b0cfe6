"""Settings of the evaluation server."""

from pydantic import Field

from outlearn.settings import ServerSettings


class EvaluationSettings(ServerSettings):
    """Scores receipts against the vault, keeps budgets and the leaderboard."""

    port: int = Field(8002, ge=0, le=65535, description="Port of the HTTP transport; 0 picks a free one.")
    agent_evaluations: int = Field(30, ge=0, description="Evaluations of one agent in all.")
    daily_evaluations: int = Field(6, ge=0, description="Evaluations of one agent in a day (UTC).")
    team_evaluations: int = Field(200, ge=0, description="Evaluations of all agents together.")
    nominations: int = Field(2, ge=0, description="Runs that an agent may nominate for the final.")
