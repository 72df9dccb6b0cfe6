"""What grew out of what: findings, runs and snapshots that findings name as `built_on`."""

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Engine, Row, bindparam, or_, select

from outlearn.database import reading
from outlearn.paging import make_cursor, read_cursor
from outlearn.results import ResultBook
from outlearn.types import Lineage, LineageEdge, LineageNode
from outlearn_forum.reads import Read
from outlearn_forum.showing import Show
from outlearn_forum.store import find_post
from outlearn_forum.tables import links, posts

CHILDREN = 25
MAX_FOUND = 60
MAX_BUILT_BY = 20
Nodes: TypeAlias = tuple[LineageNode, ...]
_RELATIVES = (
    select(links)
    .where(
        or_(
            links.c.child == bindparam("child"),
            links.c.parent == bindparam("parent"),
            links.c.parent == bindparam("run"),
        )
    )
    .limit(MAX_FOUND)
)
_NAMED = select(posts).where(posts.c.post_id.in_(bindparam("names", expanding=True))).order_by(posts.c.seq)


def relatives(read: Read, finding: Row[Any], show: Show) -> tuple[Nodes, Nodes]:
    """What a finding names as built on; and findings that name it, or the run that it reports."""
    names = _names(finding)
    rows = list(read.rows(_RELATIVES, child=names[0], parent=names[0], run=names[-1]))
    if not rows:
        return (), ()
    above = {row.parent for row in rows if row.child == finding.post_id}
    below = {row.child for row in rows} - {finding.post_id}
    found = list(read.rows(_NAMED, names=[*(above | below)]))
    up, down = ([row for row in found if row.post_id in wanted] for wanted in (above, below))
    return _nodes(up, above, show), _nodes(down, below, show)[-MAX_BUILT_BY:]


class LineageReader:
    """Reads the graph from the forum's database, the runs' numbers from `results`."""

    def __init__(self, engine: Engine, results: ResultBook) -> None:
        self._engine = engine
        self._show = Show(results)

    def of_all(self, cursor: str | None = None) -> Lineage:
        """The whole graph in pages, oldest findings first. A node may come again on a later page.

        Raises InvalidInputError where the cursor is not of this tool.
        """
        after = read_cursor(cursor, {"after": 1})[1][0] if cursor else 0
        children = select(posts.c.seq, posts.c.post_id).where(
            posts.c.post_id.in_(select(links.c.child)), posts.c.seq > after
        )
        with reading(self._engine) as connection:
            rows = connection.execute(children.order_by(posts.c.seq).limit(CHILDREN + 1)).all()
            names = [row.post_id for row in rows[:CHILDREN]]
            found = self._graph(connection, links.c.child.in_(names))
        more = make_cursor("after", rows[CHILDREN - 1].seq) if len(rows) > CHILDREN else None
        return found.model_copy(update={"next_cursor": more})

    def of(self, post_id: str) -> Lineage:
        """What a finding grew out of and what grew out of it, as far as 60 findings either way.

        Raises NotFoundError where there is no such post.
        """
        with reading(self._engine) as connection:
            start = find_post(connection, find_post(connection, post_id).thread_id).post_id
            above, below = (_walk(connection, start, up=up) for up in (True, False))
            inside = links.c.child.in_(above | below) & or_(
                links.c.child.in_(above), links.c.parent.in_(_all_names(connection, below))
            )
            found = self._graph(connection, inside)
        truncated = max(len(above), len(below)) >= MAX_FOUND
        return found.model_copy(update={"truncated": truncated})

    def _graph(self, connection: Connection, condition: ColumnElement[bool]) -> Lineage:
        rows = connection.execute(select(links).where(condition).order_by(links.c.child, links.c.parent)).all()
        names = {name for row in rows for name in (row.child, row.parent)}
        runs = select(posts.c.post_id, posts.c.run_id).where(posts.c.post_id.in_(names), posts.c.run_id.is_not(None))
        reports = [
            LineageEdge(parent=row.run_id, child=row.post_id, kind="reports") for row in connection.execute(runs)
        ]
        edges = [LineageEdge(parent=row.parent, child=row.child, kind="built on") for row in rows]
        names |= {edge.parent for edge in reports}
        nodes = _nodes(connection.execute(_NAMED, {"names": [*names]}), names, self._show)
        return Lineage(nodes=nodes, edges=(*edges, *reports))


def _walk(connection: Connection, start: str, *, up: bool) -> set[str]:
    """The findings above or below one, itself included. Who names a run names the findings that report it."""
    found, edge = {start}, {start}
    while edge and len(found) < MAX_FOUND:
        if up:
            named = set(connection.scalars(select(links.c.parent).where(links.c.child.in_(edge))))
            reporting = select(posts.c.post_id).where(posts.c.run_id.in_(named), posts.c.kind == "result")
            near = {one for one in named if one.startswith("finding-")} | set(connection.scalars(reporting))
        else:
            names = _all_names(connection, edge)
            near = set(connection.scalars(select(links.c.child).where(links.c.parent.in_(names))))
        edge = set(sorted(near - found)[: MAX_FOUND - len(found)])
        found |= edge
    return found


def _all_names(connection: Connection, finding_ids: Collection[str]) -> set[str]:
    rows = connection.execute(select(posts).where(posts.c.post_id.in_(finding_ids)))
    return {name for row in rows for name in _names(row)}


def _names(finding: Row[Any]) -> list[str]:
    """What others may name where they build on a finding: it, and the run of a result."""
    return [finding.post_id, finding.run_id] if finding.kind == "result" and finding.run_id else [finding.post_id]


def _nodes(findings: Iterable[Row[Any]], names: Collection[str], show: Show) -> Nodes:
    runs = (show.run(name) for name in sorted(names) if name.startswith("run-"))
    snapshots = (LineageNode(id=name, kind="snapshot") for name in sorted(names) if name.startswith("snap-"))
    return (*(_finding(row) for row in findings), *runs, *snapshots)


def _finding(row: Row[Any]) -> LineageNode:
    return LineageNode(id=row.post_id, kind="finding", title=row.title, agent=row.author)
