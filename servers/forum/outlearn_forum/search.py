"""Full-text search over posts: SQLite FTS5 or PostgreSQL `tsvector`, behind the same two functions.

Whatever a user types is a valid query: words and "quoted phrases", never the database's query language.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, column, func, literal, literal_column, select, table

from outlearn.errors import InvalidInputError
from outlearn_forum.tables import posts

MAX_QUERY = 500
SNIPPET_WORDS = 24
# bound the time for words that nearly every post has
NEWEST = 20_000
BEST = 1_000
_INDEX = table("post_words", column("rowid"))
_INDEX_NAME: ColumnElement[str] = literal_column("post_words")
_WORDS: ColumnElement[Any] = literal_column("posts.words")
_TITLE_TEXT_TAGS = (4.0, 1.0, 2.0)


def check_query(query: str) -> str:
    """The query. Raises InvalidInputError where it is too long or has no word in it."""
    if len(query) > MAX_QUERY:
        raise InvalidInputError(f"a query of {len(query):,} characters is too long; the limit is {MAX_QUERY}")
    if "\0" in query or not re.search(r"\w", query):
        raise InvalidInputError(f"query {query!r} has no word to search for; `list_threads` shows all findings")
    return query


def hits(dialect: str, query: str, *, any_word: bool) -> Select[Any]:
    """Posts that have all words of the query, or any of them: columns `seq` and `rank` (lower is better).

    Where more than `NEWEST` posts match, the newest of them.
    """
    if dialect == "postgresql":
        words = _tsquery(query, any_word)
        worse = -func.ts_rank(_WORDS, words)
        columns = select(posts.c.seq, worse.label("rank")).where(_WORDS.op("@@")(words))
        return columns.order_by(posts.c.seq.desc()).limit(NEWEST)
    rank = func.bm25(_INDEX_NAME, *_TITLE_TEXT_TAGS)
    columns = select(_INDEX.c.rowid.label("seq"), rank.label("rank")).where(_matches(query, any_word))
    return columns.order_by(_INDEX.c.rowid.desc()).limit(NEWEST)


def snippets(dialect: str, query: str, seqs: Sequence[int], *, any_word: bool) -> Select[Any]:
    """Where these posts match: columns `seq` and `snippet`, with the words between `**`."""
    if dialect == "postgresql":
        options = f"MaxWords={SNIPPET_WORDS},MinWords={SNIPPET_WORDS // 2},StartSel=**,StopSel=**"
        shown = posts.c.title + literal("\n") + posts.c.text
        snippet = func.ts_headline("english", shown, _tsquery(query, any_word), options)
        return select(posts.c.seq, snippet.label("snippet")).where(posts.c.seq.in_(seqs))
    snippet = func.snippet(_INDEX_NAME, -1, "**", "**", "…", SNIPPET_WORDS)
    columns = select(_INDEX.c.rowid.label("seq"), snippet.label("snippet"))
    return columns.where(_matches(query, any_word), _INDEX.c.rowid.in_(seqs))


def _matches(query: str, any_word: bool) -> ColumnElement[bool]:
    return _INDEX_NAME.bool_op("MATCH")(fts5_query(query, any_word=any_word))


def _tsquery(query: str, any_word: bool) -> ColumnElement[Any]:
    # a leading "-" would mean "without"
    text = " or ".join(re.findall(r"\w+", query)) if any_word else query.replace("-", " ")
    return func.websearch_to_tsquery("english", text)


def fts5_query(query: str, *, any_word: bool) -> str:
    """The query as FTS5 strings: each word or phrase in quotes, so that nothing in it is syntax."""
    phrases = [phrase or word for phrase, word in re.findall(r'"([^"]+)"|(\S+)', query)]
    phrases = re.findall(r"\w+", query) if any_word else [phrase for phrase in phrases if re.search(r"\w", phrase)]
    return (" OR " if any_word else " ").join('"' + phrase.replace('"', '""') + '"' for phrase in phrases)
