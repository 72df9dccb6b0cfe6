"""A tool server of somebody else's: tosses coins and remembers, for each agent, how often."""

import secrets
from collections import Counter
from typing import Annotated

from pydantic import BaseModel, Field

from outlearn import ADDS, ServerSettings, ToolServer, make_server, run


class CoinSettings(ServerSettings):
    """Tosses coins."""

    sides: int = Field(default=2, ge=2, description="Sides of the coin.")


class Toss(BaseModel):
    """`toss`: how the coins fell."""

    agent: str
    sides: list[int]
    tosses_so_far: int


def build(settings: CoinSettings) -> ToolServer:
    """The coin server."""
    server = make_server("coin", settings, instructions="Toss coins where a decision should not be yours.")
    tosses: Counter[str] = Counter()

    @server.tool(annotations=ADDS)
    def toss(count: Annotated[int, Field(ge=1, le=100, description="How many coins.")] = 1) -> Toss:
        """Toss coins."""
        agent = server.caller().agent
        tosses[agent] += count
        return Toss(
            agent=agent,
            sides=[secrets.randbelow(settings.sides) for _ in range(count)],
            tosses_so_far=tosses[agent],
        )

    return server


def main() -> None:
    """Run the coin server."""
    run(build, CoinSettings, "outlearn-coin")


if __name__ == "__main__":
    main()
