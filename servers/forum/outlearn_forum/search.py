"""Full-text search over posts: SQLite FTS5 or PostgreSQL `tsvector`, behind the same two functions.

Whatever a user types is a valid query: words and "quoted phrases", never the database's query language.
"""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Executable, bindparam, func, literal_column, select, text

from outlearn.errors import InvalidInputError
from outlearn.transactions import Transaction
from outlearn_forum.tables import posts

MAX_QUERY, MAX_WORDS = 500, 32
"""Characters and words: to look for a phrase of 240 words in 300 posts that are one word again and again took 12 s."""
WORDS_BEFORE, WORDS_AFTER = 8, 16
PLACES, REACH = 20, 200
"""So many marked places are compared for a snippet, each by so many characters from it on."""
COMMON = 4_000
"""bm25 reads all that the index has on a word, so words of more posts than this, which say little, are not ranked."""
BEST = 1_000
SOON = 64
"""So many of the best are sorted first: a page seldom needs more."""
NEAR = 1_000
"""Titles of so many posts are looked through first, then those of as many again: a page may be full by then."""
RECENT = 4_000
RECENT_FOR_PHRASES = 20_000
"""To look through 100,000 posts for a phrase that none has takes 15 ms, through these 2 ms."""
MAX_KNOWN = 1_000
Hits: TypeAlias = Generator[tuple[int, str], None, None]
_WORDS: ColumnElement[Any] = literal_column("posts.words")
_WORD = re.compile(r"\w+")
_PHRASES = re.compile(r'"([^"]+)"|(\S+)')
# CROSS JOIN keeps the order of what is on its left, so that no more rows are made than are taken
_RANKED = text(
    "SELECT posts.seq, posts.thread_id FROM (SELECT rowid FROM post_words WHERE post_words MATCH :ranked"
    " AND (:whole = '' OR +rowid IN (SELECT rowid FROM post_words WHERE post_words MATCH :whole))"
    " ORDER BY bm25(post_words, 4.0, 1.0, 2.0, 0.0), rowid DESC LIMIT :best OFFSET :before) AS best"
    " CROSS JOIN posts ON posts.seq = best.rowid"
)
_NEWEST = text(
    "SELECT posts.seq, posts.thread_id FROM post_words CROSS JOIN posts ON posts.seq = post_words.rowid"
    " WHERE post_words MATCH :words ORDER BY post_words.rowid DESC LIMIT :best"
)
# +rowid: sorted afterwards, as FTS5 heeds a lower bound only where it walks upwards
_IN_TITLE = text(
    "SELECT posts.seq, posts.thread_id FROM (SELECT rowid FROM post_words WHERE post_words MATCH :words"
    " AND rowid > (SELECT max(seq) FROM posts) - :oldest AND rowid <= (SELECT max(seq) FROM posts) - :newest"
    " ORDER BY +rowid DESC LIMIT :best) AS titled CROSS JOIN posts ON posts.seq = titled.rowid"
)
_ANY = text(
    "SELECT 1 FROM post_words WHERE post_words MATCH :words AND rowid > (SELECT max(seq) FROM posts) - :recent LIMIT 1"
)
_HOW_MANY = text(
    "SELECT value, (SELECT 1 FROM post_words WHERE post_words MATCH value LIMIT 1 OFFSET :common) IS NOT NULL,"
    " (SELECT 1 FROM post_words WHERE post_words MATCH value LIMIT 1) IS NULL FROM json_each(:words)"
)
_MARK = "\x02"  # not in any post
_MARKED = re.compile(f"{_MARK}([^{_MARK}]+){_MARK}")
_HAVING = text("SELECT rowid FROM post_words WHERE post_words MATCH :phrase LIMIT :most")
# not FTS5's `snippet`: for a text of 10,000 words that are all looked for it takes a second
_HIGHLIGHTS = ", ".join(f"highlight(post_words, {column}, :mark, :mark)" for column in (1, 0, 2))
_SHOWN_COLUMNS = (posts.c.text, posts.c.title, posts.c.tags)
_SNIPPETS = text(
    f"SELECT rowid, {_HIGHLIGHTS} FROM post_words"  # noqa: S608
    " WHERE post_words MATCH :words AND rowid IN (SELECT value FROM json_each(:seqs))"
)
_SNIPPETS_WALKED = text(
    f"SELECT rowid, {_HIGHLIGHTS} FROM post_words WHERE post_words MATCH :words"  # noqa: S608
    " AND rowid BETWEEN :first AND :last AND +rowid IN (SELECT value FROM json_each(:seqs))"
)


@dataclass(frozen=True)
class Words:
    """A query of which posts have all or, with `any_word`, one word; its words that many posts have, and that none."""

    query: str
    common: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    any_word: bool = False

    @cached_property
    def phrases(self) -> list[str]:
        """The words and phrases to look for. With `any_word`, common words only where there are no others."""
        if self.any_word:
            words = list(dict.fromkeys(_WORD.findall(self.query)))
            return [one for one in words if one not in self.common | self.absent] or words
        found = (phrase or word for phrase, word in _PHRASES.findall(self.query))
        return list(dict.fromkeys(one for one in found if _WORD.search(one)))

    @cached_property
    def rare(self) -> list[str]:
        """Those that few posts have; a phrase is in no more of them than its rarest word."""
        common = self.common | self.absent if self.any_word else self.common
        return [one for one in self.phrases if not common.issuperset(_WORD.findall(one))]

    def __str__(self) -> str:
        return self.match(self.phrases)

    def match(self, phrases: Sequence[str]) -> str:
        """Phrases as FTS5 strings: each in quotes, so that nothing in it is syntax."""
        return (" OR " if self.any_word else " AND ").join('"' + one.replace('"', '""') + '"' for one in phrases)


class CommonWords:
    """Knows which words are in more than `COMMON` posts. Such a word stays one, as posts are not deleted."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    def look_up(self, read: Transaction, query: str) -> Words:
        """The query as it is looked for."""
        words = set(_WORD.findall(query))
        asked = words - self._known if not read.postgresql else ()
        if not asked:
            return Words(query, self._known & words)
        values = {"words": json.dumps([f'"{one}"' for one in asked]), "common": COMMON}
        rows = [(word.strip('"'), common, absent) for word, common, absent in read.rows(_HOW_MANY, **values)]
        found = self._known & words | {word for word, common, _ in rows if common}
        self._known = (self._known if len(self._known) < MAX_KNOWN else frozenset()) | found
        return Words(query, found, frozenset(word for word, _, absent in rows if absent))


def check_query(query: str) -> str:
    """The query. Raises InvalidInputError where it is too long or has no word in it."""
    if len(query) > MAX_QUERY:
        raise InvalidInputError(f"a query of {len(query):,} characters is too long; the limit is {MAX_QUERY}")
    if (words := len(_WORD.findall(query))) > MAX_WORDS:
        raise InvalidInputError(f"a query of {words} words is too long; the limit is {MAX_WORDS}")
    if "\0" in query or not _WORD.search(query):
        raise InvalidInputError(f"query {query!r} has no word to search for; `list_threads` shows all findings")
    return query


def hits(read: Transaction, words: Words, facets: Sequence[str]) -> Hits:
    """The numbers of the 1,000 best posts and their threads' ids, best first, found as they are taken.

    `facets` are what their threads must have. Words that are in more than `COMMON` posts do not count for the order;
    where all are, the newest posts come first, before them those of the newest 4,000 that have them in the title (of
    the newest 20,000 where there are quotes in the query). A phrase of such words that none of the newest 20,000 posts
    has counts as not found.
    """
    if read.postgresql:
        yield from _take(read, _postgresql_hits(words, facets))
        return
    only = _within(facets)
    if words.rare:
        whole = f"({words}){only}" if only or len(words.rare) < len(words.phrases) else ""
        yield from _ranked(read, words.match(words.rare), whole)
        return
    found, phrase = f"({words}){only}", '"' in words.query
    if phrase and not any(read.rows(_ANY, words=found, recent=RECENT_FOR_PHRASES)):
        return  # a phrase of common words is looked for in nearly all posts, which takes twice as long from the end
    titled, recent = set(), RECENT_FOR_PHRASES if phrase else RECENT
    for newest, oldest in _windows(recent):
        for hit in _take(read, _IN_TITLE, words=f"{{title tags}} : ({words}){only}", newest=newest, oldest=oldest):
            titled.add(hit)
            yield hit
    yield from (hit for hit in _take(read, _NEWEST, words=found) if hit not in titled)


def few_having(read: Transaction, facets: Sequence[str], most: int) -> list[int] | None:
    """The posts of threads that have all of `facets`, or None where they are more than `most`, or nobody can tell."""
    if read.postgresql or not facets:
        return None
    phrase = " AND ".join(f'facets : "{one}"' for one in facets)
    found = [seq for (seq,) in read.rows(_HAVING, phrase=phrase, most=most + 1)]
    return found if len(found) <= most else None


def snippets(read: Transaction, words: Words, facets: Sequence[str], seqs: Sequence[int]) -> dict[int, str]:
    """Where these hits match, with the words between `**`, by their `seq`: those that count for the order, if any."""
    if read.postgresql:
        # all of it: to choose a part, as it can, takes minutes for a text of one word and a long phrase
        options = f'HighlightAll=true,StartSel="{_MARK}",StopSel="{_MARK}"'
        marked = (func.ts_headline("english", column, _tsquery(words), options) for column in _SHOWN_COLUMNS)
        return _snippets(read.rows(select(posts.c.seq, *marked).where(posts.c.seq.in_(seqs))))
    first, last = min(seqs, default=0), max(seqs, default=0)
    found = words.match(words.rare) if words.rare else f"({words}){_within(facets)}"
    # the index looks each post up by itself: to walk is faster but for a phrase of common words
    walk = words.rare or '"' not in words.query or last - first < RECENT
    values = {"words": found, "seqs": json.dumps(list(seqs)), "first": first, "last": last}
    statement = _SNIPPETS_WALKED if walk else _SNIPPETS
    return _snippets(read.rows(statement, **values, mark=_MARK))


def _snippets(rows: Iterable[Sequence[Any]]) -> dict[int, str]:
    """By the first value of each row: of the others the first one that has a mark."""
    marked = ((seq, next((one for one in by_column if _MARK in one), "")) for seq, *by_column in rows)
    return {seq: _around(one).replace(_MARK, "**") for seq, one in marked if one}


def _around(marked: str) -> str:
    """Some words around the place, of the first ones, behind which most different words are marked."""
    places = [found.start() for found in islice(_MARKED.finditer(marked), PLACES)]
    best = max(places, key=lambda at: len({one.lower() for one in _MARKED.findall(marked, at, at + REACH)}))
    start, end = max(0, best - REACH), min(len(marked), best + REACH)
    before = marked[start:best].rsplit(None, WORDS_BEFORE)
    start += len(before[0]) if len(before) > WORDS_BEFORE else 0
    after = marked[best:end].split(None, WORDS_AFTER)
    end -= len(after[-1]) if len(after) > WORDS_AFTER else 0
    opened, left_open = (_MARK * (marked.count(_MARK, 0, at) % 2) for at in (start, end))  # where a phrase is cut
    shown = opened + " ".join(marked[start:end].split()) + left_open
    return f"{'…' if start else ''}{shown}{'…' if end < len(marked) else ''}"


def _ranked(read: Transaction, ranked: str, whole: str) -> Hits:
    for before, best in ((0, SOON), (SOON, BEST - SOON)):
        found = 0
        for hit in read.rows(_RANKED, ranked=ranked, whole=whole, before=before, best=best):
            found += 1
            yield hit
        if found < best:
            return


def _windows(recent: int) -> Iterator[tuple[int, int]]:
    """The newest `recent` posts in parts, each as large as all before it: from which on, and up to which."""
    edge = min(NEAR, recent)
    yield 0, edge
    while edge < recent:
        yield edge, (edge := min(2 * edge, recent))


def _within(facets: Sequence[str]) -> str:
    """What narrows a query of FTS5's to threads that have all of `facets`."""
    return "".join(f' AND facets : "{one}"' for one in facets)


def _take(read: Transaction, statement: Executable, **values: Any) -> Hits:
    yield from read.rows(statement, **values, best=BEST)


def _postgresql_hits(words: Words, facets: Sequence[str]) -> Executable:
    query, having = _tsquery(words), (posts.c.facets.contains(one) for one in facets)
    place = func.ts_rank(_WORDS, query).label("place")
    matching = select(posts.c.seq, posts.c.thread_id, place).where(_WORDS.op("@@")(query), *having)
    hit = matching.order_by(posts.c.seq.desc()).limit(20 * BEST).subquery("hit")
    ranked = select(hit.c.seq, hit.c.thread_id).order_by(hit.c.place.desc(), hit.c.seq.desc())
    return ranked.limit(bindparam("best"))


def _tsquery(words: Words) -> Any:
    # a leading "-" would mean "without"
    plain = " or ".join(words.phrases) if words.any_word else words.query.replace("-", " ")
    return func.websearch_to_tsquery("english", plain)
