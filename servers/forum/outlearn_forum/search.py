"""Full-text search over posts: SQLite FTS5 or PostgreSQL `tsvector`, behind the same two functions.

Whatever a user types is a valid query: words and "quoted phrases", never the database's query language.
"""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, column, func, literal, literal_column, select, text

from outlearn.errors import InvalidInputError
from outlearn_forum.tables import posts

MAX_QUERY = 500
SNIPPET_WORDS = 24
COMMON = 4_000
"""bm25 reads all that the index has on a word, so words of more posts than this, which say little, are not ranked."""
BEST = 1_000
_WORDS: ColumnElement[Any] = literal_column("posts.words")
_PHRASES = re.compile(r'"([^"]+)"|(\S+)')
_RANKED = text(
    "SELECT rowid FROM post_words WHERE post_words MATCH :ranked"
    " AND (:whole = '' OR +rowid IN (SELECT rowid FROM post_words WHERE post_words MATCH :whole))"
    " ORDER BY bm25(post_words, 4.0, 1.0, 2.0, 0.0), rowid DESC LIMIT :best"
)
_NEWEST = text("SELECT rowid FROM post_words WHERE post_words MATCH :whole ORDER BY rowid DESC LIMIT :best")
_IN_TITLE = text("SELECT rowid FROM post_words WHERE post_words MATCH :in_title AND rowid >= :oldest")
_IS_COMMON = text("SELECT 1 FROM post_words WHERE post_words MATCH :phrase LIMIT 1 OFFSET :common")
_HAVING = text("SELECT rowid FROM post_words WHERE post_words MATCH :phrase LIMIT :most")


def check_query(query: str) -> str:
    """The query. Raises InvalidInputError where it is too long or has no word in it."""
    if len(query) > MAX_QUERY:
        raise InvalidInputError(f"a query of {len(query):,} characters is too long; the limit is {MAX_QUERY}")
    if "\0" in query or not re.search(r"\w", query):
        raise InvalidInputError(f"query {query!r} has no word to search for; `list_threads` shows all findings")
    return query


def hits(connection: Connection, query: str, facets: Sequence[str], *, any_word: bool) -> Sequence[int]:
    """The 1,000 best posts that have all words of the query, or any of them, best first.

    `facets` are what their threads must have. Words that are in more than `COMMON` posts do not count for the order;
    where all are, it is the newest posts, those first that have them in the title.
    """
    if connection.dialect.name == "postgresql":
        return _postgresql_hits(connection, query, facets, any_word)
    phrases = _phrases(query, any_word)
    rare = [one for one in phrases if not _is_common(connection, one)]
    if any_word:
        phrases = rare or phrases
    words = _expression(phrases, any_word)
    only = "".join(f' AND facets : "{one}"' for one in facets)
    if rare:
        whole = f"({words}){only}" if only or len(rare) < len(phrases) else ""
        values = {"ranked": _expression(rare, any_word), "whole": whole, "best": BEST}
        return connection.scalars(_RANKED, values).all()
    newest = connection.scalars(_NEWEST, {"whole": f"({words}){only}", "best": BEST}).all()
    in_title = {"in_title": f"({{title tags}} : ({words})){only}", "oldest": min(newest, default=0)}
    titled = set(connection.scalars(_IN_TITLE, in_title)) if newest else set()
    return sorted(newest, key=lambda seq: (seq not in titled, -seq))


def few_having(connection: Connection, facets: Sequence[str], most: int) -> Sequence[int] | None:
    """The posts of threads that have all of `facets`, or None where they are more than `most`, or nobody can tell."""
    if connection.dialect.name == "postgresql" or not facets:
        return None
    phrase = " AND ".join(f'facets : "{one}"' for one in facets)
    found = connection.scalars(_HAVING, {"phrase": phrase, "most": most + 1}).all()
    return found if len(found) <= most else None


def snippets(connection: Connection, query: str, seqs: Sequence[int], *, any_word: bool) -> dict[int, str]:
    """Where these posts match, with the words between `**`, by their `seq`."""
    if connection.dialect.name == "postgresql":
        options = f"MaxWords={SNIPPET_WORDS},MinWords={SNIPPET_WORDS // 2},StartSel=**,StopSel=**"
        shown = posts.c.title + literal("\n") + posts.c.text
        snippet = func.ts_headline("english", shown, _tsquery(query, any_word), options)
        found = select(posts.c.seq, snippet.label("snippet")).where(posts.c.seq.in_(seqs))
    else:
        name: ColumnElement[Any] = literal_column("post_words")
        snippet = func.snippet(name, -1, "**", "**", "…", SNIPPET_WORDS)
        rowid: ColumnElement[int] = column("rowid")
        matches = name.bool_op("MATCH")(_expression(_phrases(query, any_word), any_word))
        columns = select(rowid.label("seq"), snippet.label("snippet")).select_from(text("post_words"))
        found = columns.where(matches, rowid.in_(seqs))
    return {row.seq: row.snippet for row in connection.execute(found)}


def _is_common(connection: Connection, phrase: str) -> bool:
    """Whether each word of a phrase is in many posts; a phrase is in no more of them than its rarest word."""
    words = re.findall(r"\w+", phrase)
    values = ({"phrase": _expression([word], False), "common": COMMON} for word in words)
    return all(connection.scalar(_IS_COMMON, one) for one in values)


def _phrases(query: str, any_word: bool) -> list[str]:
    found = re.findall(r"\w+", query) if any_word else [phrase or word for phrase, word in _PHRASES.findall(query)]
    return list(dict.fromkeys(one for one in found if re.search(r"\w", one)))


def _expression(phrases: Sequence[str], any_word: bool) -> str:
    """The phrases as FTS5 strings: each in quotes, so that nothing in it is syntax."""
    return (" OR " if any_word else " AND ").join('"' + one.replace('"', '""') + '"' for one in phrases)


def _postgresql_hits(connection: Connection, query: str, facets: Sequence[str], any_word: bool) -> Sequence[int]:
    words = _tsquery(query, any_word)
    having = (posts.c.facets.contains(one) for one in facets)
    matching = select(posts.c.seq, func.ts_rank(_WORDS, words).label("place")).where(_WORDS.op("@@")(words), *having)
    hit = matching.order_by(posts.c.seq.desc()).limit(20 * BEST).subquery("hit")
    return connection.scalars(select(hit.c.seq).order_by(hit.c.place.desc(), hit.c.seq.desc()).limit(BEST)).all()


def _tsquery(query: str, any_word: bool) -> Any:
    # a leading "-" would mean "without"
    plain = " or ".join(re.findall(r"\w+", query)) if any_word else query.replace("-", " ")
    return func.websearch_to_tsquery("english", plain)
