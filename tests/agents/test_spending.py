"""Spending: prices, the ledger that agents share, and budgets that hold whatever dies when."""

import json
import multiprocessing
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from outlearn.errors import BudgetError, ConfigError
from outlearn.researcher import Stop
from outlearn_agents.spending.ledger import NANO, Budget, Cost, Ledger, Limits, SetAsideError, lower
from outlearn_agents.spending.prices import Price, find_price, shipped_prices
from outlearn_agents.spending.shift import Shift

CENT = NANO // 100


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "spending.sqlite")


def cents(number: int, tokens: int = 0) -> Cost:
    return Cost(number * CENT, tokens)


def test_a_call_is_reserved_at_worst_and_settled_by_what_it_took(ledger: Ledger) -> None:
    ledger.set_budget(Budget(agent=Limits(dollars=1)))
    call = ledger.reserve("ada", cents(60, 600), last_turn=cents(30, 300))
    assert (ledger.statement("ada").dollars, ledger.statement("ada").reserved_dollars) == (0, 0.9)
    with pytest.raises(BudgetError, match=r"your budget of \$1.00 has \$0.4000 left, .* may cost \$0.5000"):
        ledger.reserve("ada", cents(20), last_turn=cents(30))
    ledger.settle(call, cents(10, 100))
    ledger.settle(call, cents(99, 999))
    spent = ledger.statement("ada")
    assert (spent.dollars, spent.tokens, spent.calls, spent.reserved_tokens) == (0.1, 100, 1, 300)
    assert spent.shares() == {"dollars": pytest.approx(0.1)}


def test_the_last_turn_always_finds_its_money(ledger: Ledger) -> None:
    ledger.set_budget(Budget(team=Limits(dollars=1)))
    for agent in ("ada", "boole"):
        ledger.settle(ledger.reserve(agent, cents(10), last_turn=cents(20)), cents(10))
    with pytest.raises(BudgetError, match="the team's budget"):
        ledger.reserve("ada", cents(50), last_turn=cents(20))
    ledger.settle(ledger.reserve("ada", cents(40), last_turn=cents(20)), cents(40))
    for agent in ("ada", "boole"):
        ledger.settle(ledger.reserve(agent, cents(20)), cents(20))
        ledger.leave(agent)
    assert ledger.statement().dollars == pytest.approx(1)
    assert ledger.statement().reserved_dollars == 0


def test_a_call_that_a_process_died_in_counts_as_its_worst(ledger: Ledger) -> None:
    ledger.set_budget(Budget(agent=Limits(tokens=1000)))
    ledger.reserve("ada", cents(0, 900), last_turn=cents(0, 50))
    ledger.write_off("ada")
    spent = ledger.statement("ada")
    assert (spent.tokens, spent.lost_calls, spent.reserved_tokens) == (900, 1, 50)
    with pytest.raises(BudgetError, match="your budget of 1,000 tokens has 100 left"):
        ledger.reserve("ada", cents(0, 100), last_turn=cents(0, 50))


def test_a_refused_call_costs_nothing(ledger: Ledger) -> None:
    call = ledger.reserve("ada", cents(50))
    ledger.cancel(call)
    assert ledger.statement().calls == 0
    assert ledger.statement().reserved_dollars == 0


def test_what_others_have_set_aside_is_told_from_what_is_spent(ledger: Ledger) -> None:
    ledger.set_budget(Budget(team=Limits(dollars=1)))
    call = ledger.reserve("boole", cents(60), last_turn=cents(20))
    with pytest.raises(SetAsideError, match=r"set aside for boole: the team's budget of \$1.00 has \$0.2000 left"):
        ledger.reserve("ada", cents(40), last_turn=cents(10), may_wait=True)
    with pytest.raises(BudgetError, match="may cost") as never:
        ledger.reserve("ada", cents(90), last_turn=cents(11), may_wait=True)
    assert not isinstance(never.value, SetAsideError), "it would not fit with nothing set aside"
    ledger.settle(call, cents(10))
    ledger.reserve("ada", cents(40), last_turn=cents(10), may_wait=True)
    ledger.settle(ledger.reserve("boole", cents(20)), cents(20))


def test_an_agents_own_budget_has_nobody_to_wait_for(ledger: Ledger) -> None:
    ledger.set_budget(Budget(agent=Limits(dollars=0.3), team=Limits(dollars=1)))
    ledger.reserve("boole", cents(30))
    with pytest.raises(BudgetError, match="your budget") as never:
        ledger.reserve("ada", cents(40), may_wait=True)
    assert not isinstance(never.value, SetAsideError)


def test_of_agents_that_would_wait_for_each_other_the_last_one_leaves(ledger: Ledger) -> None:
    ledger.set_budget(Budget(team=Limits(dollars=1)))
    for agent in ("ada", "boole"):
        ledger.settle(ledger.reserve(agent, cents(10), last_turn=cents(30)), cents(10))

    def next_call(agent: str) -> int:
        return ledger.reserve(agent, cents(30), last_turn=cents(30), may_wait=True)

    with pytest.raises(SetAsideError, match="for boole"):
        next_call("ada")
    with pytest.raises(BudgetError, match="the team's budget") as over:
        next_call("boole")
    assert not isinstance(over.value, SetAsideError)
    with pytest.raises(SetAsideError, match="for boole"):
        next_call("ada")
    ledger.settle(ledger.reserve("boole", cents(30)), cents(5))
    ledger.leave("boole")
    next_call("ada")


@pytest.mark.parametrize("ends", ["starts again", "leaves"])
def test_nobody_waits_for_an_agent_that_was_killed_while_it_waited(ledger: Ledger, ends: str) -> None:
    ledger.set_budget(Budget(team=Limits(dollars=1)))
    ledger.reserve("boole", cents(50), last_turn=cents(30))
    with pytest.raises(SetAsideError):
        ledger.reserve("ada", cents(40), may_wait=True)
    ledger.write_off("boole")
    ledger.write_off("ada")
    if ends == "starts again":
        with pytest.raises(SetAsideError, match="for boole"):
            ledger.reserve("ada", cents(40), may_wait=True)
    ledger.leave("boole")
    ledger.reserve("ada", cents(40), may_wait=True)


def test_limits_may_change_while_agents_work(ledger: Ledger, tmp_path: Path) -> None:
    ledger.set_budget(Budget(team=Limits(dollars=1, evaluations=3)))
    operator = Ledger(tmp_path / "spending.sqlite")
    operator.set_budget(Budget(agent=Limits(dollars=0.1, hours=8)))
    with pytest.raises(BudgetError, match="your budget"):
        ledger.reserve("ada", cents(20))
    assert ledger.budget() == Budget(agent=Limits(dollars=0.1, hours=8))
    operator.close()


def test_an_agents_own_limits_count_where_they_are_lower(ledger: Ledger) -> None:
    ledger.set_budget(Budget(agent=Limits(dollars=5, tokens=100)))
    own = Limits(dollars=1, tokens=10_000)
    with pytest.raises(BudgetError, match=r"\$1.00"):
        ledger.reserve("ada", cents(200), own=own)
    assert lower(own, Limits(dollars=5, tokens=100)) == Limits(dollars=1, tokens=100)
    assert ledger.statement("ada", own).limits == Limits(dollars=1, tokens=100)


async def test_an_agent_whose_hours_are_over_is_asked_to_stop(ledger: Ledger) -> None:
    ledger.set_budget(Budget(agent=Limits(hours=1e-9)))
    stop = Stop(60)
    async with anyio.create_task_group() as group:
        group.start_soon(Shift(ledger, "ada").keep, stop)
        with anyio.fail_after(20):
            await stop.wait_asked()
        group.cancel_scope.cancel()
    assert ledger.agents() == ["ada"]
    with pytest.raises(BudgetError, match="hours are over"):
        ledger.reserve("ada", cents(1))


async def test_hours_of_an_agent_are_those_without_its_pauses_also_where_its_process_dies(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("outlearn_agents.spending.ledger.time", SimpleNamespace(time=lambda: now))
    shift = Shift(ledger, "ada")
    now = 3600.0
    shift.rest(True)
    now = 9 * 3600.0
    assert ledger.statement("ada").hours == 1
    shift.rest(False)
    now = 10 * 3600.0
    with anyio.move_on_after(0):
        await shift.keep(Stop(60))
    assert ledger.statement("ada").hours == 2
    shift.rest(True)
    now = 20 * 3600.0
    Shift(ledger, "ada").rest(True)  # the process was killed in the pause, and so is this one
    now = 30 * 3600.0
    assert (ledger.statement("ada").hours, ledger.statement().hours) == (2, 2)


async def test_a_shift_counts_to_its_last_second(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("outlearn_agents.spending.ledger.time", SimpleNamespace(time=lambda: now))
    async with anyio.create_task_group() as group:
        group.start_soon(Shift(ledger, "ada").keep, Stop(60))
        await anyio.wait_all_tasks_blocked()
        now = 3.6
        group.cancel_scope.cancel()
    assert ledger.statement("ada").hours == pytest.approx(0.001)


def test_servers_are_told_of_their_part_of_the_budget() -> None:
    budget = Budget(agent=Limits(evaluations=30, dollars=5), team=Limits(device_seconds=3600, evaluations=100))
    assert budget.server_options() == {
        "evaluation": ["--agent-evaluations", "30", "--team-evaluations", "100"],
        "training": ["--team-device-seconds", "3600.0"],
    }
    assert str(budget.team) == "100 evaluations, 3600 device_seconds"
    assert Budget().server_options() == {}


def test_a_forecast_says_how_long_the_budget_lasts(ledger: Ledger) -> None:
    statement = ledger.statement().model_copy(
        update={"dollars": 2.0, "tokens": 10, "hours": 4.0, "limits": Limits(dollars=10, tokens=1000)}
    )
    assert statement.dollars_per_hour == 0.5
    assert statement.hours_left() == pytest.approx(16)
    assert ledger.statement().hours_left() is None


class Team(RuleBasedStateMachine):
    """Agents that call, die and start again in any order; what the API bills in truth, nobody but this class knows."""

    agents = st.sampled_from(["ada", "boole", "curie"])

    @initialize(team=st.integers(0, 300), agent=st.integers(0, 150))
    def begin(self, team: int, agent: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger(Path(self.folder.name) / "spending.sqlite")
        self.limits = (team, agent)
        self.ledger.set_budget(Budget(team=Limits(dollars=team / 100 + 1e-9), agent=Limits(dollars=agent / 100 + 1e-9)))
        self.bill = dict.fromkeys(("ada", "boole", "curie"), 0)
        self.open: dict[str, tuple[int, int]] = {}
        self.held = dict.fromkeys(self.bill, 0)
        self.waiting: set[str] = set()

    @rule(agent=agents, worst=st.integers(0, 40), last=st.integers(0, 40))
    def reserve(self, agent: str, worst: int, last: int) -> None:
        if agent in self.open:
            return
        try:
            call = self.ledger.reserve(agent, cents(worst), last_turn=cents(last))
        except BudgetError:
            return
        self.open[agent] = (call, worst)
        self.held[agent] = last
        self.waiting.discard(agent)

    @rule(agent=agents, worst=st.integers(0, 40), last=st.integers(0, 40))
    def reserve_or_wait(self, agent: str, worst: int, last: int) -> None:
        if agent in self.open:
            return
        self.waiting.discard(agent)
        try:
            call = self.ledger.reserve(agent, cents(worst), last_turn=cents(last), may_wait=True)
        except SetAsideError:
            self.waiting.add(agent)
        except BudgetError:
            return
        else:
            self.open[agent] = (call, worst)
            self.held[agent] = last

    @rule(agent=agents, share=st.floats(0, 1))
    def settle(self, agent: str, share: float) -> None:
        if agent in self.open:
            call, worst = self.open.pop(agent)
            cost = int(share * worst)
            self.bill[agent] += cost
            self.ledger.settle(call, cents(cost))

    @rule(agent=agents, share=st.floats(0, 1))
    def die_in_a_call_and_start_again(self, agent: str, share: float) -> None:
        if agent in self.open:
            self.bill[agent] += int(share * self.open.pop(agent)[1])
        self.ledger.write_off(agent)
        self.waiting.discard(agent)

    @rule(agent=agents)
    def refuse(self, agent: str) -> None:
        if agent in self.open:
            self.ledger.cancel(self.open.pop(agent)[0])

    @rule(agent=agents)
    def take_the_last_turn(self, agent: str) -> None:
        """What was held back is there, whatever happened."""
        if agent not in self.open and self.held[agent]:
            last, self.held[agent] = self.held[agent], 0
            self.ledger.settle(self.ledger.reserve(agent, cents(last)), cents(last))
            self.bill[agent] += last
            self.waiting.discard(agent)

    @rule(agent=agents)
    def go(self, agent: str) -> None:
        if agent not in self.open:
            self.ledger.leave(agent)
            self.held[agent] = 0
            self.waiting.discard(agent)

    @rule()
    def wait_until_somebody_goes_on(self) -> None:
        """Those who wait ask again, one after the other; where nothing changes, one of them is sent away soon."""
        if not self.open and self.waiting:
            for agent in sorted(self.held.keys() - self.waiting):
                self.ledger.leave(agent)
                self.held[agent] = 0
            most = len(self.waiting)
            for _ in range(most):
                for agent in sorted(self.waiting):
                    self.reserve_or_wait(agent, 30, 30)
            assert len(self.waiting) < most

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        if hasattr(self, "bill"):
            most = {agent: bill + self.open.get(agent, (0, 0))[1] for agent, bill in self.bill.items()}
            assert sum(most.values()) <= self.limits[0]
            assert max(most.values()) <= self.limits[1]

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()


Team.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
test_no_order_of_calls_and_deaths_exceeds_a_budget = Team.TestCase


def _spend(folder: Path, agent: str, seed: int) -> None:
    """An agent's process: calls until the budget is over. The API bills a call whether or not it lives on."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "spending.sqlite")
    ledger.write_off(agent)
    worst = cents(7, 700)
    while True:
        try:
            call = ledger.reserve(agent, worst, last_turn=cents(5, 500), may_wait=True)
        except SetAsideError:
            time.sleep(0.01)  # as an agent does, if for longer
            continue
        except BudgetError:
            break
        cost = rng.randrange(worst.nanodollars)
        with (folder / "bill").open("a") as file:
            file.write(f"{cost}\n")
        ledger.settle(call, Cost(cost, 1))
    with suppress(BudgetError):  # it died in its last turn before, or never had a turn
        call = ledger.reserve(agent, cents(5, 500))
        with (folder / "bill").open("a") as file:
            file.write(f"{5 * CENT}\n")
        ledger.settle(call, cents(5, 500))
    ledger.leave(agent)


def test_nine_processes_that_are_killed_at_random_keep_to_the_budget(tmp_path: Path) -> None:
    budget, kills = Limits(dollars=8), 8
    Ledger(tmp_path / "spending.sqlite").set_budget(Budget(team=budget))
    fork, rng = multiprocessing.get_context("fork"), random.Random(5)

    def start(index: int) -> BaseProcess:
        process = fork.Process(target=_spend, args=(tmp_path, f"agent{index}", rng.getrandbits(32)))
        process.start()
        return process

    team = {index: start(index) for index in range(9)}
    killed = 0
    while killed < kills and any(process.is_alive() for process in team.values()):
        index = rng.randrange(9)
        team[index].join(0.02 * rng.random())
        if team[index].is_alive():
            os.kill(team[index].pid or 0, signal.SIGKILL)
            team[index].join()
            killed += 1
            team[index] = start(index)
    for process in team.values():
        process.join()
        assert process.exitcode == 0
    bill = sum(int(line) for line in (tmp_path / "bill").read_text().splitlines())
    ledger = Ledger(tmp_path / "spending.sqlite")
    spent = ledger.statement()
    assert bill <= spent.dollars * NANO + 1 <= 8 * NANO + 1
    assert spent.dollars > 8 - 0.12 - 1e-6, "the budget is used up but for less than a call and a last turn"
    assert spent.reserved_dollars == 0
    ledger.close()


def test_prices_say_when_and_where_they_were_read() -> None:
    table = shipped_prices()
    assert table.as_of.year >= 2026
    assert table.source.startswith("https://")
    assert find_price("claude-opus-5-5") == Price(input=4, output=20, cache_read=0.2, cache_write=5)
    fable = find_price("claude-fable-5-2")
    assert fable is not None
    assert fable.as_of is not None
    assert fable.source.startswith("https://")
    assert find_price("claude-haiku-4-5-20251001") == find_price("claude-haiku-4-5")
    assert find_price("claude-nothing") is None
    assert find_price("claude-opus-5-5", "none") is None


def test_a_call_costs_what_its_tokens_cost_compactions_included() -> None:
    price = Price(input=4, output=20, cache_read=0.2, cache_write=5)
    usage = {"input_tokens": 1000, "output_tokens": 100, "cache_read_input_tokens": 10_000}
    assert price.cost(usage) == 1000 * 4000 + 100 * 20_000 + 10_000 * 200
    compaction = {"type": "compaction", "input_tokens": 500, "output_tokens": 50}
    both = {**usage, "iterations": [{"type": "message", **usage}, compaction], "cache_creation_input_tokens": None}
    assert price.cost(both) == price.cost(usage) + price.cost(compaction)


def test_long_prompts_may_have_rates_of_their_own() -> None:
    price = find_price("claude-haiku-5-5")
    assert price is not None
    assert price.cost({"input_tokens": 50_000, "cache_read_input_tokens": 50_000}) == 50_000 * 100 + 50_000 * 10
    assert price.cost({"input_tokens": 50_001, "cache_read_input_tokens": 50_000}) == 50_001 * 500 + 50_000 * 50


@given(
    tokens=st.fixed_dictionaries(
        {
            name: st.integers(0, 300_000)
            for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        }
    ),
    model=st.sampled_from(sorted(shipped_prices().models)),
)
def test_no_call_costs_more_than_its_worst_case(tokens: dict[str, int], model: str) -> None:
    price = find_price(model)
    assert price is not None
    prompt = sum(number for name, number in tokens.items() if name != "output_tokens")
    assert price.cost(tokens) <= price.worst(prompt, tokens["output_tokens"])
    assert price.worst(prompt, 5) <= price.worst(prompt + 1, 6)


def test_a_price_of_ones_own_is_numbers_or_a_table(tmp_path: Path) -> None:
    assert find_price("mine", "3,15") == Price(input=3, output=15, cache_read=3, cache_write=3.75)
    assert find_price("mine", "3,15,0.3,4") == Price(input=3, output=15, cache_read=0.3, cache_write=4)
    table = tmp_path / "prices.json"
    rates = {"input": 1, "output": 2, "cache_read": 0, "cache_write": 1}
    table.write_text(json.dumps({"as_of": "2026-11-01", "source": "our contract", "models": {"mine": rates}}))
    assert find_price("mine", str(table)) == Price(**rates)
    with pytest.raises(ConfigError, match="lacks 'other'"):
        find_price("other", str(table))


@pytest.mark.parametrize("given_", ["3", "1,2,3", "1..2,3", "missing.json"])
def test_a_price_that_is_none_says_how_to_give_one(given_: str) -> None:
    with pytest.raises(ConfigError, match="--option price=INPUT,OUTPUT"):
        find_price("mine", given_)
