"""What grew out of what: findings, runs and snapshots that findings name as `built_on`."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Row, bindparam, or_, select

from outlearn.paging import make_cursor, read_cursor
from outlearn.results import ResultBook
from outlearn.transactions import Transaction, Transactions
from outlearn.types import Lineage, LineageEdge, LineageNode
from outlearn_forum.showing import Show
from outlearn_forum.store import BY_IDS, read_post
from outlearn_forum.tables import links, posts

CHILDREN = 25
MAX_FOUND = 60
MAX_BUILT_BY = 20
Nodes: TypeAlias = tuple[LineageNode, ...]
_RELATIVES = (
    select(links)
    .join(posts, posts.c.post_id == links.c.child)
    .where(
        or_(
            links.c.child == bindparam("child"),
            links.c.parent == bindparam("parent"),
            links.c.parent == bindparam("run"),
        )
    )
    .order_by((links.c.child == bindparam("child")).desc(), posts.c.seq.desc())
    .limit(MAX_FOUND)
)
_CHILDREN = (
    select(posts.c.seq, posts.c.post_id)
    .where(posts.c.post_id.in_(select(links.c.child)), posts.c.seq > bindparam("after"))
    .order_by(posts.c.seq)
    .limit(CHILDREN + 1)
)
_TO_CHILDREN = (
    select(links).where(links.c.child.in_(bindparam("names", expanding=True))).order_by(links.c.child, links.c.parent)
)
_FROM_PARENTS = select(links).where(links.c.parent.in_(bindparam("names", expanding=True)))
_REPORTING = select(posts.c.post_id).where(
    posts.c.run_id.in_(bindparam("names", expanding=True)), posts.c.kind == "result"
)


def relatives(read: Transaction, finding: Row[Any], show: Show) -> tuple[Nodes, Nodes]:
    """What a finding names as built on; and the newest findings that name it, or the run that it reports."""
    names = _names(finding)
    rows = list(read.rows(_RELATIVES, child=names[0], parent=names[0], run=names[-1]))
    if not rows:
        return (), ()
    above = {row.parent for row in rows if row.child == finding.post_id}
    below = {row.child for row in rows} - {finding.post_id}
    found = list(read.rows(BY_IDS, ids=[*(above | below)]))
    up, down = ([row for row in found if row.post_id in wanted] for wanted in (above, below))
    return _nodes(up, above, show), _nodes(down, below, show)[-MAX_BUILT_BY:]


class LineageReader:
    """Reads the graph from the forum's database, the runs' numbers from `results`."""

    def __init__(self, transactions: Transactions, results: ResultBook) -> None:
        self._transactions = transactions
        self._show = Show(results)

    def of_all(self, cursor: str | None = None) -> Lineage:
        """The whole graph in pages, oldest findings first. A node may come again on a later page.

        Raises InvalidInputError where the cursor is not of this tool.
        """
        after = read_cursor(cursor, {"after": 1})[1][0] if cursor else 0
        with self._transactions.reading() as read:
            rows = list(read.rows(_CHILDREN, after=after))
            found = self._graph(read, list(read.rows(_TO_CHILDREN, names=[row.post_id for row in rows[:CHILDREN]])))
        more = make_cursor("after", rows[CHILDREN - 1].seq) if len(rows) > CHILDREN else None
        return found.model_copy(update={"next_cursor": more})

    def of(self, post_id: str) -> Lineage:
        """What a finding grew out of and what grew out of it, as far as 60 findings either way.

        Raises NotFoundError where there is no such post.
        """
        with self._transactions.reading() as read:
            start = read_post(read, post_id).thread_id
            above, below = (_walk(read, start, up=up) for up in (True, False))
            edges = read.rows(_TO_CHILDREN, names=[*(above | below)])
            named = _all_names(read, below)
            found = self._graph(read, [row for row in edges if row.child in above or row.parent in named])
        truncated = max(len(above), len(below)) >= MAX_FOUND
        return found.model_copy(update={"truncated": truncated})

    def _graph(self, read: Transaction, rows: Sequence[Row[Any]]) -> Lineage:
        """The graph with these edges, and with the runs that findings in it report."""
        names = {name for row in rows for name in (row.child, row.parent)}
        findings = list(read.rows(BY_IDS, ids=[*names]))
        reports = [LineageEdge(parent=row.run_id, child=row.post_id, kind="reports") for row in findings if row.run_id]
        edges = [LineageEdge(parent=row.parent, child=row.child, kind="built on") for row in rows]
        nodes = _nodes(findings, names | {edge.parent for edge in reports}, self._show)
        return Lineage(nodes=nodes, edges=(*edges, *reports))


def _walk(read: Transaction, start: str, *, up: bool) -> set[str]:
    """The findings above or below one, itself included. Who names a run names the findings that report it."""
    found, edge = {start}, {start}
    while edge and len(found) < MAX_FOUND:
        if up:
            named = [*{row.parent for row in read.rows(_TO_CHILDREN, names=[*edge])}]
            reporting = {row.post_id for row in read.rows(_REPORTING, names=named)}
            near = {one for one in named if one.startswith("finding-")} | reporting
        else:
            near = {row.child for row in read.rows(_FROM_PARENTS, names=[*_all_names(read, edge)])}
        edge = set(sorted(near - found)[: MAX_FOUND - len(found)])
        found |= edge
    return found


def _all_names(read: Transaction, finding_ids: Collection[str]) -> set[str]:
    return {name for row in read.rows(BY_IDS, ids=[*finding_ids]) for name in _names(row)}


def _names(finding: Row[Any]) -> list[str]:
    """What others may name where they build on a finding: it, and the run of a result."""
    return [finding.post_id, finding.run_id] if finding.kind == "result" and finding.run_id else [finding.post_id]


def _nodes(findings: Iterable[Row[Any]], names: Collection[str], show: Show) -> Nodes:
    runs = (show.run(name) for name in sorted(names) if name.startswith("run-"))
    snapshots = (LineageNode(id=name, kind="snapshot") for name in sorted(names) if name.startswith("snap-"))
    return (*(_finding(row) for row in findings), *runs, *snapshots)


def _finding(row: Row[Any]) -> LineageNode:
    return LineageNode(id=row.post_id, kind="finding", title=row.title, agent=row.author)
