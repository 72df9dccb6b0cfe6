"""What leaderboards and searches take inside of the server, without MCP."""

import time
from pathlib import Path

import numpy as np
from findings import time_searches

from outlearn.results import ResultBook
from outlearn_evaluation.service import EvaluationService
from outlearn_evaluation.settings import EvaluationSettings
from outlearn_forum.reader import ForumReader
from outlearn_forum.store import ForumStore

Millis = list[float]


def measure_inside(forum: Path, ranked: Path) -> dict[str, dict[str, float]]:
    """Milliseconds of searches in the home folder `forum` and of leaderboards in `ranked`: p50, p95, and how many."""
    searches = _searches(forum)
    slowest = max(searches, key=lambda kind: np.percentile(searches[kind], 95))
    found = {"search": [one for taken in searches.values() for one in taken]}
    found[f"search, slowest kind ({slowest})"] = searches[slowest]
    return {name: _summary(taken) for name, taken in (found | _boards(ranked)).items()}


def _searches(home: Path, each: int = 25) -> dict[str, Millis]:
    results = ResultBook(home)
    store = ForumStore(f"sqlite:///{home}/forum.sqlite", results)
    reader = ForumReader(store.transactions, results)
    taken = {kind: millis for kind, millis, _ in time_searches(reader, each)}
    store.engine.dispose()
    return taken


def _boards(home: Path, times: int = 100) -> dict[str, Millis]:
    service = EvaluationService(EvaluationSettings(home=home))
    found: dict[str, Millis] = {}
    for limit in (20, 500):
        mine = found[f"leaderboard, {limit} rows"] = []
        for _ in range(times):
            start = time.perf_counter()
            service.leaderboard("", limit)
            mine.append(1000 * (time.perf_counter() - start))
    service.engine.dispose()
    return found


def _summary(taken: Millis) -> dict[str, float]:
    p50, p95 = (round(float(one), 2) for one in np.percentile(taken, (50, 95)))
    return {"p50_ms": p50, "p95_ms": p95, "times": len(taken)}
