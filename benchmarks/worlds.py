"""What the servers of a benchmark have in their home folders, and what its callers ask of them."""

import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
from findings import fill, finding_id, queries, words
from load import Call
from sqlalchemy import insert

from outlearn.database import writing
from outlearn.identity import TokenFile
from outlearn.receipts import Receipt, ReceiptBook
from outlearn.results import ResultBook
from outlearn.tasks import load_card, load_secret
from outlearn_evaluation.ledger import Ledger, evaluations
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_forum.store import ForumStore
from outlearn_training.prepare import prepare

TASK = "math"
AGENTS = tuple(f"caller-{number}" for number in range(16))
PLENTY = [f"--{whose}-evaluations=1000000" for whose in ("agent", "daily", "team")]
METHOD = "".join(f"    weights[{line}] = confidence[{line}] ** 2  # of the teacher\n" for line in range(30))
BARE, KIT, LONG = "bare_echo", "kit_echo", "bare_8_kb"
FEW_BARE, FEW_KIT = "bare_echo_few", "kit_echo_few"


class World:
    """Home folders below `folder`: one with a full forum and workspaces, one with a full leaderboard, and for each
    transport one with few evaluations, as a team has them."""

    def __init__(self, folder: Path, findings: int, runs: int) -> None:
        self.shared, self.ranked, self._folder = folder / "shared", folder / "ranked", folder
        self.findings = findings
        prepare(self.shared, TASK)
        store = ForumStore(f"sqlite:///{self.shared}/forum.sqlite", ResultBook(self.shared))
        fill(store, findings)
        store.engine.dispose()
        for agent in AGENTS:
            (self.shared / "workspaces" / agent).mkdir(parents=True)
            (self.shared / "workspaces" / agent / "method.py").write_text(METHOD)
        prepare(self.ranked, TASK)
        fill_ledger(self.ranked, runs)
        tokens = TokenFile(self.shared / "tokens.json")
        self.tokens = {agent: tokens.issue(agent) for agent in AGENTS}

    def asked(self, transport: str) -> Path:
        """The home folder whose runs are evaluated over this transport."""
        home = self._folder / f"asked-{transport}"
        prepare(home, TASK)
        return home

    def commands(self, transport: str) -> dict[str, list[str]]:
        """For each server what follows `python` on its command line."""
        echo = str(Path(__file__).parent / "echo_servers.py")
        tokens = ["--port", "0", "--tokens", str(self.shared / "tokens.json")] if transport == "http" else []
        common = ["--transport", transport, "--agent", AGENTS[0], "--log-level", "error", *tokens]
        evaluation = ["-m", "outlearn_evaluation", *PLENTY, *common, "--home"]
        return {
            BARE: [echo, "bare", *common],
            KIT: [echo, "kit", *common, "--home", str(self.shared)],
            "forum": ["-m", "outlearn_forum", *common, "--home", str(self.shared)],
            "filesystem": ["-m", "outlearn_filesystem", *common, "--home", str(self.shared)],
            "evaluation": [*evaluation, str(self.asked(transport))],
            "leaderboard": [*evaluation, str(self.ranked)],
        }


@dataclass(frozen=True)
class Tool:
    """A tool as it is measured."""

    server: str
    ask: Callable[[int], Call]
    """The next call of the caller with this number."""
    before: Callable[[], None] = lambda: None
    """What is done before each turn."""
    few: bool = False
    """Whether it has few calls a turn, and is held against echoes with as few."""
    early: bool = False
    """Whether its calls are made up when the round begins: a run is not asked about in the moment it ends."""


def agent_of(caller: int, transport: str) -> str:
    """Over HTTP callers share sixteen agents' tokens; over stdio there is one agent."""
    return AGENTS[caller % len(AGENTS)] if transport == "http" else AGENTS[0]


def make_tools(world: World, transport: str) -> dict[str, Tool]:
    """All tools that are measured, in the order of their turns."""
    rng, numbers = random.Random(transport), count()
    runs = Runs(world.asked(transport))
    known = {agent: runs.file(agent) for agent in AGENTS}
    kinds = list(queries(rng).values())

    def some_finding() -> str:
        return finding_id(rng.randint(1, world.findings))

    def post(_: int) -> Call:
        return "post_finding", {"title": words(rng, 8), "text": words(rng, 80), "kind": "insight"}

    def search(_: int) -> Call:
        query, filters = rng.choice(kinds)()
        return "search", {"query": query, **{name: value for name, value in asdict(filters).items() if value}}

    def write(caller: int) -> Call:
        return "write_file", {"path": f"methods/{caller}.py", "text": f"# version {next(numbers)}\n{METHOD}"}

    def pass_an_hour() -> None:
        let_an_hour_pass(world.shared / "forum.sqlite")

    echo: Call = ("echo", {"text": "hello"})
    return {
        BARE: Tool(BARE, lambda _: echo),
        KIT: Tool(KIT, lambda _: echo),
        LONG: Tool(BARE, lambda _: ("repeat", {"text": "hello ", "times": 1_333})),
        "post": Tool("forum", post, pass_an_hour),
        "reply": Tool(
            "forum", lambda _: ("reply", {"thread_id": some_finding(), "text": words(rng, 40)}), pass_an_hour
        ),
        "vote": Tool("forum", lambda _: ("vote", {"post_id": some_finding(), "value": rng.choice((-1, 1))})),
        "search": Tool("forum", search),
        "list_threads": Tool("forum", lambda _: ("list_threads", {})),
        "read_thread": Tool("forum", lambda _: ("read_thread", {"thread_id": some_finding()})),
        "leaderboard": Tool("leaderboard", lambda _: ("leaderboard", {})),
        "evaluate": Tool("evaluation", lambda caller: ("evaluate", {"run_id": known[agent_of(caller, transport)]})),
        FEW_BARE: Tool(BARE, lambda _: echo, few=True),
        FEW_KIT: Tool(KIT, lambda _: echo, few=True),
        "evaluate_new": Tool(
            "evaluation",
            lambda caller: ("evaluate", {"run_id": runs.file(agent_of(caller, transport))}),
            few=True,
            early=True,
        ),
        "read_file": Tool("filesystem", lambda _: ("read_file", {"path": "method.py"})),
        "write_file": Tool("filesystem", write),
    }


class Runs:
    """Files receipts of finished runs that are right four times in five, on much the same items."""

    def __init__(self, home: Path) -> None:
        self._card, secret = load_card(home, TASK), load_secret(home, TASK)
        self._labels = secret.test_labels > 0
        self._book = ReceiptBook(home / "vault")
        self._rng, self._numbers = np.random.default_rng(0), count()
        self._ability = self._rng.normal(size=len(self._labels))

    def file(self, agent: str) -> str:
        """A new run of this agent's. Returns its id."""
        run_id, size = f"run-{next(self._numbers):010d}", len(self._labels)
        of_method = self._ability + 0.5 * self._rng.normal(size=size)
        for seed in self._card.seeds:
            right = of_method + 0.3 * self._rng.normal(size=size) > -1
            sure = self._rng.uniform(0.5, 1, size=size)
            self._book.issue(
                self._receipt(run_id, agent, seed, np.where(right == self._labels, sure, 1 - sure).tolist())
            )
        return run_id

    def _receipt(self, run_id: str, agent: str, seed: int, predictions: Sequence[float]) -> Receipt:
        return Receipt(
            run_id=run_id,
            agent=agent,
            method="vanilla",
            method_sha256="0" * 64,
            task=self._card.name,
            task_fingerprint=self._card.fingerprint,
            seed=seed,
            weights_sha256=("1" * 64,),
            predictions=tuple(predictions),
        )


def fill_ledger(home: Path, runs: int) -> None:
    """Evaluated runs of 64 agents; each tenth was compared with another later."""
    rng, ledger = random.Random(0), Ledger(EvaluationSettings(home=home))
    rows = []
    for number in range(runs):
        at = datetime(2026, 1, 1) + timedelta(minutes=number)
        row = {
            "run_id": f"run-{number:010d}",
            "against": "",
            "agent": f"agent-{rng.randrange(64)}",
            "task": TASK,
            "method": rng.choice(("vanilla", "confident", "logconf", "methods/mine.py")),
            "seeds": 5,
            "pgr": round(20 * min(1.0, max(0.1, rng.gauss(0.5, 0.2)))) / 20,
            "pgr_se": 0.05,
            "verdict": None,
            "charged": True,
            "day": f"{at:%Y-%m-%d}",
            "evaluated_at": at,
        }
        rows += [row, row | {"against": "run-0000000000", "verdict": "better"}] if number % 10 == 1 else [row]
    with writing(ledger.engine) as connection:
        connection.execute(insert(evaluations), rows)
    ledger.engine.dispose()


def let_an_hour_pass(forum: Path) -> None:
    """Date this hour's posts back: an agent may make 300 in an hour."""
    now = time.time()
    with closing(sqlite3.connect(forum, timeout=30)) as database, database:
        database.execute("UPDATE posts SET posted_at = ? WHERE posted_at > ?", (now - 3601, now - 3600))
