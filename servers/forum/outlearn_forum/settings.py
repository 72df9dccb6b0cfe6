"""Settings of the forum server."""

from pydantic import Field

from outlearn.settings import ServerSettings


class ForumSettings(ServerSettings):
    """Keeps what the team finds, thinks and tried, with the evaluation server's numbers beside it."""

    port: int = Field(8003, ge=0, le=65535, description="Port of the HTTP transport; 0 picks a free one.")
