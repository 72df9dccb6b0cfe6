"""Options of the Claude researcher, given as `--option NAME=VALUE`."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import ConfigError
from outlearn.hints import problems
from outlearn_agents.spending.prices import DEFAULT_MODEL

MIN_THINKING = 1024


class ClaudeOptions(BaseModel):
    """What may differ from one agent to the next. The endpoint and key come from the environment (ANTHROPIC_...)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(DEFAULT_MODEL, description="Any model name that the endpoint knows.")
    max_dollars: float | None = Field(None, gt=0, description="Dollars of this agent in all, beside the team's budget.")
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens in all: output, and input that no cache held. 3,000,000 where no budget limits the agent.",
    )
    max_turns: int | None = Field(
        None, ge=1, description="Model calls in all, earlier sessions included, before the last one."
    )
    price: str = Field(
        "",
        description="Dollars per million tokens, IN,OUT[,CACHE_READ,CACHE_WRITE], or a table's file; none: tokens and "
        "hours alone are limited.",
    )
    answer_tokens: int = Field(16_000, ge=256, le=128_000, description="Longest answer of one model call.")
    finish_tokens: int = Field(6_000, ge=256, le=128_000, description="Longest answer of the last one.")
    thinking: Literal["auto", "adaptive", "off"] | int = Field(
        "auto",
        description="adaptive, off, or the tokens that the model may think for; auto: adaptive where the model can.",
    )
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="The model's own default."
    )
    context: Literal["auto", "off"] = Field(
        "auto", description="Whether the API clears old tool results and summarizes; auto: where it can."
    )
    clear_at: int = Field(100_000, ge=1, description="Input tokens at which old tool results are cleared.")
    compact_at: int = Field(150_000, ge=50_000, description="Input tokens at which the conversation is summarized.")
    finish_seconds: float = Field(90, ge=0, description="When this little time is left, the agent is told to finish.")
    retry_seconds: float = Field(5, gt=0, description="First pause when the API is overloaded; it doubles.")
    silence_seconds: float = Field(300, gt=0, description="A stream that says nothing for so long is broken.")

    @property
    def last_tokens(self) -> int:
        """Longest answer of the last call, which must have room for its thoughts."""
        thoughts = self.thinking + MIN_THINKING if isinstance(self.thinking, int) else 0
        return max(self.finish_tokens, thoughts)

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> "ClaudeOptions":
        """Options from strings. Raises ConfigError."""
        try:
            parsed = cls.model_validate(dict(options))
        except ValidationError as error:
            known = ", ".join(cls.model_fields)
            raise ConfigError(f"options of the claude researcher: {problems(error)}. There are: {known}") from error
        if isinstance(parsed.thinking, int) and not MIN_THINKING <= parsed.thinking < parsed.answer_tokens:
            raise ConfigError(
                f"thinking={parsed.thinking} must be at least {MIN_THINKING} and less than answer_tokens="
                f"{parsed.answer_tokens}"
            )
        return parsed
