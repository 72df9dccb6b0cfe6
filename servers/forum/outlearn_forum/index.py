"""The full-text index over posts, kept up to date by the database itself: FTS5 in SQLite, `tsvector` in PostgreSQL."""

from sqlalchemy import Connection, inspect, select, update

from outlearn_forum.tables import posts
from outlearn_forum.text import facets

_NEW = (
    "INSERT INTO post_words(rowid, title, text, tags, facets) "
    "VALUES (new.seq, new.title, new.text, new.tags, new.facets)"
)
_OLD = (
    "INSERT INTO post_words(post_words, rowid, title, text, tags, facets) "
    "VALUES ('delete', old.seq, old.title, old.text, old.tags, old.facets)"
)
_SQLITE = (
    "CREATE VIRTUAL TABLE post_words USING fts5(title, text, tags, facets, content='posts', content_rowid='seq', "
    "tokenize='porter unicode61 remove_diacritics 2')",
    f"CREATE TRIGGER posts_added AFTER INSERT ON posts BEGIN {_NEW}; END",
    f"CREATE TRIGGER posts_removed AFTER DELETE ON posts BEGIN {_OLD}; END",
    f"CREATE TRIGGER posts_edited AFTER UPDATE OF title, text, tags, facets ON posts BEGIN {_OLD}; {_NEW}; END",
    "INSERT INTO post_words(post_words) VALUES ('rebuild')",
)
_SQLITE_OLD = (
    *(f"DROP TRIGGER IF EXISTS {name}" for name in ("posts_added", "posts_removed", "posts_edited")),
    "DROP TABLE IF EXISTS post_words",
)
MOST_PARTS = 4
"""FTS5 adds a part to its index at each post, and reads all of them for each word. Of ten parts made one, over 100,000
posts, in 2 s, searches took a fifth less."""
_PARTS = "SELECT count(DISTINCT segid) FROM post_words_idx"
_POSTGRESQL = (
    "ALTER TABLE posts ADD COLUMN words tsvector GENERATED ALWAYS AS ("
    "setweight(to_tsvector('english', title || ' ' || tags), 'A') || to_tsvector('english', text)) STORED",
    "CREATE INDEX posts_by_words ON posts USING gin (words)",
)


def set_up_index(connection: Connection) -> None:
    """Make the index where there is none, make it anew where an earlier version left one without facets, and put its
    parts together where they are many."""
    if connection.dialect.name == "postgresql":
        there = "words" in {column["name"] for column in inspect(connection).get_columns("posts")}
        statements: tuple[str, ...] = _POSTGRESQL
    else:
        known = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'post_words'").scalar()
        there = "facets" in (known or "")
        statements = (*_SQLITE_OLD, *_SQLITE)
    for statement in () if there else statements:
        connection.exec_driver_sql(statement)
    if connection.dialect.name != "postgresql" and connection.exec_driver_sql(_PARTS).scalar_one() > MOST_PARTS:
        connection.exec_driver_sql("INSERT INTO post_words(post_words) VALUES ('optimize')")
    if not there or connection.dialect.name == "postgresql":
        _fill_facets(connection)


def _fill_facets(connection: Connection) -> None:
    """For posts of a version that had none."""
    heads = select(posts).where(posts.c.facets.is_(None), posts.c.kind.is_not(None))
    for row in connection.execute(heads).all():
        words = facets(kind=row.kind, author=row.author, tag=row.tags.split(), task=row.task, run=row.run_id)
        thread = update(posts).where(posts.c.thread_id == row.thread_id)
        connection.execute(thread.values(facets=" ".join(words)))
