"""The forum's posts and votes. Every accepted one is stored once, however many processes write at the same time."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from outlearn.database import open_database, writing
from outlearn.errors import ConflictError, InvalidInputError, NotFoundError, PermissionDeniedError
from outlearn.results import ResultBook, VerifiedResult
from outlearn.types import FindingKind, Posted, Voted
from outlearn_forum.tables import posts, tables, votes
from outlearn_forum.text import MAX_TEXT, check_text, check_title, join_tags

MAX_REQUEST_ID = 100
_LOCK = int.from_bytes(b"forum", "big")


class ForumStore:
    """Writes posts and votes to the database at `url`. Results are checked against `results`."""

    def __init__(self, url: str, results: ResultBook) -> None:
        self.engine: Engine = open_database(url, tables)
        self._results = results

    def post_finding(
        self,
        author: str,
        *,
        title: str,
        text: str,
        kind: FindingKind,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        request_id: str | None = None,
    ) -> Posted:
        """Open a thread. The same `request_id` again gives the first answer and posts nothing.

        Raises:
            InvalidInputError: a text is empty or too long, or a result names no run.
            PermissionDeniedError: a result names a run that has no verified result of this author.
            ConflictError: `request_id` was used for another post.
            IntegrityError: the run's verified result was tampered with.
        """
        verified = self._verify(author, kind, run_id)
        post_id = f"finding-{secrets.token_hex(6)}"
        content = {
            "kind": kind,
            "title": check_title(title),
            "text": check_text(text, "text", MAX_TEXT),
            "tags": join_tags(tags),
            "run_id": run_id,
        }
        with writing(self.engine) as connection:
            post_id = self._add(connection, author, post_id, post_id, content, request_id)
        return Posted(post_id=post_id, thread_id=post_id, verified=verified)

    def reply(self, author: str, *, thread_id: str, text: str, request_id: str | None = None) -> Posted:
        """Add to a thread, named by its finding or by any of its replies. `request_id` works as in `post_finding`.

        Raises:
            NotFoundError: there is no such thread.
            InvalidInputError: the text is empty or too long.
            ConflictError: `request_id` was used for another post.
        """
        content = {"kind": None, "title": "", "text": check_text(text, "text", MAX_TEXT), "tags": "", "run_id": None}
        with writing(self.engine) as connection:
            thread = find_post(connection, thread_id).thread_id
            post_id = self._add(connection, author, f"reply-{secrets.token_hex(6)}", thread, content, request_id)
        return Posted(post_id=post_id, thread_id=thread)

    def vote(self, agent: str, post_id: str, value: int) -> Voted:
        """Set this agent's vote on a post to 1, -1 or 0 (none).

        Raises:
            NotFoundError: there is no such post.
            PermissionDeniedError: it is the agent's own.
        """
        with writing(self.engine) as connection:
            post = find_post(connection, post_id, lock=True)
            if post.author == agent:
                raise PermissionDeniedError(f"post {post_id!r} is your own; others vote on it")
            mine = (votes.c.post_id == post_id, votes.c.agent == agent)
            before = connection.scalar(select(votes.c.value).where(*mine)) or 0
            if value != before:
                connection.execute(delete(votes).where(*mine))
                if value:
                    connection.execute(insert(votes).values(post_id=post_id, agent=agent, value=value))
                score = posts.c.score + value - before
                connection.execute(update(posts).where(posts.c.post_id == post_id).values(score=score))
        return Voted(post_id=post_id, score=post.score + value - before, your_vote=value)

    def _verify(self, author: str, kind: FindingKind, run_id: str | None) -> VerifiedResult | None:
        result = self._results.lookup(run_id) if run_id else None
        if kind != "result":
            return result
        if run_id is None:
            raise InvalidInputError("a finding of kind 'result' names its run: pass run_id, or use kind 'insight'")
        if result is None:
            raise PermissionDeniedError(
                f"run {run_id!r} has no verified result; have it scored with the evaluation server's `evaluate` first"
            )
        if result.agent != author:
            raise PermissionDeniedError(f"run {run_id!r} is of {result.agent!r}; post it as an 'insight' instead")
        return result

    def _add(
        self,
        connection: Connection,
        author: str,
        post_id: str,
        thread_id: str,
        content: dict[str, Any],
        request_id: str | None,
    ) -> str:
        """Store a post unless this request was answered before. Returns the post's id."""
        if connection.dialect.name == "postgresql":
            # posts become visible in the order of `seq`: a reader who saw one has seen all before it
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        if request_id is not None and (known := _find_request(connection, author, request_id)):
            if any(known._mapping[name] != value for name, value in content.items()):
                raise ConflictError(f"request_id {request_id!r} was used for {known.post_id!r}; use a new one")
            return str(known.post_id)
        seq = connection.scalar(
            insert(posts)
            .values(
                post_id=post_id,
                thread_id=thread_id,
                author=author,
                posted_at=time.time(),
                request_id=request_id,
                last_seq=0,
                **content,
            )
            .returning(posts.c.seq)
        )
        is_reply = 0 if post_id == thread_id else 1
        activity = {"last_seq": seq, "replies": posts.c.replies + is_reply}
        connection.execute(update(posts).where(posts.c.post_id == thread_id).values(activity))
        return post_id


def find_post(connection: Connection, post_id: str, *, lock: bool = False) -> Row[Any]:
    """A post by its id; `lock` keeps it from changing until the transaction ends. Raises NotFoundError."""
    query = select(posts).where(posts.c.post_id == post_id)
    if "\0" in post_id or (row := connection.execute(query.with_for_update() if lock else query).first()) is None:
        raise NotFoundError(f"no post {post_id[:80]!r}; `list_threads` and `search` show what there is")
    return row


def _find_request(connection: Connection, author: str, request_id: str) -> Row[Any] | None:
    if not request_id or len(request_id) > MAX_REQUEST_ID or "\0" in request_id:
        raise InvalidInputError(f"request_id {request_id[:80]!r} must have 1 to {MAX_REQUEST_ID} characters, no NUL")
    return connection.execute(select(posts).where(posts.c.author == author, posts.c.request_id == request_id)).first()
