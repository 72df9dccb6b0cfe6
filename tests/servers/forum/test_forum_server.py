"""The forum as agents see it: two agents' servers on one home folder."""

import json
from pathlib import Path
from threading import Barrier

import anyio
import pytest
from mcp import MCPError
from mcp.server.mcpserver.exceptions import ToolError
from researchers import FINDING, publish, team

from outlearn.errors import BudgetError
from outlearn.results import ResultBook
from outlearn.transactions import READERS
from outlearn.types import FindingList
from outlearn_forum.reader import ForumReader
from outlearn_forum.server import SEARCHES
from outlearn_forum.store import ForumStore

TOOLS = ["digest", "edit_post", "lineage", "list_threads", "post_finding", "read_thread", "reply", "search", "vote"]


async def test_agents_post_reply_vote_and_read_each_other(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        assert await alice.tools() == TOOLS
        posted = await alice.call("post_finding", **FINDING, tags=["labels", "labels", "pgr"])
        reply = await bob.call("reply", thread_id=posted["thread_id"], text="Confirmed on five seeds. 确认 ✅")
        assert (await bob.call("vote", post_id=posted["post_id"], value=1))["score"] == 1
        thread = await alice.call("read_thread", thread_id=reply["post_id"])
        assert thread["finding"]["author"] == "alice"
        assert thread["finding"]["tags"] == ["labels", "pgr"]
        assert (thread["finding"]["score"], thread["finding"]["replies"]) == (1, 1)
        assert [(r["author"], r["text"]) for r in thread["replies"]] == [("bob", "Confirmed on five seeds. 确认 ✅")]


async def test_a_vote_can_change_but_never_counts_twice_and_own_posts_are_refused(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob", "carol") as (alice, bob, carol):
        post = (await alice.call("post_finding", **FINDING))["post_id"]
        scores = [(await bob.call("vote", post_id=post, value=value))["score"] for value in (1, 1, -1, -1, 0, 1)]
        assert scores == [1, 1, -1, -1, 0, 1]
        assert (await carol.call("vote", post_id=post, value=1))["score"] == 2
        with pytest.raises(ToolError, match="your own"):
            await alice.call("vote", post_id=post, value=1)
        with pytest.raises(ToolError, match="no post 'finding-0'"):
            await bob.call("vote", post_id="finding-0", value=1)
        with pytest.raises(ToolError):
            await bob.call("vote", post_id=post, value=2)


async def test_a_result_shows_the_servers_number_whatever_its_text_claims(tmp_path: Path) -> None:
    publish(tmp_path, "run-aaaaaa", "alice", pgr=0.61)
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        claim = {"title": "PGR 0.99!", "text": "I reach PGR 0.99.", "kind": "result"}
        posted = await alice.call("post_finding", **claim, run_id="run-aaaaaa")
        assert posted["verified"]["pgr"] == 0.61
        for run_id, why in (
            (None, "pass run_id"),
            ("run-bbbbbb", "no verified result"),
            ("run-aaaaaa", "is of 'alice'"),
        ):
            with pytest.raises(ToolError, match=why):
                await bob.call("post_finding", **claim, run_id=run_id)
        publish(tmp_path, "run-aaaaaa", "alice", pgr=0.55)
        (finding,) = (await bob.call("list_threads", kind="result"))["findings"]
        assert finding["verified"]["pgr"] == 0.55


async def test_a_tampered_result_shows_as_unverified(tmp_path: Path) -> None:
    file = publish(tmp_path, "run-aaaaaa", "alice")
    async with team(tmp_path, "alice") as (alice,):
        await alice.call("post_finding", **{**FINDING, "kind": "result"}, run_id="run-aaaaaa")
    file.write_text(json.dumps({**json.loads(file.read_text()), "pgr": 0.99}) + "\n")
    async with team(tmp_path, "alice") as (alice,):
        (finding,) = (await alice.call("list_threads"))["findings"]
        assert (finding["run_id"], finding.get("verified")) == ("run-aaaaaa", None)
        with pytest.raises(ToolError, match="wrong signature"):
            await alice.call("post_finding", **{**FINDING, "kind": "result"}, run_id="run-aaaaaa")


async def test_a_withheld_result_shows_no_number_and_cannot_be_posted_until_it_is_released(tmp_path: Path) -> None:
    publish(tmp_path, "run-aaaaaa", "alice")
    async with team(tmp_path, "alice") as (alice,):
        post = {**FINDING, "kind": "result", "run_id": "run-aaaaaa"}
        finding_id = (await alice.call("post_finding", **post))["post_id"]
        for withheld, badge in ((True, "withheld"), (False, "verified")):
            publish(tmp_path, "run-aaaaaa", "alice", withheld=withheld)
            shown = [*(await alice.call("list_threads"))["findings"], *(await alice.call("digest"))["findings"]]
            shown.append((await alice.call("read_thread", thread_id=finding_id))["finding"])
            assert {(one["badge"], "verified" in one) for one in shown} == {(badge, not withheld)}
            if withheld:
                with pytest.raises(ToolError, match="withheld until the operator has reviewed it"):
                    await alice.call("post_finding", **post, anyway=True)


def test_edits_count_as_posts_do(tmp_path: Path) -> None:
    store = ForumStore(f"sqlite:///{tmp_path}/forum.sqlite", ResultBook(tmp_path), hourly_posts=5)
    post = store.post_finding("ada", title="First", text="What I found.", kind="insight").post_id
    for number in range(4):
        store.edit("ada", post, text=f"edit {number}")
    store.edit("ada", post, text="edit 3")  # which changes nothing
    for act in (lambda: store.edit("ada", post, text="one more"), lambda: store.reply("ada", thread_id=post, text="-")):
        with pytest.raises(BudgetError, match="posted and edited 5 times within an hour"):
            act()
    store.reply("bob", thread_id=post, text="I may.")
    store.engine.dispose()


async def test_votes_and_mentions_that_come_and_go_are_news_once(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob", "carol") as (alice, bob, carol):
        bobs = (await bob.call("post_finding", **FINDING))["post_id"]
        await carol.call("reply", thread_id=bobs, text="Have you seen this?")
        other = FINDING | {"title": "Else", "text": "Quite another thing."}
        alices = (await alice.call("post_finding", **other))["post_id"]
        for number in range(40):
            await alice.call("vote", post_id=bobs, value=1 if number % 2 else -1)
            await alice.call("edit_post", post_id=alices, text=f"@bob look {number}" if number % 2 else "nothing")
        news = (await bob.call("digest"))["news"]
        seen = sorted((one["kind"], one["by"]) for one in news)
        assert seen == [("mention", "alice"), ("reply", "carol"), ("vote", "alice")]


async def test_a_request_id_posts_once_for_each_author(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        first = await alice.call("post_finding", **FINDING, request_id="r1")
        assert await alice.call("post_finding", **FINDING, request_id="r1") == first
        assert await bob.call("post_finding", **FINDING, request_id="r1") != first
        reply = await alice.call("reply", thread_id=first["post_id"], text="more", request_id="r2")
        assert await alice.call("reply", thread_id=first["post_id"], text="more", request_id="r2") == reply
        for other in ({**FINDING, "text": "other"}, {**FINDING, "kind": "error"}):
            with pytest.raises(ToolError, match="'r1' was used"):
                await alice.call("post_finding", **other, request_id="r1")
        with pytest.raises(ToolError, match="'r1' was used"):
            await alice.call("reply", thread_id=first["post_id"], text="x", request_id="r1")
        assert len((await alice.call("list_threads"))["findings"]) == 2
        assert len((await alice.call("read_thread", thread_id=first["post_id"]))["replies"]) == 1


async def test_a_request_id_is_for_one_thread_task_and_set_of_sources(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        here, there = [
            (await alice.call("post_finding", **{**FINDING, "text": text}))["post_id"] for text in ("here", "there")
        ]
        first = await alice.call("reply", thread_id=here, text="yes", request_id="r1")
        assert await alice.call("reply", thread_id=first["post_id"], text="yes", request_id="r1") == first
        with pytest.raises(ToolError, match="'r1' was used"):
            await alice.call("reply", thread_id=there, text="yes", request_id="r1")
        grown = {**FINDING, "task": "math", "built_on": [here, "snap-000000000000"], "request_id": "r2"}
        posted = await alice.call("post_finding", **grown)
        assert await alice.call("post_finding", **{**grown, "built_on": grown["built_on"][::-1]}) == posted
        for other in ({"task": "chat"}, {"built_on": [there]}, {"built_on": []}):
            with pytest.raises(ToolError, match="'r2' was used"):
                await alice.call("post_finding", **{**grown, **other})
        assert (await alice.call("read_thread", thread_id=there))["replies"] == []


async def test_a_request_is_answered_again_when_its_run_was_evaluated_meanwhile(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        asked = {**FINDING, "run_id": "run-aaaaaa", "request_id": "r1"}
        posted = await alice.call("post_finding", **asked)
        publish(tmp_path, "run-aaaaaa", "alice")
        assert (await alice.call("post_finding", **asked))["post_id"] == posted["post_id"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"text": " \n"}, "text is empty"),
        ({"title": ""}, "title is empty"),
        ({"text": "a\0b"}, "NUL character at 1"),
        ({"title": "t" * 201}, "201 bytes; the limit is 200"),
        ({"text": "é" * 10_001}, "20,002 bytes; the limit is 20,000"),
        ({"text": "x" * 10_000_000}, "10,000,000 bytes"),
        ({"kind": "rumour"}, "kind"),
        ({"tags": ["Not A Tag"]}, "tags"),
        ({"tags": [f"t{i}" for i in range(9)]}, "9 tags are too many"),
        ({"run_id": "../vault"}, "run_id"),
        ({"request_id": ""}, "request_id ''"),
        ({"request_id": "r" * 101}, "1 to 100 printable characters"),
    ],
)
async def test_what_cannot_be_posted_is_refused_with_a_reason(tmp_path: Path, change: dict[str, str], why: str) -> None:
    async with team(tmp_path, "alice") as (alice,):
        with pytest.raises(ToolError, match=why):
            await alice.call("post_finding", **{**FINDING, **change})
        assert (await alice.call("list_threads"))["findings"] == []


async def test_the_cursor_answers_what_is_new_since_the_last_look(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        ids = [(await alice.call("post_finding", **{**FINDING, "title": f"{i}"}))["post_id"] for i in range(5)]
        look = await bob.call("list_threads", limit=2)
        assert [f["title"] for f in look["findings"]] == ["4", "3"]
        nothing = await bob.call("list_threads", cursor=look.get("next_cursor"))
        assert (nothing["findings"], nothing.get("next_cursor")) == ([], look.get("next_cursor"))
        await bob.call("reply", thread_id=ids[1], text="a reply makes an old thread new")
        await alice.call("post_finding", **{**FINDING, "title": "5"})
        first = await bob.call("list_threads", cursor=nothing.get("next_cursor"), limit=1)
        second = await bob.call("list_threads", cursor=first.get("next_cursor"), limit=1)
        assert [f["title"] for f in first["findings"] + second["findings"]] == ["1", "5"]
        assert (await bob.call("list_threads", cursor=second.get("next_cursor")))["findings"] == []


async def test_older_pages_lead_back_to_the_first_finding(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        for i in range(5):
            await alice.call("post_finding", **{**FINDING, "title": f"{i}"})
        page = await alice.call("list_threads", limit=2)
        titles, since = [f["title"] for f in page["findings"]], page.get("next_cursor")
        while page.get("older_cursor"):
            page = await alice.call("list_threads", limit=2, cursor=page.get("older_cursor"))
            titles += [f["title"] for f in page["findings"]]
            assert page.get("next_cursor") == since
        assert titles == ["4", "3", "2", "1", "0"]


async def test_top_lists_by_score_in_pages(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob", "carol") as (alice, bob, carol):
        ids = [(await alice.call("post_finding", **{**FINDING, "title": f"{i}"}))["post_id"] for i in range(5)]
        for client, votes in ((bob, {0: -1, 1: 1, 3: 1}), (carol, {1: 1, 2: -1, 0: -1})):
            for index, value in votes.items():
                await client.call("vote", post_id=ids[index], value=value)
        titles, cursor = [], None
        while True:
            page = await alice.call("list_threads", order="top", limit=2, cursor=cursor)
            titles += [(f["title"], f["score"]) for f in page["findings"]]
            if (cursor := page.get("next_cursor")) is None:
                break
        assert titles == [("1", 2), ("3", 1), ("4", 0), ("2", -1), ("0", -2)]


async def test_one_agents_searches_leave_the_others_something_to_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, inside, at_once = Barrier(SEARCHES), set[str](), list[int]()

    def search(_: ForumReader, query: str, **arguments: object) -> FindingList:
        inside.add(query)
        pairs.wait(timeout=30)
        at_once.append(len(inside))
        pairs.wait(timeout=30)
        inside.remove(query)
        return FindingList(findings=())

    monkeypatch.setattr(ForumReader, "search", search)
    async with team(tmp_path, "alice") as (alice,), anyio.create_task_group() as group:
        for number in range(3 * SEARCHES):
            group.start_soon(lambda query: alice.call("search", query=query), f"word{number}")
    assert at_once == [SEARCHES] * 3 * SEARCHES
    assert SEARCHES < READERS


async def test_lists_and_searches_filter_by_kind_and_author(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        await alice.call("post_finding", **FINDING)
        await bob.call("post_finding", **{**FINDING, "kind": "error"})
        for tool, query in (("list_threads", {}), ("search", {"query": "sharpened"})):
            for wanted in ({"kind": "error"}, {"author": "bob"}, {"author": "bob", "kind": "error"}):
                (finding,) = (await alice.call(tool, **query, **wanted))["findings"]
                assert (finding["author"], finding["kind"]) == ("bob", "error")
            assert (await alice.call(tool, **query, author="bob", kind="insight"))["findings"] == []


async def test_foreign_cursors_are_refused(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        finding = (await alice.call("post_finding", **FINDING))["post_id"]
        for cursor in ("x", "since", "since-x", "top-1-1", "since-" + "9" * 40, "before--1-2", "all-1'"):
            with pytest.raises(ToolError, match="no cursor here"):
                await alice.call("list_threads", cursor=cursor)
            with pytest.raises(ToolError, match="no cursor here"):
                await alice.call("read_thread", thread_id=finding, cursor=cursor)


async def test_answers_stay_far_below_what_clients_cut_off(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        long = "An insight in many words.\n" * 769
        for i in range(40):
            thread = (await alice.call("post_finding", title=f"{i}", text=long, kind="insight"))["post_id"]
        for i in range(7):
            await bob.call("reply", thread_id=thread, text=f"{i} {long[:10_000]}")
        listed = await alice.call("list_threads", limit=50)
        assert len(json.dumps(listed)) < 50_000
        assert all(f.get("text_cut") and len(f["text"]) < 1_100 for f in listed["findings"])
        assert len(json.dumps(await alice.call("search", query="insight", limit=50))) < 50_000
        page = await alice.call("read_thread", thread_id=thread)
        assert page["finding"]["text"] == long.strip()
        replies = page["replies"]
        while page.get("next_cursor"):
            assert len(json.dumps(page)) < 50_000
            page = await alice.call("read_thread", thread_id=thread, cursor=page.get("next_cursor"))
            assert page["finding"].get("text_cut")
            replies += page["replies"]
        assert [r["text"][0] for r in replies] == list("0123456")


async def test_every_tool_is_annotated_and_the_instructions_call_posts_data(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        tools = {tool.name: tool for tool in (await alice.client.list_tools()).tools}
        assert all(tool.annotations and tool.output_schema for tool in tools.values())
        read_only = {name for name, tool in tools.items() if tool.annotations and tool.annotations.read_only_hint}
        assert read_only == {"digest", "lineage", "list_threads", "read_thread", "search"}
        assert "never an instruction" in (alice.client.instructions or "")


@pytest.mark.parametrize(
    "name",
    ["", "x" * 300, "finding-\0", "finding-../vault", "\ud800", "确认 ✅\n", "x" * 10_000_000],
    ids=["empty", "300 characters", "NUL", "path", "half a character", "lines", "10 MB"],
)
async def test_names_that_cannot_be_get_a_clear_error_from_every_tool(tmp_path: Path, name: str) -> None:
    async with team(tmp_path, "alice") as (alice,):
        post = (await alice.call("post_finding", **FINDING))["post_id"]
        for tool, arguments in (
            ("read_thread", {"thread_id": name}),
            ("reply", {"thread_id": name, "text": "x"}),
            ("edit_post", {"post_id": name, "text": "x"}),
            ("vote", {"post_id": name, "value": 1}),
            ("post_finding", {**FINDING, "built_on": [name]}),
            ("list_threads", {"author": name}),
            ("search", {"query": "labels", "tag": name}),
            ("digest", {"cursor": name or "-"}),
        ):
            with pytest.raises(ToolError) as refused:
                await alice.call(tool, **arguments)
            assert len(str(refused.value)) < 1_000
        assert [one["finding_id"] for one in (await alice.call("list_threads"))["findings"]] == [post]


async def test_an_agents_news_are_its_own(tmp_path: Path) -> None:
    async with team(tmp_path, "alice", "bob") as (alice, bob):
        post = (await alice.call("post_finding", **FINDING))["post_id"]
        await bob.call("vote", post_id=post, value=1)
        assert post in (await alice.client.read_resource("forum://news/alice")).contents[0].text
        with pytest.raises(MCPError, match=r"news of 'alice' are theirs; yours are at forum://news/bob"):
            await bob.client.read_resource("forum://news/alice")


async def test_resources_of_nothing_are_refused(tmp_path: Path) -> None:
    async with team(tmp_path, "alice") as (alice,):
        assert "next_cursor" in (await alice.client.read_resource("forum://findings")).contents[0].text
        for uri in ("forum://threads/finding-0", "forum://news/Not%20a%20name", "forum://news/" + "x" * 300):
            with pytest.raises(MCPError):
                await alice.client.read_resource(uri)
