"""The forum's posts and votes. Every accepted one is stored once, however many processes write at the same time."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Engine, Row, bindparam, delete, func, insert, select, update

from outlearn.database import open_database, writing
from outlearn.errors import BudgetError, ConflictError, InvalidInputError, PermissionDeniedError
from outlearn.requests import check_request_id
from outlearn.results import ResultBook, VerifiedResult
from outlearn.transactions import Transaction, Transactions
from outlearn.types import FindingKind, Posted, Resemblance, Voted
from outlearn_forum.events import note, note_mentions, talkers
from outlearn_forum.index import set_up_index
from outlearn_forum.resemblance import Sketch
from outlearn_forum.tables import links, posts, tables, versions, votes
from outlearn_forum.text import (
    MAX_TEXT,
    check_post_id,
    check_sources,
    check_text,
    check_title,
    facets,
    join_tags,
    no_post,
)

HOURLY_POSTS = 300
MAX_RETAGGED = 200
"""Replies of a finding whose tags change: each has them in the index, and all writers wait until all are in it anew."""
_POSTED = select(func.count()).where(posts.c.author == bindparam("author"), posts.c.posted_at > bindparam("since"))
_EDITED = (
    select(func.count())
    .select_from(versions.join(posts, posts.c.post_id == versions.c.post_id))
    .where(versions.c.until > bindparam("since"), posts.c.author == bindparam("author"))
)
_RECENT = select(_POSTED.scalar_subquery() + _EDITED.scalar_subquery())
BY_ID = select(posts).where(posts.c.post_id == bindparam("id"))
BY_IDS = select(posts).where(posts.c.post_id.in_(bindparam("ids", expanding=True))).order_by(posts.c.seq)


class ForumStore:
    """Writes posts and votes to the database at `url`. Results are checked against `results`; an author may post
    and edit `hourly_posts` times an hour."""

    def __init__(self, url: str, results: ResultBook, hourly_posts: int = HOURLY_POSTS) -> None:
        self.engine: Engine = open_database(url, tables)
        self.transactions = Transactions(self.engine)
        self._results = results
        self._hourly_posts = hourly_posts
        with writing(self.engine) as connection:
            set_up_index(connection)

    def post_finding(
        self,
        author: str,
        *,
        title: str,
        text: str,
        kind: FindingKind,
        run_id: str | None = None,
        task: str | None = None,
        tags: Sequence[str] = (),
        built_on: Sequence[str] = (),
        request_id: str | None = None,
        anyway: bool = False,
    ) -> Posted:
        """Open a thread. The same `request_id` again gives the first answer and posts nothing.

        The task is the verified run's, where there is one. `built_on` names findings, runs and snapshots.

        Raises:
            InvalidInputError: a text is empty or too long, a result names no run, or a source is no id.
            NotFoundError: a finding in `built_on` does not exist.
            PermissionDeniedError: a result names a run that has no verified result of this author, or is withheld.
            ConflictError: `request_id` was used for another post; or the finding, not a result, resembles an earlier
                one, and `anyway` is not set.
            IntegrityError: the run's verified result was tampered with.
            BudgetError: the author posted too much within the hour.
        """
        verified = self._verify(author, kind, run_id)
        sources = check_sources(built_on)
        title, text, joined = check_title(title), check_text(text, "text", MAX_TEXT), join_tags(tags)
        content = {"kind": kind, "title": title, "text": text, "tags": joined, "run_id": run_id}
        task = verified.task if verified else task
        words = facets(kind=kind, author=author, tag=joined.split(), task=task, run=run_id)
        sketch = Sketch.of(title, text) if kind != "result" else None
        with writing(self.engine) as connection:
            asked = content if run_id else {**content, "task": task}  # a run's task is known once it was evaluated
            if known := _answered(connection, author, request_id, asked, sources):
                return Posted(post_id=known, thread_id=known, verified=verified)
            self._check_pace(connection, author)
            resembles = _resembling(connection, sketch, anyway)
            post_id = f"finding-{secrets.token_hex(6)}"
            place = {"post_id": post_id, "thread_id": post_id, "author": author, "request_id": request_id}
            seq = _insert(connection, {**place, **content, "task": task, "facets": " ".join(words)})
            if sketch and not resembles:
                sketch.keep(connection, seq)
            _note_finding(connection, author, post_id, content, sources)
        return Posted(post_id=post_id, thread_id=post_id, verified=verified, resembles=resembles)

    def reply(self, author: str, *, thread_id: str, text: str, request_id: str | None = None) -> Posted:
        """Add to a thread, named by its finding or by any of its replies. `request_id` works as in `post_finding`.

        Raises:
            NotFoundError: there is no such thread.
            InvalidInputError: the text is empty or too long.
            ConflictError: `request_id` was used for another post.
            BudgetError: the author posted too much within the hour.
        """
        content = {"kind": None, "title": "", "text": check_text(text, "text", MAX_TEXT), "tags": "", "run_id": None}
        with writing(self.engine) as connection:
            head = find_post(connection, find_post(connection, thread_id).thread_id)
            if known := _answered(connection, author, request_id, {**content, "thread_id": head.post_id}):
                return Posted(post_id=known, thread_id=head.post_id)
            self._check_pace(connection, author)
            post_id = f"reply-{secrets.token_hex(6)}"
            place = {"post_id": post_id, "thread_id": head.post_id, "author": author, "request_id": request_id}
            concerned = talkers(connection, head.post_id)
            _insert(connection, {**place, **content, "facets": head.facets})
            event = {"post_id": post_id, "thread_id": head.post_id, "by_agent": author}
            note(connection, "reply", event, [None, *sorted(concerned)])
            note_mentions(connection, event, text)
        return Posted(post_id=post_id, thread_id=head.post_id)

    def edit(
        self, author: str, post_id: str, *, text: str, title: str | None = None, tags: Sequence[str] | None = None
    ) -> Posted:
        """Change an own post; what it said before is kept. A finding keeps its title and tags where none are given.

        Raises:
            NotFoundError: there is no such post.
            PermissionDeniedError: it is another agent's.
            InvalidInputError: a text is empty or too long, or a reply is given a title or tags.
            ConflictError: other tags are given, and the finding has many replies.
            BudgetError: the author posted and edited too much within the hour.
        """
        with writing(self.engine) as connection:
            post = find_post(connection, post_id, lock=True)
            if post.author != author:
                raise PermissionDeniedError(f"post {post_id!r} is of {post.author!r}; answer it with `reply`")
            if post.kind is None and (title is not None or tags is not None):
                raise InvalidInputError(f"{post_id!r} is a reply, which has no title and no tags; pass the text alone")
            new = {
                "text": check_text(text, "text", MAX_TEXT),
                "title": post.title if title is None else check_title(title),
                "tags": post.tags if tags is None else join_tags(tags),
            }
            if new["tags"] != post.tags and post.replies > MAX_RETAGGED:
                raise ConflictError(
                    f"{post_id!r} has {post.replies} replies; with more than {MAX_RETAGGED} its tags stay as they are"
                )
            if any(post._mapping[name] != value for name, value in new.items()):
                self._check_pace(connection, author)
                _replace(connection, post, new)
        return Posted(post_id=post_id, thread_id=post.thread_id)

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
                event = {"post_id": post_id, "thread_id": post.thread_id, "by_agent": agent}
                note(connection, "vote", event, [post.author])
        return Voted(post_id=post_id, score=post.score + value - before, your_vote=value)

    def _check_pace(self, connection: Connection, author: str) -> None:
        asked = {"author": author, "since": time.time() - 3600}
        if (connection.scalar(_RECENT, asked) or 0) >= self._hourly_posts:
            raise BudgetError(
                f"you posted and edited {self._hourly_posts} times within an hour; write less, and what others need"
            )

    def _verify(self, author: str, kind: FindingKind, run_id: str | None) -> VerifiedResult | None:
        result = self._results.lookup(run_id) if run_id else None
        if kind != "result":
            return None if result and result.withheld else result
        if run_id is None:
            raise InvalidInputError("a finding of kind 'result' names its run: pass run_id, or use kind 'insight'")
        if result is None:
            raise PermissionDeniedError(
                f"run {run_id!r} has no verified result; have it scored with the evaluation server's `evaluate` first"
            )
        if result.agent != author:
            raise PermissionDeniedError(f"run {run_id!r} is of {result.agent!r}; post it as an 'insight' instead")
        if result.withheld:
            raise PermissionDeniedError(f"run {run_id!r} is withheld until the operator has reviewed it")
        return result


def find_post(connection: Connection, post_id: str, *, lock: bool = False) -> Row[Any]:
    """A post by its id; `lock` keeps it from changing until the transaction ends. Raises NotFoundError."""
    query = BY_ID.with_for_update() if lock else BY_ID
    if (row := connection.execute(query, {"id": check_post_id(post_id)}).first()) is None:
        raise no_post(post_id)
    return row


def read_post(read: Transaction, post_id: str) -> Row[Any]:
    """A post by its id. Raises NotFoundError."""
    post: Row[Any] | None = next(read.rows(BY_ID, id=check_post_id(post_id)), None)
    if post is None:
        raise no_post(post_id)
    return post


def _insert(connection: Connection, values: dict[str, Any]) -> int:
    """Store a post, and note it in its thread. Returns its number."""
    seq: int = connection.scalar(
        insert(posts).values(posted_at=time.time(), last_seq=0, **values).returning(posts.c.seq)
    )
    is_reply = 0 if values["kind"] else 1
    activity = {"last_seq": seq, "replies": posts.c.replies + is_reply}
    connection.execute(update(posts).where(posts.c.post_id == values["thread_id"]).values(activity))
    return seq


def _note_finding(
    connection: Connection, author: str, post_id: str, content: dict[str, Any], sources: Sequence[str]
) -> None:
    """Note a new finding, whom it mentions, and what it is built on."""
    event = {"post_id": post_id, "thread_id": post_id, "by_agent": author}
    note(connection, "finding", event)
    note_mentions(connection, event, f"{content['title']}\n{content['text']}")
    if sources:
        connection.execute(insert(links), [{"child": post_id, "parent": one} for one in sources])
        parents = [find_post(connection, one).author for one in sources if one.startswith("finding-")]
        note(connection, "built on", event, sorted(set(parents)))


def _resembling(connection: Connection, sketch: Sketch | None, anyway: bool) -> Resemblance | None:
    found = sketch.find(connection) if sketch else None
    if found and not anyway:
        raise ConflictError(
            f"this resembles {found.finding_id!r} by {found.author!r} (similarity {found.similarity:.0%}); nothing was "
            f"posted. Reply there, or call again with anyway=true if yours says something new. Its title:\n"
            f"> {found.title}"
        )
    return found


def _answered(
    connection: Connection, author: str, request_id: str | None, content: dict[str, Any], sources: Sequence[str] = ()
) -> str | None:
    """The post that this request made before, if any. Raises ConflictError where it said something else."""
    if request_id is None:
        return None
    made = (posts.c.author == author, posts.c.request_id == check_request_id(request_id))
    known = connection.execute(select(posts).where(*made)).first()
    if known is None:
        return None
    first = connection.execute(select(versions).where(versions.c.post_id == known.post_id, versions.c.number == 0))
    said = {**known._mapping, **(edited._mapping if (edited := first.first()) else {})}
    parents = set(connection.scalars(select(links.c.parent).where(links.c.child == known.post_id)))
    if parents != set(sources) or any(said[name] != value for name, value in content.items()):
        raise ConflictError(f"request_id {request_id!r} was used for {known.post_id!r}; use a new one")
    return str(known.post_id)


def _replace(connection: Connection, post: Row[Any], new: dict[str, str]) -> None:
    """Give a post a new text, keep the old one, and tell whom it newly mentions."""
    now, mine = time.time(), versions.c.post_id == post.post_id
    number = connection.scalar(select(func.count()).where(mine))
    old = {name: post._mapping[name] for name in ("post_id", "title", "text", "tags")}
    connection.execute(insert(versions).values(number=number, until=now, **old))
    connection.execute(update(posts).where(posts.c.post_id == post.post_id).values(edited_at=now, **new))
    if new["tags"] != post.tags:
        words = facets(kind=post.kind, author=post.author, tag=new["tags"].split(), task=post.task, run=post.run_id)
        connection.execute(update(posts).where(posts.c.thread_id == post.thread_id).values(facets=" ".join(words)))
    event = {"post_id": post.post_id, "thread_id": post.thread_id, "by_agent": post.author}
    note(connection, "edit", event)
    note_mentions(connection, event, "\n".join((new["title"], new["text"])), f"{post.title}\n{post.text}")
