"""The forum's tables, with a full-text index that the database itself keeps up to date.

`posts` holds findings and replies; `seq` orders them all. A finding also counts its replies and remembers the newest
post of its thread, so that lists need no aggregates.
"""

from sqlalchemy import (
    DDL,
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
    event,
)

tables = MetaData()

posts = Table(
    "posts",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("post_id", String(40), nullable=False, unique=True),
    Column("thread_id", String(40), nullable=False, comment="The finding's post_id; a finding has its own."),
    Column("author", String(32), nullable=False),
    Column("kind", String(16), comment="Null for a reply."),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("tags", Text, nullable=False, comment="Separated by spaces."),
    Column("run_id", String(40)),
    Column("posted_at", Float, nullable=False, comment="Unix time in seconds."),
    Column("request_id", String(100)),
    Column("score", Integer, nullable=False, default=0, comment="Sum of its votes."),
    Column("replies", Integer, nullable=False, default=0),
    Column("last_seq", Integer, nullable=False, comment="The newest post of a finding's thread; 0 for a reply."),
    UniqueConstraint("author", "request_id"),
    Index("posts_by_thread", "thread_id", "seq"),
    Index("posts_by_activity", "last_seq"),
    Index("posts_by_kind", "kind", "last_seq"),
    Index("posts_by_author", "author", "last_seq"),
    Index("posts_by_score", "score", "seq"),
    sqlite_autoincrement=True,
)

votes = Table(
    "votes",
    tables,
    Column("post_id", String(40), ForeignKey("posts.post_id"), primary_key=True),
    Column("agent", String(32), primary_key=True),
    Column("value", Integer, CheckConstraint("value in (-1, 1)"), nullable=False),
)

_SQLITE_INDEX = (
    "CREATE VIRTUAL TABLE post_words USING fts5(title, text, tags, content='posts', content_rowid='seq', "
    "tokenize='porter unicode61 remove_diacritics 2')",
    "CREATE TRIGGER posts_added AFTER INSERT ON posts BEGIN "
    "INSERT INTO post_words(rowid, title, text, tags) VALUES (new.seq, new.title, new.text, new.tags); END",
    "CREATE TRIGGER posts_removed AFTER DELETE ON posts BEGIN "
    "INSERT INTO post_words(post_words, rowid, title, text, tags) "
    "VALUES ('delete', old.seq, old.title, old.text, old.tags); END",
    "CREATE TRIGGER posts_edited AFTER UPDATE OF title, text, tags ON posts BEGIN "
    "INSERT INTO post_words(post_words, rowid, title, text, tags) "
    "VALUES ('delete', old.seq, old.title, old.text, old.tags); "
    "INSERT INTO post_words(rowid, title, text, tags) VALUES (new.seq, new.title, new.text, new.tags); END",
)

_POSTGRESQL_INDEX = (
    "ALTER TABLE posts ADD COLUMN words tsvector GENERATED ALWAYS AS ("
    "setweight(to_tsvector('english', title || ' ' || tags), 'A') || to_tsvector('english', text)) STORED",
    "CREATE INDEX posts_by_words ON posts USING gin (words)",
)

for _dialect, _statements in (("sqlite", _SQLITE_INDEX), ("postgresql", _POSTGRESQL_INDEX)):
    for _statement in _statements:
        event.listen(posts, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]
