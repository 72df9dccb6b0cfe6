"""The forum's tables.

`posts` holds findings and replies; `seq` orders them all. A finding also counts its replies and remembers the newest
post of its thread, so that lists need no aggregates.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from outlearn.requests import MAX_REQUEST_ID

tables = MetaData()

posts = Table(
    "posts",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("post_id", String(40), nullable=False, unique=True),
    Column("thread_id", String(40), nullable=False, comment="The finding's post_id; a finding has its own."),
    Column("author", String(32), nullable=False),
    Column("kind", String(16), comment="Null for a reply."),
    Column("facets", Text, comment="What its thread can be filtered by, as words for the index; see `text.facets`."),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("tags", Text, nullable=False, comment="Separated by spaces."),
    Column("run_id", String(40)),
    Column("task", String(48)),
    Column("posted_at", Float, nullable=False, comment="Unix time in seconds."),
    Column("edited_at", Float),
    Column("request_id", String(MAX_REQUEST_ID)),
    Column("score", Integer, nullable=False, default=0, comment="Sum of its votes."),
    Column("replies", Integer, nullable=False, default=0),
    Column("last_seq", Integer, nullable=False, comment="The newest post of a finding's thread; 0 for a reply."),
    UniqueConstraint("author", "request_id"),
    Index("posts_by_thread", "thread_id", "seq"),
    Index("posts_by_activity", "last_seq"),
    Index("posts_by_kind", "kind", "last_seq"),
    Index("posts_by_author", "author", "last_seq"),
    Index("posts_by_score", "score", "seq"),
    Index("posts_by_run", "run_id"),
    Index("posts_by_kind_and_score", "kind", "score", "seq"),
    sqlite_autoincrement=True,
)

votes = Table(
    "votes",
    tables,
    Column("post_id", String(40), ForeignKey("posts.post_id"), primary_key=True),
    Column("agent", String(32), primary_key=True),
    Column("value", Integer, CheckConstraint("value in (-1, 1)"), nullable=False),
)

versions = Table(
    "versions",
    tables,
    Column("post_id", String(40), ForeignKey("posts.post_id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="0 is what was posted first."),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("until", Float, nullable=False),
    Index("versions_by_time", "until"),
)

links = Table(
    "links",
    tables,
    Column("child", String(40), ForeignKey("posts.post_id"), primary_key=True),
    Column("parent", String(40), primary_key=True, comment="A finding, run or snapshot that `child` is built on."),
    Index("links_by_parent", "parent"),
)

sketches = Table(
    "sketches",
    tables,
    Column("band", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("kind", String(16), nullable=False, comment="finding, reply, edit, vote, mention or built on."),
    Column("post_id", String(40), nullable=False),
    Column("thread_id", String(40), nullable=False),
    Column("by_agent", String(32), nullable=False),
    Column("to_agent", String(32), comment="Whom it concerns; null: everybody."),
    Column("at", Float, nullable=False),
    Index("events_by_agent", "to_agent", "seq"),
    Index("events_by_post", "post_id"),
    sqlite_autoincrement=True,
)
