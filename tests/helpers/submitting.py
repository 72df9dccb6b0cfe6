"""Runs as agents submit them, for tests of the queue."""

from typing import Any

from outlearn_training.queue.tables import Submission

FIELDS: dict[str, Any] = {
    "task": "toy",
    "method": "vanilla",
    "source_sha256": "0" * 64,
    "source_bytes": 9,
    "params": {},
    "kind": "full",
}


def submission(agent: str = "ada", seeds: tuple[int, ...] = (0, 1), **changes: Any) -> Submission:
    """What an agent asks for: a built-in method on the toy task, but for what `changes`."""
    return Submission(agent=agent, seeds=seeds, **(FIELDS | changes))
