"""Budgets of the Claude researcher: kept before the money is spent, with a warning and a last turn."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from claude_peer import POST, Api, Serve, calls
from managed_context import count_tokens
from messages_api import Answer, Body

from outlearn.errors import BudgetError, ConfigError
from outlearn.types import FindingList
from outlearn_agents.spending.ledger import NANO, Budget, Cost, Ledger, Limits
from outlearn_agents.spending.prices import find_price

COST = Cost(NANO * 155 // 100)
LOOK = ("training__describe_task", {})
SMALL = {"answer_tokens": "1000", "finish_tokens": "500"}


def busy(body: Body) -> Any:
    """A model that never has enough, and is told when to finish."""
    turn = sum(message["role"] == "assistant" for message in body["messages"])
    return calls(POST if "nearly over" in json.dumps(body["messages"][-1]) else LOOK, first=100 * turn)


def dollars(api: Api, model: str = "claude-opus-5-5") -> float:
    """The bill that this API would send."""
    price = find_price(model)
    assert price is not None
    return sum(price.cost(usage) for usage in api.usages) / NANO


@contextmanager
def budget(path: Path, agent: Limits | None = None, team: Limits | None = None) -> Iterator[Ledger]:
    with closing(Ledger(path)) as ledger:
        ledger.set_budget(Budget(agent=agent or Limits(), team=team or Limits()))
        yield ledger


@pytest.mark.parametrize("limits", [Limits(dollars=0.35), Limits(tokens=60_000)])
async def test_a_budget_that_is_over_leaves_one_turn_to_finish(
    open_session: Any, serve: Serve, tmp_path: Path, limits: Limits
) -> None:
    api = serve(model=busy)
    with budget(tmp_path / "spending.sqlite", agent=limits) as ledger:
        async with open_session("ada") as session:
            session = dataclasses.replace(session, spending=tmp_path / "spending.sqlite")
            await api.researcher(**SMALL).research(session)
            assert (await session.ask(FindingList, "forum", "list_threads")).findings
        paid = ledger.statement("ada")
    assert len(api.requests) > 3
    assert "nearly over" in api.told(-1)
    assert paid.dollars == pytest.approx(dollars(api))
    assert paid.dollars <= (limits.dollars or 99)
    assert paid.tokens <= (limits.tokens or 1e9)
    assert paid.reserved_dollars == 0


async def test_after_its_last_turn_an_agent_takes_no_other(open_session: Any, serve: Serve) -> None:
    api = serve(model=busy)
    async with open_session("ada") as session:
        await api.researcher(max_dollars="0.35", **SMALL).research(session)
        before = len(api.requests)
        await api.researcher(max_dollars="0.2", **SMALL).research(session)
    assert "nearly over" in api.told(-1)
    assert len(api.requests) == before


async def test_an_agent_without_turns_finishes_once_however_often_it_is_started(
    open_session: Any, serve: Serve
) -> None:
    api = serve(model=busy)
    async with open_session("ada") as session:
        for _ in range(3):
            await api.researcher(max_turns="2").research(session)
    assert len(api.requests) == 3
    assert "nearly over" in api.told(-1)


async def test_numbers_of_tokens_are_told_in_full(open_session: Any, serve: Serve, tmp_path: Path) -> None:
    api, spent = serve(model=busy), Cost(tokens=2_600_000)
    with budget(tmp_path / "spending.sqlite", team=Limits(tokens=3_000_000)) as ledger:
        ledger.settle(ledger.reserve("boole", spent), spent)
        async with open_session("ada") as session:
            session = dataclasses.replace(session, spending=tmp_path / "spending.sqlite")
            await api.researcher(max_turns="1").research(session)
    assert "The team's budget is 87% spent: 2,600,000 of 3,000,000 tokens." in api.told(0)


async def test_the_agent_is_told_once_when_a_budget_becomes_scarce(
    open_session: Any, serve: Serve, tmp_path: Path
) -> None:
    api = serve(model=busy)
    with budget(tmp_path / "spending.sqlite", team=Limits(dollars=2)) as ledger:
        ledger.settle(ledger.reserve("boole", COST), COST)
        async with open_session("ada") as session:
            session = dataclasses.replace(session, spending=tmp_path / "spending.sqlite")
            await api.researcher(**SMALL).research(session)
    told = [index for index in range(len(api.requests)) if "The team's budget is" in api.told(index)]
    assert len(told) == 1
    assert "of 2 dollars" in api.told(told[0])
    assert "tool_result" in api.told(told[0])


async def test_agents_share_the_teams_budget(open_session: Any, serve: Serve, tmp_path: Path) -> None:
    apis = {agent: serve(model=busy) for agent in ("ada", "boole")}
    with budget(tmp_path / "spending.sqlite", team=Limits(dollars=0.45)) as ledger:
        for agent, api in apis.items():
            async with open_session(agent) as session:
                session = dataclasses.replace(session, spending=tmp_path / "spending.sqlite")
                await api.researcher(**SMALL).research(session)
        assert ledger.statement().dollars == pytest.approx(sum(dollars(api) for api in apis.values()))
        assert ledger.statement().dollars <= 0.45
    assert len(apis["ada"].requests) > len(apis["boole"].requests)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outlearn_agents.claude.researcher.ROOM_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_an_agent_waits_for_what_others_have_set_aside_and_goes_on(
    open_session: Any, serve: Serve, tmp_path: Path
) -> None:
    api, waits = serve(calls(LOOK)), list[str]()
    with budget(tmp_path / "spending.sqlite", team=Limits(dollars=1)) as ledger:
        call = ledger.reserve("boole", Cost(NANO * 9 // 10))

        def see(why: str) -> None:
            waits.append(why)
            if len(waits) == 3:
                ledger.settle(call, Cost(NANO // 10))

        async with open_session("ada") as session:
            session = dataclasses.replace(session, spending=tmp_path / "spending.sqlite", on_wait=see)
            await api.researcher(max_turns="1", **SMALL).research(session)
            notes = (session.folder / "transcript.jsonl").read_text().count("waiting: ")
        assert ledger.statement("ada").reserved_dollars == 0
    assert "set aside for boole: the team's budget of $1.00 has $0.1000 left" in waits[0]
    assert (len(waits), len(api.counted), notes) == (3, 1, 1)
    assert len(api.usages) == 2


@pytest.mark.usefixtures("impatient")
async def test_agents_at_work_together_use_up_the_teams_budget_and_no_more(
    open_session: Any, serve: Serve, tmp_path: Path
) -> None:
    """They wait for each other; once both would, one leaves, and the other goes on until its call fits no more."""
    apis, said = {agent: serve(model=busy) for agent in ("ada", "boole")}, list[str]()
    most = 0.45

    async def work(agent: str) -> None:
        async with open_session(agent) as session:
            path = tmp_path / "spending.sqlite"
            await (
                apis[agent]
                .researcher(**SMALL)
                .research(dataclasses.replace(session, spending=path, on_status=said.append))
            )

    with budget(tmp_path / "spending.sqlite", team=Limits(dollars=most)) as ledger:
        async with anyio.create_task_group() as group:
            for agent in apis:
                group.start_soon(work, agent)
        spent = ledger.statement()
    assert spent.dollars == pytest.approx(sum(dollars(api) for api in apis.values()))
    assert spent.reserved_dollars == 0
    assert most - 0.27 < spent.dollars <= most, "what is left is too little for the next call"
    assert min(len(api.usages) for api in apis.values()) > 5
    assert any("set aside for" in words for words in said)


@pytest.mark.usefixtures("impatient")
async def test_an_agent_that_waits_leaves_when_it_is_asked_to(open_session: Any, serve: Serve, tmp_path: Path) -> None:
    """As by Ctrl-C, or when its hours are over."""
    api = serve()
    with budget(tmp_path / "spending.sqlite", team=Limits(dollars=1)) as ledger:
        ledger.reserve("boole", Cost(NANO * 9 // 10))
        async with open_session("ada") as session:
            spending = tmp_path / "spending.sqlite"
            see = dataclasses.replace(session, spending=spending, on_wait=lambda _: session.stop.ask())
            with pytest.raises(BudgetError, match="what is missing is set aside for boole"):
                await api.researcher(**SMALL).research(see)
        left = ledger.statement("ada")
        assert (left.calls, left.reserved_dollars) == (0, 0)
    assert api.usages == []


@pytest.mark.usefixtures("impatient")
async def test_an_agent_that_is_paused_while_it_waits_makes_no_call(
    open_session: Any, serve: Serve, tmp_path: Path
) -> None:
    api = serve()
    pauses: list[int] = []
    with budget(tmp_path / "spending.sqlite", team=Limits(dollars=1)) as ledger:
        call = ledger.reserve("boole", Cost(NANO * 9 // 10))

        async def pause() -> None:
            ledger.settle(call, Cost())
            await anyio.wait_all_tasks_blocked()
            pauses.append(len(api.usages))

        async with open_session("ada") as session:
            paths = {"spending": tmp_path / "spending.sqlite", "until_resumed": pause}
            await api.researcher(max_turns="1", **SMALL).research(dataclasses.replace(session, **paths))
    assert pauses == [0]
    assert api.usages


async def test_a_budget_too_small_for_a_call_makes_none(open_session: Any, serve: Serve) -> None:
    said: list[str] = []
    api = serve(model=busy)
    async with open_session("ada") as session:
        with pytest.raises(BudgetError, match=r"your budget of \$0.01 has \$0.0100 left"):
            await api.researcher(max_dollars="0.01").research(dataclasses.replace(session, on_status=said.append))
    assert api.requests == []
    assert "your budget of $0.01 has $0.0100 left, and the next model call" in said[-1]


async def test_where_bytes_say_too_much_the_api_counts(open_session: Any, serve: Serve) -> None:
    """A token has several bytes, so that the last part of a budget is only spent when it is counted exactly."""
    api = serve(model=busy)
    async with open_session("ada") as session:
        await api.researcher(max_tokens="60000", **SMALL).research(session)
    assert api.counted
    assert len(api.requests) > 1
    assert all(count_tokens(counted) < 60_000 for counted in api.counted)


async def test_the_api_counts_a_conversation_with_a_summary_too(open_session: Any, serve: Serve) -> None:
    summary = {"type": "compaction", "content": "<summary>vanilla reaches 0.2</summary>"}
    api = serve(Answer([summary, *calls(LOOK).content], "tool_use"), model=busy)
    async with open_session("ada") as session:
        await api.researcher(max_tokens="60000", **SMALL).research(session)
        assert "tokens are not counted" not in (session.folder / "transcript.jsonl").read_text()
    assert any("compaction" in json.dumps(counted) for counted in api.counted)


async def test_without_token_counts_it_goes_by_bytes(open_session: Any, serve: Serve) -> None:
    api = serve(model=busy)
    api.refuses = {"count_tokens"}
    async with open_session("ada") as session:
        with pytest.raises(BudgetError, match="your budget of 60,000 tokens"):
            await api.researcher(max_tokens="60000", **SMALL).research(session)
    assert api.counted
    assert api.requests == []


async def test_dollars_need_a_price(open_session: Any, serve: Serve) -> None:
    api = serve(model=busy)
    async with open_session("ada") as session:
        with pytest.raises(ConfigError, match=r"no price of model 'mine' is known; .*--option price="):
            await api.researcher(model="mine", max_dollars="5", price="none").research(session)
        assert api.requests == []
        await api.researcher(model="mine", max_dollars="5", price="4,20", max_turns="1").research(session)
    assert len(api.requests) == 2


def test_a_model_of_unknown_price_is_refused_unless_tokens_alone_are_to_be_counted(serve: Serve) -> None:
    api = serve()
    with pytest.raises(ConfigError, match=r"'mine'.*`--option price=INPUT,OUTPUT.*price=FILE`.*`--option price=none`"):
        api.researcher(model="mine")
    for known in ({"price": "none"}, {"price": "4,20"}, {"model": "claude-haiku-4-5-20251001"}):
        api.researcher(**{"model": "mine", **known})


async def test_without_a_price_tokens_are_counted_all_the_same(open_session: Any, serve: Serve) -> None:
    said: list[str] = []
    api = serve(model=busy)
    async with open_session("ada") as session:
        watched = dataclasses.replace(session, on_status=said.append)
        await api.researcher(model="mine", price="none", max_turns="1").research(watched)
        with closing(Ledger(session.folder / "spending.sqlite")) as ledger:
            assert ledger.statement("ada").tokens > 0
    assert "no price of 'mine' is known" in said[0]
