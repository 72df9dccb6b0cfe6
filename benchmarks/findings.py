"""A forum of many varied findings, and the kinds of queries that are asked of it."""

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice

from sqlalchemy import insert

from outlearn.database import writing
from outlearn.types import FindingKind
from outlearn_forum.reader import Filters, ForumReader
from outlearn_forum.store import ForumStore
from outlearn_forum.tables import posts
from outlearn_forum.text import facets

KINDS: tuple[FindingKind, ...] = ("result", "insight", "insight", "hypothesis", "error", "question")
MOST_USED = """
the of training labels weak student teacher model loss on with and a in for is better confidence epochs seeds
pgr pool method than run it to not after by from this data we that accuracy
"""
COMMON = MOST_USED.split()
ALL_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe ri so tu va we xi yo zu"
SYLLABLES = ALL_SYLLABLES.split()


def words(rng: random.Random, count: int) -> str:
    """Words as in a language: half of them common, the rest from 8,000 by Zipf's law."""
    found = []
    for _ in range(count):
        if rng.random() < 0.5:
            found.append(rng.choice(COMMON))
        else:
            found.append(rare_word(int(8_000 ** rng.random())))
    return " ".join(found)


def rare_word(number: int) -> str:
    """The word with this number."""
    return "".join(SYLLABLES[number // 20**place % 20] for place in range(3)) + SYLLABLES[number % 7]


def finding_id(number: int) -> str:
    """The id of the finding with this number, from 1."""
    return f"finding-{number:012x}"


def fill(store: ForumStore, findings: int) -> None:
    """Many varied findings, in bulk."""
    rng = random.Random(0)

    def rows() -> Iterator[dict[str, object]]:
        for number in range(1, findings + 1):
            kind, author = rng.choice(KINDS), f"agent-{int(64 * rng.random() ** 2)}"
            tags, post_id = [rng.choice(("labels", "loss", "data", "seeds"))], finding_id(number)
            found = {"kind": kind, "author": author, "tags": " ".join(tags), "task": rng.choice(("math", "code"))}
            marks = facets(kind=kind, author=author, tag=tags, task=str(found["task"]))
            place = {"post_id": post_id, "thread_id": post_id, "last_seq": number, "posted_at": float(number)}
            content = {"title": words(rng, 8), "text": words(rng, rng.randint(30, 150)), "facets": " ".join(marks)}
            yield {**found, **place, **content, "score": int(3 * rng.random() ** 4), "replies": 0}

    with writing(store.engine) as connection:
        source = rows()
        while chunk := list(islice(source, 5_000)):
            connection.execute(insert(posts), chunk)


def queries(rng: random.Random) -> dict[str, Callable[[], tuple[str, Filters]]]:
    """Kinds of queries."""

    def rare(low: int = 1, high: int = 8_000) -> str:
        return rare_word(rng.randint(low, high))

    def common(count: int) -> str:
        return " ".join(rng.sample(COMMON, count))

    return {
        "one rare word": lambda: (rare(), Filters()),
        "one frequent word": lambda: (rare(1, 30), Filters()),
        "one common word": lambda: (common(1), Filters()),
        "three common words": lambda: (common(3), Filters()),
        "common and rare": lambda: (f"{common(2)} {rare()}", Filters()),
        "phrase of common words": lambda: (f'"{common(2)}"', Filters()),
        "rare phrase, no match": lambda: (f'"{common(5)}"', Filters()),
        "question, any of its words": lambda: (f"should I try {rare()} or {rare()} {common(3)}", Filters()),
        "common word, kind": lambda: (common(1), Filters(kind=rng.choice(KINDS))),
        "three words, kind and author": lambda: (common(3), Filters(kind="error", author=f"agent-{rng.randrange(64)}")),
        "frequent word, kind": lambda: (rare(1, 30), Filters(kind=rng.choice(KINDS))),
        "rare word, tag and task": lambda: (rare(), Filters(tag="loss", task="math")),
    }


def time_searches(
    reader: ForumReader, count: int, now: Callable[[], float] = time.perf_counter
) -> Iterator[tuple[str, list[float], float]]:
    """For each kind of query its name, the milliseconds of `count` searches, and how many findings one found."""
    for name, make in queries(random.Random(1)).items():
        taken, found = [], 0
        for _ in range(count):
            query, filters = make()
            start = now()
            found += len(reader.search(query, filters=filters, limit=10).findings)
            taken.append(1000 * (now() - start))
        yield name, taken, found / count
