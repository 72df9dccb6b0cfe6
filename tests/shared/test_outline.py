"""The output schemas that servers publish: they name what is in an answer, and leave its values to the server."""

import pytest
from jsonschema.validators import validator_for
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, ValidationError

from outlearn import ServerSettings, ToolServer, make_server
from outlearn.outline import outline
from outlearn.testing import connect
from outlearn.types import BudgetView, Finding, FindingList, Leaderboard, RunView, Thread

BUDGET = {"agent_left": 1, "agent_today_left": 1, "team_left": 1, "nominations_left": 2}


class Coin(BaseModel):
    """A coin."""

    side: str
    value: int = 1


class Tossed(BaseModel):
    """`toss`."""

    coins: tuple[Coin, ...]
    best: Coin | None = None
    count: int


def server_with(answer: dict[str, object]) -> ToolServer:
    server = make_server("kit", ServerSettings(), instructions="For tests.")

    @server.tool()
    def toss() -> Tossed:
        """Toss."""
        content = [TextContent(type="text", text="")]
        return CallToolResult(content=content, structured_content=answer)  # type: ignore[return-value]

    return server


async def test_a_published_schema_names_each_model_and_describes_it_once() -> None:
    answer = {"coins": [{"side": "heads"}], "best": {"side": "heads"}, "count": 1}
    async with connect(server_with(answer)) as client:
        assert await client.call("toss") == answer
        (tool,) = (await client.client.list_tools()).tools
    assert tool.output_schema is not None
    named = {"type": "object", "title": "Coin", "required": ["side"]}
    assert tool.output_schema["properties"]["coins"]["items"] is True
    assert "Coin" in tool.output_schema["properties"]["coins"]["$comment"]
    assert tool.output_schema["properties"]["best"]["anyOf"][0] == named
    assert tool.output_schema["properties"]["count"]["type"] == "integer"
    assert tool.output_schema["$defs"]["Coin"]["properties"]["value"]["type"] == "integer"


@pytest.mark.parametrize("coin", [{"side": 1}, {}, "heads"])
async def test_a_server_checks_each_value_of_its_answer_before_it_leaves(coin: object) -> None:
    async with connect(server_with({"coins": [coin], "count": 1})) as client:
        with pytest.raises(ToolError, match="Error executing tool toss"):
            await client.call("toss")


@pytest.mark.parametrize("model", [Leaderboard, FindingList, Thread, Finding, Tossed])
def test_an_outline_is_a_schema_that_asks_for_no_more_than_the_whole_one(model: type[BaseModel]) -> None:
    whole = model.model_json_schema()
    lighter = outline(whole)
    validator_for(lighter).check_schema(lighter)
    assert lighter["required"] == whole["required"]
    assert lighter.keys() == whole.keys()
    assert lighter["properties"].keys() == whole["properties"].keys()
    assert lighter.get("$defs") == whole.get("$defs")


def test_what_is_said_of_a_field_stays_in_an_outline() -> None:
    usage = outline(RunView.model_json_schema())["properties"]["usage"]
    assert usage["type"] == "object"
    assert usage["default"]["mfu"] is None


def test_what_is_no_model_stays_as_it_is_in_an_outline() -> None:
    sides = {"enum": ["heads", "tails"], "type": "string"}
    schema = {"$defs": {"Side": sides}, "properties": {"side": {"$ref": "#/$defs/Side"}}, "type": "object"}
    assert outline(schema) == schema


def test_a_field_that_a_newer_server_adds_to_an_answer_is_left_out() -> None:
    view = BudgetView.model_validate({**BUDGET, "hours_left": 3})
    assert view.model_dump() == BUDGET
    with pytest.raises(ValidationError, match="frozen"):
        view.team_left = 7  # type: ignore[misc]
