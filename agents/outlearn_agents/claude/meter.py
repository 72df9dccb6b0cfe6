"""What an agent's model calls cost: reserved in the team's ledger at worst, settled by what the API reports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outlearn.errors import ConfigError
from outlearn_agents.claude.options import ClaudeOptions
from outlearn_agents.spending.ledger import Cost, Ledger, Limits, lower
from outlearn_agents.spending.prices import HOW_TO_PRICE, billed, find_price

SAFE_TOKENS = 3_000_000
WARN_AT = 0.8


@dataclass(frozen=True)
class Size:
    """What a call takes at most, in tokens."""

    input: int
    output: int

    def twice(self) -> "Size":
        """The same with a compaction before it."""
        return Size(2 * self.input, 2 * self.output)


@dataclass(frozen=True)
class Scarce:
    """A budget that is nearly spent. `key` names it and its limit."""

    key: str
    text: str


class Meter:
    """One agent's side of the ledger.

    Raises:
        ConfigError: dollars are limited, and the model's price is not known.
    """

    def __init__(self, ledger: Ledger, agent: str, options: ClaudeOptions) -> None:
        self._ledger = ledger
        self._agent = agent
        self._model = options.model
        self._price = find_price(options.model, options.price)
        self._own = _own_limits(options, ledger)
        self._check_price()
        ledger.write_off(agent)

    @property
    def knows_price(self) -> bool:
        """Whether dollars are counted."""
        return self._price is not None

    def reserve(self, size: Size, last_turn: Size | None, *, may_wait: bool) -> int:
        """Set aside what a call may cost, and keep `last_turn` free. Raises BudgetError, ConfigError.

        With `may_wait`, SetAsideError says that the agent waits, and has to ask again.
        """
        self._check_price()
        kept, worst = self._worst(last_turn) if last_turn else None, self._worst(size)
        return self._ledger.reserve(
            self._agent, worst, last_turn=kept, own=self._own, model=self._model, may_wait=may_wait
        )

    def settle(self, call: int, usage: Mapping[str, Any]) -> None:
        """The call is over and took this."""
        self._ledger.settle(call, self._cost(usage))

    def settle_broken(self, call: int, usage: Mapping[str, Any] | None, size: Size) -> None:
        """The call broke: its answer counts as having the greatest length, and all of it where nothing is known."""
        known = self._cost({**usage, "output_tokens": size.output}) if usage else self._worst(size)
        self._ledger.settle(call, known)

    def cancel(self, call: int) -> None:
        """The call was refused and costs nothing."""
        self._ledger.cancel(call)

    def leave(self) -> None:
        """There is no last turn to come."""
        self._ledger.leave(self._agent)

    def tokens_left(self) -> int | None:
        """Tokens of the agent's own budget that are left; None: no limit."""
        mine = self._ledger.statement(self._agent, self._own)
        return None if mine.limits.tokens is None else max(0, mine.limits.tokens - mine.tokens)

    def scarce(self) -> Iterator[Scarce]:
        """Budgets of the agent's and the team's that are nearly spent."""
        mine, all_ = self._ledger.statement(self._agent, self._own), self._ledger.statement()
        for whose, one in (("Your", mine), ("The team's", all_)):
            for name, share in one.shares().items():
                if share >= WARN_AT:
                    limit, spent = getattr(one.limits, name), getattr(one, name)
                    text = f"{whose} budget is {share:.0%} spent: {_number(spent)} of {_number(limit)} {name}."
                    yield Scarce(f"{whose} {name} {limit:g}", text)

    def _cost(self, usage: Mapping[str, Any]) -> Cost:
        names = ("input_tokens", "cache_creation_input_tokens", "output_tokens")
        tokens = sum(int(part.get(name) or 0) for part in billed(usage) for name in names)
        return Cost(self._price.cost(usage) if self._price else 0, tokens)

    def _worst(self, size: Size) -> Cost:
        nanodollars = self._price.worst(size.input, size.output) if self._price else 0
        return Cost(nanodollars, size.input + size.output)

    def _check_price(self) -> None:
        budget = self._ledger.budget()
        limited = any(one.dollars is not None for one in (budget.agent, budget.team, self._own))
        if self._price is None and limited:
            raise ConfigError(f"dollars are limited, and no price of model {self._model!r} is known; {HOW_TO_PRICE}")


def _number(value: float) -> str:
    """Tokens in full, dollars and hours in six digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"


def _own_limits(options: ClaudeOptions, ledger: Ledger) -> Limits:
    given = Limits(dollars=options.max_dollars, tokens=options.max_tokens)
    budget = ledger.budget()
    whole = lower(lower(budget.agent, budget.team), given)
    is_limited = whole.dollars is not None or whole.tokens is not None
    return given if is_limited else Limits(tokens=SAFE_TOKENS)
