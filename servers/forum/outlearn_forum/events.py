"""What happened in the forum, in one order: for `digest`, and for clients that subscribe."""

import time
from collections.abc import Iterable

from sqlalchemy import Connection, delete, func, insert, select

from outlearn_forum.tables import events, posts
from outlearn_forum.text import mentions

TALKERS = 20
LASTING = ("vote", "mention")
"""Kinds of which the last one by an agent about a post stands for all: votes that change, mentions that come and go."""


def note(connection: Connection, kind: str, post: dict[str, str], to: Iterable[str | None] = (None,)) -> None:
    """Note that `post["by_agent"]` did something with a post, for everybody or for those whom it concerns."""
    rows = [{"kind": kind, "at": time.time(), "to_agent": one, **post} for one in to if one != post["by_agent"]]
    if rows and kind in LASTING:
        known = (events.c.post_id == post["post_id"], events.c.kind == kind, events.c.by_agent == post["by_agent"])
        connection.execute(delete(events).where(*known, events.c.to_agent.in_([row["to_agent"] for row in rows])))
    if rows:
        connection.execute(insert(events), rows)


def note_mentions(connection: Connection, post: dict[str, str], text: str, before: str = "") -> None:
    """Note whom a text mentions, without those that it mentioned `before`."""
    note(connection, "mention", post, sorted(mentions(text) - mentions(before)))


def talkers(connection: Connection, thread_id: str) -> set[str]:
    """The author of a finding, and who posted lately in its thread."""
    latest = select(posts.c.author).where(posts.c.thread_id == thread_id).order_by(posts.c.seq.desc()).limit(TALKERS)
    head = select(posts.c.author).where(posts.c.post_id == thread_id)
    return {*connection.scalars(latest), *connection.scalars(head)}


def newest(connection: Connection) -> int:
    """The number of the newest event, 0 where there is none."""
    return connection.scalar(select(func.max(events.c.seq))) or 0


def changed_resources(connection: Connection, after: int) -> tuple[set[str], int]:
    """The URIs of what changed after an event, and the newest event's number."""
    rows = connection.execute(select(events).where(events.c.seq > after).order_by(events.c.seq)).all()
    found: set[str] = set()
    for row in rows:
        found |= {"forum://findings", f"forum://threads/{row.thread_id}"}
        if row.to_agent:
            found.add(f"forum://news/{row.to_agent}")
    return found, rows[-1].seq if rows else after
