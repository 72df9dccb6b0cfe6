"""MCP tools as Messages API tools: named SERVER__TOOL, called in parallel, answers cut to what a context can bear."""

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import anyio

from outlearn.errors import ServerUnreachableError
from outlearn.researcher import Stop, ToolAnswer, ToolInfo, Tools
from outlearn_agents.claude.transcript import Block

MAX_CHARACTERS = 40_000
PATIENCE_SECONDS = 120.0
LAST_PATIENCE_SECONDS = 15.0
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
UNSURE = ". The call may or may not have taken effect: look before you repeat it"


class ToolDesk:
    """Answers the model's tool calls. Calls that can carry a `request_id` carry the id of the model's call.

    A server that does not answer is given time to be started again, where the call can be repeated without harm.
    """

    def __init__(self, tools: Tools, infos: Sequence[ToolInfo], stop: Stop) -> None:
        self._tools = tools
        self._stop = stop
        self._infos = {f"{info.server}__{info.name}": info for info in infos}

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """The tools as the API wants them, in a fixed order, so that a prompt cache stays valid."""
        return [
            {"name": name, "description": info.description, "input_schema": _without_request_id(info.input_schema)}
            for name, info in sorted(self._infos.items())
        ]

    async def answer_all(self, calls: Sequence[Block]) -> list[Block]:
        """Results of the calls, in their order; the calls run at the same time."""
        results: list[Block] = [{} for _ in calls]

        async def answer(index: int) -> None:
            results[index] = result_block(calls[index], await self._call(calls[index]))

        async with anyio.create_task_group() as group:
            for index in range(len(calls)):
                group.start_soon(answer, index)
        return results

    async def answer_interrupted(self, calls: Sequence[Block], excuse: str) -> list[Block]:
        """Results of calls that may have been made already: those that are safe to repeat are, the others are not."""
        safe = [call for call in calls if self._is_repeatable(call)]
        results = {block["tool_use_id"]: block for block in await self.answer_all(safe)}
        return [results.get(call["id"]) or result_block(call, ToolAnswer(text=excuse, is_error=True)) for call in calls]

    def _is_repeatable(self, call: Block) -> bool:
        info = self._infos.get(call["name"])
        return info is None or info.is_repeatable

    async def _call(self, call: Block) -> ToolAnswer:
        info = self._infos.get(call["name"])
        if info is None:
            return ToolAnswer(text=f"no tool {call['name']!r}; there are: {', '.join(self._infos)}", is_error=True)
        arguments = dict(call["input"])
        if info.takes_request_id:
            arguments["request_id"] = call["id"][:80]
        return await (self._reach_until_stopped if info.read_only else self._reach)(info, arguments)

    async def _reach(self, info: ToolInfo, arguments: dict[str, Any]) -> ToolAnswer:
        deadline: float | None = None
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            try:
                return await self._tools.call(info.server, info.name, arguments)
            except ServerUnreachableError as error:
                if deadline is None:  # from the first failure on: before it, the agent may have been paused for long
                    patience = min(PATIENCE_SECONDS, self._stop.seconds_left + LAST_PATIENCE_SECONDS)
                    deadline = anyio.current_time() + patience
                if not info.is_repeatable or anyio.current_time() + pause > deadline:
                    doubt = "" if info.read_only else UNSURE
                    return ToolAnswer(text=f"{error}{doubt}", is_error=True)
            await anyio.sleep(pause)
        raise AssertionError("unreachable")

    async def _reach_until_stopped(self, info: ToolInfo, arguments: dict[str, Any]) -> ToolAnswer:
        """A call that may wait long and changes nothing is given up when somebody asks the agent to stop."""
        answer = ToolAnswer(text="given up: the session is ending", is_error=True)

        async def give_up(scope: anyio.CancelScope) -> None:
            await self._stop.wait_asked()
            scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(give_up, group.cancel_scope)
            answer = await self._reach(info, arguments)
            group.cancel_scope.cancel()
        return answer


def result_block(call: Block, answer: ToolAnswer) -> Block:
    """The answer to a call as a content block."""
    text = answer.text or "(empty)"
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]}\n[cut off: {len(text)} characters in all; ask for less, or for the next page]"
    block = {"type": "tool_result", "tool_use_id": call["id"], "content": text}
    return {**block, "is_error": True} if answer.is_error else block


def _without_request_id(schema: dict[str, Any]) -> dict[str, Any]:
    """The model needs not know of it: the desk fills it in."""
    made = copy.deepcopy(schema)
    made.get("properties", {}).pop("request_id", None)
    return made
