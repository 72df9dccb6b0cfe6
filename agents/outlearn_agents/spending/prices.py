"""What models cost: a table with its date and source in `prices.json`, or a price of the user's own."""

import math
import re
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import ConfigError
from outlearn.hints import problems

DEFAULT_MODEL = "claude-opus-5-5"
NONE = "none"
"""Given as a price: dollars are not counted."""
DATED = re.compile(r"-\d{8}$")
HOW_TO_PRICE = (
    "give its price in dollars per million tokens, `--option price=INPUT,OUTPUT[,CACHE_READ,CACHE_WRITE]`, or a table "
    "of your own like prices.json, `--option price=FILE`"
)


class Rates(BaseModel):
    """Dollars per million tokens; numerically also micro-dollars a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float = Field(ge=0)
    cache_write: float = Field(ge=0)

    def cost(self, usage: Mapping[str, Any]) -> int:
        """Nano-dollars for an API `usage`, rounded up."""
        kinds = {
            "input_tokens": self.input,
            "output_tokens": self.output,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation_input_tokens": self.cache_write,
        }
        return sum(int(usage.get(name) or 0) * nano(rate) for name, rate in kinds.items())

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars for this many tokens, whatever the cache does."""
        return input_tokens * nano(max(self.input, self.cache_write)) + output_tokens * nano(self.output)


class LongRates(Rates):
    """Rates of a call with a long prompt."""

    above: int = Field(gt=0, description="Tokens of a prompt, from the cache or not, above which these hold.")


class Price(Rates):
    """What a model costs."""

    long: LongRates | None = None
    as_of: date | None = Field(None, description="Where it was read later than the table.")
    source: str = Field("", description="Where it was read elsewhere.")

    def cost(self, usage: Mapping[str, Any]) -> int:
        """Nano-dollars for an API `usage`, its compactions included."""
        return sum(self._rates(_prompt(part)).cost(part) for part in billed(usage))

    def worst(self, input_tokens: int, output_tokens: int) -> int:
        """Nano-dollars for this many tokens, whatever the cache does."""
        rates = self._rates(input_tokens)
        return max(Rates.worst(self, input_tokens, output_tokens), Rates.worst(rates, input_tokens, output_tokens))

    def _rates(self, prompt_tokens: int) -> Rates:
        if self.long and prompt_tokens > self.long.above:
            return self.long
        return Rates(**self.model_dump(include=set(Rates.model_fields)))


class PriceTable(BaseModel):
    """Prices of models by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    as_of: date
    source: str
    unit: str = ""
    models: dict[str, Price]

    def find(self, model: str) -> Price | None:
        """The price of a model, also where its name ends with a date; None where the table lacks it."""
        return self.models.get(model) or self.models.get(DATED.sub("", model))


def find_price(model: str, given: str = "") -> Price | None:
    """The price of a model: the `given` one, numbers or a table's file, else that of the table that ships.

    None where that table lacks the model, or `given` is "none".

    Raises:
        ConfigError: `given` is no price, or a table that lacks the model.
    """
    if given == NONE:
        return None
    if not given:
        return shipped_prices().find(model)
    if re.fullmatch(r"[\d.,]+", given):
        return _own(given)
    try:
        table = _parse(Path(given).read_text(encoding="utf-8"), given)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"no price table {given!r} ({error}); {HOW_TO_PRICE}") from error
    if (price := table.find(model)) is None:
        raise ConfigError(f"the price table {given!r} lacks {model!r}; it has {', '.join(table.models)}")
    return price


def shipped_prices() -> PriceTable:
    """The table that comes with outlearn."""
    text = (files("outlearn_agents.spending") / "prices.json").read_text(encoding="utf-8")
    return _parse(text, "prices.json")


def billed(usage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A call's `usage`, and those of its compactions, which its totals leave out."""
    return [usage, *(one for one in usage.get("iterations") or () if one.get("type") == "compaction")]


def nano(rate: float) -> int:
    """Nano-dollars a token, rounded up, for dollars per million tokens."""
    return math.ceil(round(1000 * rate, 6))


def _own(given: str) -> Price:
    """`IN,OUT[,CACHE_READ,CACHE_WRITE]`; what is not said is taken to be dear."""
    try:
        numbers = [float(one) for one in given.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 4):
        raise ConfigError(f"price {given!r} must be two or four numbers; {HOW_TO_PRICE}")
    read, write = numbers[2:] or (numbers[0], 1.25 * numbers[0])
    return Price(input=numbers[0], output=numbers[1], cache_read=read, cache_write=write)


def _parse(text: str, name: str) -> PriceTable:
    try:
        return PriceTable.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"{name!r} is no price table: {problems(error)}; {HOW_TO_PRICE}") from error


def _prompt(usage: Mapping[str, Any]) -> int:
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return sum(int(usage.get(name) or 0) for name in names)
