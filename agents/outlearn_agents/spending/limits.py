"""What may be spent, and what was: plain values, without the ledger that keeps them."""

import re
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

NANO = 1_000_000_000
LEAST_HOURS = 1 / 60
"""What was spent in less says nothing of the pace."""


class Limits(BaseModel):
    """Most that may be spent; None: no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dollars: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0, description="Output, and input that no cache held.")
    hours: float | None = Field(None, gt=0, description="Time at work; for a team, of all its agents together.")
    evaluations: int | None = Field(None, ge=0, description="Enforced by the evaluation server.")
    evaluations_a_day: int | None = Field(
        None, ge=0, description="Of an agent, in a day (UTC). Enforced by the evaluation server."
    )
    device_seconds: float | None = Field(None, gt=0, description="Enforced by the training server.")

    def __str__(self) -> str:
        given = self.model_dump(exclude_none=True)
        return ", ".join(f"{value:.12g} {_unit(name, value)}" for name, value in given.items()) or "no limits"


def _unit(name: str, value: float) -> str:
    """Such as `hours`; of one `hour`, `evaluation_a_day`."""
    return re.sub(r"s($|_)", r"\1", name, count=1) if value == 1 else name


class Budget(BaseModel):
    """Limits of each agent, and of all together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    agent: Limits = Limits()
    team: Limits = Limits()

    def server_options(self) -> dict[str, list[str]]:
        """Command-line options that make the tool servers enforce their part."""
        wanted: tuple[tuple[str, str, float | None], ...] = (
            ("evaluation", "--agent-evaluations", self.agent.evaluations),
            ("evaluation", "--daily-evaluations", self.agent.evaluations_a_day),
            ("evaluation", "--team-evaluations", self.team.evaluations),
            ("training", "--agent-device-seconds", self.agent.device_seconds),
            ("training", "--team-device-seconds", self.team.device_seconds),
        )
        options: dict[str, list[str]] = {}
        for server, option, value in wanted:
            if value is not None:
                options.setdefault(server, []).extend((option, str(value)))
        return options


@dataclass(frozen=True)
class Cost:
    """What a call costs, or may cost."""

    nanodollars: int = 0
    tokens: int = 0

    @property
    def dollars(self) -> float:
        """The same in dollars."""
        return self.nanodollars / NANO

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.nanodollars + other.nanodollars, self.tokens + other.tokens)


class Statement(BaseModel):
    """What an agent, or the team (`agent` is None), has spent so far."""

    model_config = ConfigDict(frozen=True)

    agent: str | None
    dollars: float
    tokens: int
    hours: float
    calls: int
    lost_calls: int = Field(description="Calls that a process died in; they count as what they might have cost.")
    reserved_dollars: float = Field(description="For calls under way and last turns; not in `dollars`.")
    reserved_tokens: int
    limits: Limits

    @property
    def dollars_per_hour(self) -> float | None:
        """Dollars per agent-hour; None in the first minute."""
        return self.dollars / self.hours if self.hours >= LEAST_HOURS else None

    def shares(self) -> dict[str, float]:
        """How much of each limit is spent, 1 being all, for dollars, tokens and hours."""
        given = {"dollars": self.limits.dollars, "tokens": self.limits.tokens, "hours": self.limits.hours}
        return {name: getattr(self, name) / limit for name, limit in given.items() if limit}

    def hours_left(self) -> float | None:
        """Agent-hours until the first limit is reached, at the pace so far; None where nothing is limited or known."""
        share = max(self.shares().values(), default=0.0)
        if share >= 1:
            return 0.0
        return self.hours * (1 / share - 1) if share > 0 and self.hours >= LEAST_HOURS else None


def lower(first: Limits, second: Limits) -> Limits:
    """The stricter of two, limit by limit."""
    pairs = {name: (getattr(first, name), getattr(second, name)) for name in Limits.model_fields}
    return Limits(**{name: min((one for one in both if one is not None), default=None) for name, both in pairs.items()})
