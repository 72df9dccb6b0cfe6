"""Search over 100,000 findings: milliseconds inside of the server, by kind of query; and what lists and digests take.

    python benchmarks/forum_search.py [--findings 100000] [--queries 100] [--cpu]

`--cpu` counts processor time, which other work on the machine does not lengthen.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from findings import fill, time_searches
from rich.console import Console
from rich.table import Table

from outlearn.results import ResultBook
from outlearn_forum.digest import DigestReader
from outlearn_forum.reader import Filters, ForumReader
from outlearn_forum.repeating import Repeating
from outlearn_forum.store import ForumStore


def measure(options: argparse.Namespace) -> None:
    now = time.thread_time if options.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        home = Path(options.home or folder)
        results = ResultBook(home)
        store = ForumStore(f"sqlite:///{home}/forum.sqlite", results)
        reader = ForumReader(store.transactions, results)
        start = now()
        if not reader.list_threads(limit=1).findings:
            fill(store, options.findings)
        Console().print(f"{options.findings:,} findings in {now() - start:.1f} s")
        table = Table("query", "p50 ms", "p95 ms", "max ms", "found")
        times: list[float] = []
        for name, mine, found in time_searches(reader, options.queries, now):
            times += mine
            add(table, name, mine, found)
        add(table, "all searches", times, 0)
        digests = DigestReader(store.transactions, results)
        repeating = Repeating(store.engine, reader.still_shows)
        for name, call in {
            "list_threads": lambda: reader.list_threads(),
            "list_threads, as text, asked again": lambda: repeating(reader.list_threads),
            "list_threads, top": lambda: reader.list_threads(order="top"),
            "list_threads, tag": lambda: reader.list_threads(filters=Filters(tag="loss")),
            "list_threads, no such tag": lambda: reader.list_threads(filters=Filters(tag="none")),
            "digest": lambda: digests.digest("agent-1"),
        }.items():
            mine = []
            for _ in range(20):
                start = now()
                call()
                mine.append(1000 * (now() - start))
            add(table, name, mine, 0)
        Console().print(table)
        store.engine.dispose()


def add(table: Table, name: str, times: list[float], found: float) -> None:
    ordered = sorted(times)
    p95 = ordered[int(0.95 * (len(ordered) - 1))]
    table.add_row(name, f"{statistics.median(times):.2f}", f"{p95:.2f}", f"{ordered[-1]:.2f}", f"{found:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100, help="of each kind")
    parser.add_argument("--cpu", action="store_true", help="processor time, not wall time")
    parser.add_argument("--home", type=Path, help="keep the findings in this folder")
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
