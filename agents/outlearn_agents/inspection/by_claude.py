"""A pass by Claude over what the rules saw: the same verdicts, resting on cited lines, within a budget."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anthropic
import anyio
from anthropic.types import Message
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from outlearn.errors import BudgetError, ConfigError
from outlearn.hints import problems
from outlearn_agents.claude.model import TRY_AGAIN, asked_pause
from outlearn_agents.claude.stream import NOT_SENT
from outlearn_agents.directions import read_prompt
from outlearn_agents.inspection.by_rules import AgentInspection, Evidence, Verdict, judged
from outlearn_agents.inspection.evidence import EVALUATED, MAX_LINE, Dossier, Line, params_lines, source_lines
from outlearn_agents.report.families import Submitted
from outlearn_agents.spending.ledger import Cost, Ledger
from outlearn_agents.spending.prices import DEFAULT_MODEL, HOW_TO_PRICE, find_price

MAX_CHARACTERS = 120_000
CODE_CHARACTERS = 90_000
"""Most for methods: what was said is heard, however much code there is."""
ANSWER_TOKENS = 8_000
"""Thoughts included, which newer models cannot do without."""
TRIES = 5
MAX_PAUSE_SECONDS = 60.0
RULE = "Claude's reading"
INSPECTOR = "inspector"
"""In the ledger."""
NAMED = 5


class Report(BaseModel):
    """What Claude reports."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Verdict
    lines: tuple[int, ...] = Field((), description="Numbers of the lines that the verdict rests on.")
    reason: str = Field(max_length=2000)


class ClaudeInspector:
    """Asks Claude about one agent after the other.

    Args:
        client: an SDK client.
        ledger: has the budget, and keeps what was spent.
        model: any model name that the endpoint knows.
        price: as the option `price` of the claude researcher.
        retry_seconds: first pause after an error that may pass; each one after it is twice as long.

    Raises:
        ConfigError: the model's price is not known.
    """

    def __init__(
        self,
        client: anthropic.AsyncAnthropic,
        ledger: Ledger,
        model: str = DEFAULT_MODEL,
        price: str = "",
        retry_seconds: float = 2.0,
    ) -> None:
        found = find_price(model, price)
        if found is None:
            raise ConfigError(
                f"no price of model {model!r} is known; {HOW_TO_PRICE.replace('--option price=', '--price ')}"
            )
        self._client, self._ledger, self._model, self._price = client, ledger, model, found
        self._retry_seconds = retry_seconds

    async def inspect(self, dossier: Dossier, so_far: AgentInspection) -> AgentInspection:
        """Add Claude's reading to the rules'. The stricter verdict holds; cited lines must exist.

        Where the budget is used up or the API gives no usable report, the rules' verdict stays, and the reason says so.
        """
        lines, unread = _lines(dossier, so_far)
        if unread.scored:  # one that was padded out of the reading must not pass for read
            where, text = ", ".join(unread.scored), "too long for Claude to read"
            line = Evidence(rule=RULE, verdict="NEEDS REVIEW", where=where, text=text, by="claude")
            so_far = judged(dossier.agent, [*so_far.evidence, line])
        try:
            report = await self._ask(f"Agent {dossier.agent}.\n\n{_numbered(lines)}")
        except (BudgetError, anthropic.APIError, ValidationError) as error:
            why = problems(error) if isinstance(error, ValidationError) else error
            reason = f"Claude was not asked, or gave no usable report: {why}"[:500]
            return so_far.model_copy(update={"reason": reason, "rules_only": True})
        cited = [lines[number - 1] for number in report.lines if 0 < number <= len(lines)]
        evidence = [
            Evidence(rule=RULE, verdict=report.verdict, where=line.where, text=line.text, by="claude") for line in cited
        ]
        if report.verdict != "PASS" and not evidence:  # a verdict that rests on nothing asks for a person
            evidence = [Evidence(rule=RULE, verdict="NEEDS REVIEW", where="", text="no line was cited", by="claude")]
        return judged(
            dossier.agent,
            [*so_far.evidence, *evidence] if report.verdict != "PASS" else [*so_far.evidence],
            f"{report.reason} {unread}".strip(),
        )

    async def _ask(self, text: str) -> Report:
        system = read_prompt("inspect")
        worst = Cost(self._price.worst(len((system + text).encode()), ANSWER_TOKENS))
        tool: Any = {
            "name": "report",
            "description": "Report your verdict.",
            "input_schema": Report.model_json_schema(),
        }
        asked = {
            "model": self._model,
            "max_tokens": ANSWER_TOKENS,
            "system": system,
            "tools": [tool],  # which the prompt asks for: models from Opus 5.5 on refuse a forced `tool_choice`
            "messages": [{"role": "user", "content": text}],
        }
        message = await self._send(asked, worst)
        given = next((block.input for block in message.content if block.type == "tool_use"), {})
        return Report.model_validate(given)

    async def _send(self, asked: dict[str, Any], worst: Cost) -> Message:
        """The answer to a call; what may pass is tried again, and every try is paid for."""
        for attempt in range(TRIES):
            try:
                return await self._send_once(asked, worst)
            except anthropic.APIError as error:
                if attempt == TRIES - 1 or not _may_pass(error):
                    raise
                wish = asked_pause(error) if isinstance(error, anthropic.APIStatusError) else 0.0
                pause = self._retry_seconds * 2**attempt * random.uniform(0.5, 1.0)
                await anyio.sleep(min(max(wish, pause), MAX_PAUSE_SECONDS))
        raise AssertionError("the last try returns or raises")

    async def _send_once(self, asked: dict[str, Any], worst: Cost) -> Message:
        call = self._ledger.reserve(INSPECTOR, worst, model=self._model)
        try:
            message: Message = await self._client.messages.create(**asked)
        except anthropic.APIStatusError:  # refused, which costs nothing
            self._ledger.cancel(call)
            raise
        except BaseException as error:
            if isinstance(error.__cause__, NOT_SENT):
                self._ledger.cancel(call)
            else:  # nobody knows how far it came
                self._ledger.settle(call, worst)
            raise
        self._ledger.settle(call, Cost(self._price.cost(message.usage.to_dict())))
        return message


def _may_pass(error: anthropic.APIError) -> bool:
    """Whether the same call may be answered later: overloads and broken connections, not what is refused."""
    if isinstance(error, anthropic.APIStatusError):
        return error.status_code in TRY_AGAIN or error.status_code >= 500
    return isinstance(error, anthropic.APIConnectionError)


@dataclass(frozen=True)
class Unread:
    """What Claude does not get to see."""

    methods: Sequence[str] = ()
    scored: Sequence[str] = ()
    """Those among them that were evaluated."""
    said: int = 0
    """Lines, the oldest ones."""

    def __str__(self) -> str:
        parts = [f"{len(self.methods)} methods ({', '.join(self.methods[:NAMED])})"] if self.methods else []
        parts += [f"the {self.said} oldest lines of what was said"] if self.said else []
        return f"Left out for length: {' and '.join(parts)}." if parts else ""


def _lines(dossier: Dossier, so_far: AgentInspection) -> tuple[list[Line], Unread]:
    """What Claude gets to see: the rules' evidence, the code, and the newest of what was said, as far as it fits; and
    what it does not.

    Methods that count most come first, short ones before long ones, so that padding pushes out only itself.
    """
    first = [Line(one.where, f"[rule: {one.rule}] {one.text}") for one in so_far.evidence]
    code, unread, room = list[Line](), list[Submitted](), CODE_CHARACTERS
    shown = set[str]()
    for one in sorted(dossier.submissions(), key=lambda run: (-dossier.rank(run), len(run.source))):
        lines = _pieces([*(() if one.source in shown else source_lines(one)), *params_lines(one)])
        if (size := _characters(lines)) > room:
            unread.append(one)
            continue
        shown.add(one.source)
        code, room = [*code, *lines], room - size
    room, newest = MAX_CHARACTERS - _characters([*first, *code]), list[Line]()
    for line in reversed(dossier.said):
        if (room := room - _characters([line])) < 0:
            break
        newest.append(line)
    left_out = Unread(
        methods=[_name(one) for one in unread],
        scored=[_name(one) for one in unread if dossier.rank(one) >= EVALUATED],
        said=len(dossier.said) - len(newest),
    )
    told = [Line("", f"[{left_out}]")] if str(left_out) else []
    return [*first, *told, *code, *_pieces(newest[::-1])], left_out


def _pieces(lines: Sequence[Line]) -> list[Line]:
    return [piece for line in lines for piece in line.pieces()]


def _characters(lines: Sequence[Line]) -> int:
    return sum(len(line.text) + len(line.where) * (1 + len(line.text) // MAX_LINE) for line in lines)


def _name(run: Submitted) -> str:
    return f"{run.method}@{run.run_id}"


def _numbered(lines: Sequence[Line]) -> str:
    """The lines as JSON strings, so that none of them can pass for another or for the frame."""
    return "\n".join(f"{number} {json.dumps([line.where, line.text])}" for number, line in enumerate(lines, 1))
