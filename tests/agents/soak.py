"""A soak: a team of Claude researchers against the local Messages API server, with kill -9 of agents and servers.

`python tests/agents/soak.py` runs three agents with real tiny training and kills twenty processes of the team: each
agent and server in turn, in a random order, and where it comes to that within some seconds in the middle of a tool call
that it makes or answers. Halfway it kills the team runner itself. Then it sets a budget that is nearly spent and lets
the team run into it. What the processes left behind is then compared: every tool call of the transcripts with its
effects in the servers' databases, and the Messages API server's bill with the budget. Writes `build/soak.json`.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlearn.locks import holder
from outlearn_agents.claude.transcript import Block
from outlearn_agents.run_folder import RunFolder
from outlearn_agents.spending.ledger import Budget, Ledger, Limits
from outlearn_agents.spending.prices import find_price
from outlearn_agents.team.overview import look_over
from outlearn_agents.team.processes import SERVERS

MODEL = "claude-opus-5-5"
OUTLEARN = [sys.executable, "-c", "from outlearn_agents.cli import main; main()"]
LIMIT_SECONDS = 600.0
CALL_SECONDS = 20.0
CALL_POLL_SECONDS = 0.002
NANO = 1e9
QUERIES = {
    "training__submit_run": ("training", "select agent, request_id from runs"),
    "forum__post_finding": ("forum", "select author, request_id from posts where thread_id = post_id"),
    "filesystem__save_snapshot": ("filesystem", "select agent, snapshot_id from snapshots"),
}
EVALUATED = "select run_id, against from evaluations where charged"


@dataclass(frozen=True)
class Plan:
    """What a soak does."""

    kills: int = 20
    agents: int = 3
    seed: int = 0
    pause: tuple[float, float] = (3.0, 10.0)
    runner_kills: int = 1
    faults: float = 0.05
    work_calls: int = 6
    """Model calls of each agent after the last kill."""


@dataclass
class Result:
    """What came out."""

    kills: int = 0
    kills_in_a_call: int = 0
    runner_kills: int = 0
    duplicates: int = 0
    lost: int = 0
    budget_overrun_calls: int = 0
    runs: int = 0
    posts: int = 0
    snapshots: int = 0
    model_calls: int = 0
    billed_dollars: float = 0.0
    ledger_dollars: float = 0.0
    budget_dollars: float = 0.0
    problems: list[str] = field(default_factory=list)
    killed: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def soak(plan: Plan, root: Path) -> Result:
    """Run a soak in an empty folder."""
    result, start = Result(), time.monotonic()
    folder, bill = RunFolder(root / "run"), root / "bill.jsonl"
    with _messages_api(root, bill, plan) as url:
        team = _Team(folder, url, plan)
        try:
            _kill_about(team, plan, result)
            _until(lambda: _has_worked(folder, bill, plan), "work after the last kill")
            result.budget_dollars = _limit(folder)
            _until(lambda: team.process.poll() is not None, "the end of the team at its budget")
            if team.process.returncode != 0:
                result.problems.append(f"the team ended with {team.process.returncode}")
        finally:
            team.end()
    _count_effects(folder, result)
    _count_spending(folder, bill, result)
    result.seconds = round(time.monotonic() - start, 1)
    return result


class _Team:
    """The team's runner."""

    def __init__(self, folder: RunFolder, url: str, plan: Plan) -> None:
        self.folder = folder
        self._env = {**os.environ, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "local", "OMP_NUM_THREADS": "1"}
        self._log = (folder.root.parent / "team.log").open("ab")
        options = ["--researcher", "claude", "--agents", str(plan.agents), "--workers", "1"]
        options += ["--option", f"model={MODEL}", "--option", "retry_seconds=0.2", "--dollars", "1000"]
        self.orphans: dict[str, int | None] = {}
        self.process = self._run("start", [*options, "--agent-budget", "evaluations=1000"])

    def resume(self) -> None:
        """Kill the runner and start it again, at once."""
        self.process.kill()
        self.process.wait()
        self.orphans = {name: holder(self.folder.held(name)) for name in self.names()}
        self.process = self._run("resume", [])

    def names(self) -> list[str]:
        """Agents and servers that can be killed."""
        agents = [f"agent-{agent.name}" for agent in self.folder.read_spec().agents]
        return [*agents, *SERVERS]

    def end(self) -> None:
        """End it, however it is."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._log.close()

    def _run(self, command: str, options: list[str]) -> subprocess.Popen[bytes]:
        argv = [*OUTLEARN, "team", command, str(self.folder.root), *options, "--minutes", "60", "--restarts", "50"]
        return subprocess.Popen(argv, env=self._env, stdout=self._log, stderr=self._log)


def _kill_about(team: _Team, plan: Plan, result: Result) -> None:
    """Kill processes of the team, each in its turn, and halfway the runner."""
    rng = random.Random(plan.seed)
    killed = Counter[str]()
    turn: list[str] = []
    _until(lambda: team.folder.spec_file.exists() and _alive(team) == sorted(team.names()), "the whole team")
    while result.kills < plan.kills:
        time.sleep(rng.uniform(*plan.pause))
        if result.kills == plan.kills // 2 and result.runner_kills < plan.runner_kills:
            team.resume()
            result.runner_kills += 1
            _until(lambda: _alive(team) == sorted(team.names()), "the whole team after the runner was killed")
        turn = turn or rng.sample(team.names(), len(team.names()))
        name = turn.pop()
        is_in_a_call = _await_call(team, name)
        if name in _alive(team) and (pid := holder(team.folder.held(name))):
            os.kill(pid, signal.SIGKILL)
            result.kills += 1
            result.kills_in_a_call += is_in_a_call
            killed[name] += 1
        else:
            turn.insert(0, name)
        assert team.process.poll() is None, "the runner died; see team.log"
    result.killed = dict(killed)


def _alive(team: _Team) -> list[str]:
    """Who lives, without what a killed runner left behind."""
    return sorted(name for name in team.names() if holder(team.folder.held(name)) not in (None, team.orphans.get(name)))


def _await_call(team: _Team, name: str) -> bool:
    """Wait until an agent has calls under way, or a server is called; returns whether that came in time."""
    deadline = time.monotonic() + CALL_SECONDS
    agents = (
        [name.removeprefix("agent-")] if name not in SERVERS else [one.name for one in team.folder.read_spec().agents]
    )
    while time.monotonic() < deadline:
        for agent in agents:
            called = _open_calls(team.folder.agent(agent) / "transcript.jsonl")
            if called and (name not in SERVERS or name in called):
                return True
        time.sleep(CALL_POLL_SECONDS)
    return False


def _open_calls(path: Path) -> set[str]:
    """The servers of the calls that a transcript ends with, which have no answer yet."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 200_000))
        line = file.read().rstrip(b"\n").rpartition(b"\n")[2]
    try:
        entry = json.loads(line)
    except ValueError:  # it is being written
        return set()
    blocks = entry["content"] if entry["type"] == "message" else ()
    return {block["name"].partition("__")[0] for block in blocks if block["type"] == "tool_use"}


def _has_worked(folder: RunFolder, bill: Path, plan: Plan) -> bool:
    """Whether everybody has made some calls since everything is alive again."""
    mark = folder.root.parent / "mark.json"
    calls = Counter(line["agent"] for line in _lines(bill))
    if not mark.exists():
        mark.write_text(json.dumps(calls))
    before = json.loads(mark.read_text())
    names = [agent.name for agent in folder.read_spec().agents]
    posts = len(_rows(folder, *QUERIES["forum__post_finding"]))
    return posts >= plan.agents and all(calls[name] >= before.get(name, 0) + plan.work_calls for name in names)


def _limit(folder: RunFolder) -> float:
    """Set a budget that has room for a few calls more; returns it."""
    with closing(Ledger(folder.spending)) as ledger:
        team = ledger.statement()
        limit = round(team.dollars + team.reserved_dollars + 0.5, 4)
        ledger.set_budget(Budget(agent=ledger.budget().agent, team=Limits(dollars=limit)))
    return limit


def _count_effects(folder: RunFolder, result: Result) -> None:
    """Compare the calls of the transcripts with what they did."""
    calls = {agent.name: _calls(folder, agent.name) for agent in folder.read_spec().agents}
    for tool, (service, query) in QUERIES.items():
        effects = Counter((agent, key) for agent, key in _rows(folder, service, query) if agent in calls)
        made = {
            (agent, id_): answer
            for agent, found in calls.items()
            for id_, (name, answer) in found.items()
            if name == tool
        }
        if service == "filesystem":  # snapshots do not keep the call's id: they are named in its answer
            named = {(agent, json.loads(answer)["snapshot_id"]) for (agent, _), answer in made.items() if _good(answer)}
            made = dict.fromkeys(named, "{}")
        _compare(tool, effects, made, result)
    charges = Counter(_rows(folder, "evaluation", EVALUATED))
    result.duplicates += sum(count - 1 for count in charges.values())
    _compare_scores(calls, {run_id for run_id, _ in charges}, result)
    unanswered = [id_ for found in calls.values() for id_, (_, answer) in found.items() if answer is None]
    result.lost += len(unanswered)
    result.problems += [f"{id_} has no answer" for id_ in unanswered]
    counts = {tool: len(_rows(folder, service, query)) for tool, (service, query) in QUERIES.items()}
    result.runs, result.posts, result.snapshots = counts.values()


def _compare_scores(calls: dict[str, Any], charged: set[str], result: Result) -> None:
    """Every score that an agent was told was charged for."""
    for found in calls.values():
        for name, answer in found.values():
            if name == "evaluation__evaluate" and answer and _good(answer) and answer.split()[0] not in charged:
                result.lost += 1
                result.problems.append(f"{name} was answered, and not charged: {answer}")


def _compare(tool: str, effects: Counter[Any], made: dict[Any, str | None], result: Result) -> None:
    for key, count in effects.items():
        if count > 1:
            result.duplicates += count - 1
            result.problems.append(f"{tool} {key} happened {count} times")
        if key not in made:
            result.lost += 1
            result.problems.append(f"{tool} {key} happened, and no transcript has it")
    for key, answer in made.items():
        if _good(answer) and key not in effects:
            result.lost += 1
            result.problems.append(f"{tool} {key} was answered, and did not happen")


def _calls(folder: RunFolder, agent: str) -> dict[str, tuple[str, str | None]]:
    """Each call's tool and answer by its id: None where there is none, and with `!` before it on an error."""
    found: dict[str, tuple[str, str | None]] = {}
    for block in _blocks(folder.agent(agent) / "transcript.jsonl"):
        if block["type"] == "tool_use":
            assert block["id"] not in found, f"{block['id']} stands twice in the transcript"
            found[block["id"]] = (block["name"], None)
        elif block["type"] == "tool_result":
            name, known = found[block["tool_use_id"]]
            assert known is None, f"{block['tool_use_id']} was answered twice"
            found[block["tool_use_id"]] = (name, f"{'!' if block.get('is_error') else ''}{block['content']}")
    return found


def _blocks(path: Path) -> Iterator[Block]:
    for entry in _lines(path):
        if entry["type"] == "message":
            yield from entry["content"]


def _good(answer: str | None) -> bool:
    return answer is not None and not answer.startswith("!")


def _count_spending(folder: RunFolder, bill: Path, result: Result) -> None:
    """Compare the true bill with the budget."""
    price = find_price(MODEL)
    assert price
    spent = 0.0
    for line in sorted(_lines(bill), key=lambda line: line["at"]):
        spent += price.cost(line["usage"]) / NANO
        result.model_calls += 1
        result.budget_overrun_calls += spent > result.budget_dollars
    result.billed_dollars = round(spent, 4)
    result.ledger_dollars = look_over(folder).spent.dollars


def _rows(folder: RunFolder, service: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder.root / f"{service}.sqlite")) as database:
        return database.execute(query).fetchall()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what}"
        time.sleep(0.2)


@contextmanager
def _messages_api(root: Path, bill: Path, plan: Plan) -> Iterator[str]:
    root.mkdir(parents=True, exist_ok=True)
    ready = root / "messages-api.json"
    script = str(Path(__file__).with_name("messages_api.py"))
    options = ["--ready-file", str(ready), "--log", str(bill), "--faults", str(plan.faults), "--pause", "0.01"]
    with (root / "messages-api.log").open("ab") as log:
        argv = [sys.executable, script, *options, "--seed", str(plan.seed)]
        with subprocess.Popen(argv, stdout=log, stderr=log) as process:
            try:
                _until(ready.exists, "the Messages API server")
                yield str(json.loads(ready.read_text())["url"])
            finally:
                process.kill()


def main() -> None:
    """Run a soak and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=Plan.kills)
    parser.add_argument("--seed", type=int, default=Plan.seed)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"), help="must not exist")
    parser.add_argument("--out", type=Path, default=Path("build/soak.json"))
    given = parser.parse_args()
    if given.folder.exists():
        parser.error(f"{given.folder} exists already; remove it, or give another --folder")
    result = soak(Plan(kills=given.kills, seed=given.seed), given.folder.resolve())
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(vars(result), indent=1) + "\n")
    print(given.out.read_text())
    spared = given.kills >= len(SERVERS) + Plan.agents and len(result.killed) < len(SERVERS) + Plan.agents
    if result.duplicates or result.lost or result.budget_overrun_calls > 1 or result.problems or spared:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
