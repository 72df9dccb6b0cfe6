"""Options of the Claude researcher, given as `--option NAME=VALUE`."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import ConfigError


class ClaudeOptions(BaseModel):
    """What may differ from one agent to the next. The endpoint and key come from the environment (ANTHROPIC_...)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("claude-opus-5-5", description="Any model name that the endpoint knows.")
    max_turns: int = Field(300, ge=1, description="Model calls in all, earlier sessions included.")
    max_tokens: int = Field(3_000_000, ge=1, description="Tokens in all: output, and input that no cache held.")
    answer_tokens: int = Field(16_000, ge=256, le=21_000, description="Longest answer of one model call.")
    finish_seconds: float = Field(90, ge=0, description="When this little time is left, the agent is told to finish.")
    retry_seconds: float = Field(5, gt=0, description="First pause when the API is overloaded; it doubles.")

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> "ClaudeOptions":
        """Options from strings. Raises ConfigError."""
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            known = ", ".join(cls.model_fields)
            raise ConfigError(f"options of the claude researcher: {problems}. There are: {known}") from error
