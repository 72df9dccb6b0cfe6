"""Families of methods: a registered method is one; files that use the same parts of the lab are of one, whatever they
are called."""

import ast
import math
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from outlearn.artifacts import LocalArtifactStore
from outlearn.database import as_utc, open_database, reading
from outlearn.errors import NotFoundError
from outlearn_agents.run_folder import RunFolder
from outlearn_training.queue.tables import metadata, runs
from outlearn_training.settings import TrainingSettings

SOURCES = {"zero_shot": "zero-shot", "embed": "embeddings", "generate": "generation"}
FITTED = {
    "weights": "weights",
    "loss": "loss",
    "items": "subset",
    "init": "continued",
    "epochs": "length",
    "lr": "rate",
}
PLAIN = "plain"


class Submitted(BaseModel):
    """A run with the source of its method."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    agent: str
    method: str
    kind: str
    status: str
    submitted_at: datetime
    source: str
    params: dict[str, Any] = Field(default_factory=dict)

    @property
    def family(self) -> str:
        """The family of its method."""
        return family_of(self.source) if self.method.endswith(".py") else self.method


def syntax_of(source: str) -> ast.Module:
    """A method as a syntax tree: what parsed when it was submitted does so here, too.

    How deep a program may nest depends, in Python 3.11, on the depth of the calls that parse it; a new thread has few.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(ast.parse, source).result()


def family_of(source: str) -> str:
    """What a method uses beside the teacher's labels, such as `subset+zero-shot`; `plain` where that is nothing."""
    nodes = list(ast.walk(syntax_of(source)))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    names = [node.func.attr for node in calls if isinstance(node.func, ast.Attribute)]
    used = {label for name, label in SOURCES.items() if name in names}
    fits = [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "fit"]
    used |= {FITTED[word.arg] for fit in fits for word in fit.keywords if word.arg in FITTED}
    if len(fits) > 1 or any(isinstance(node, ast.For | ast.While | ast.ListComp) and _fits(node) for node in nodes):
        used.add("rounds")
    if "weak_labels" not in names:
        used.add("no labels")
    return "+".join(sorted(used)) or PLAIN


def submitted_runs(folder: RunFolder, last: int | None = None) -> list[Submitted]:
    """All runs of a folder, or the last ones, with their sources, oldest first; without those whose source is gone."""
    engine = open_database(TrainingSettings(home=folder.root).database("training"), metadata)
    store = LocalArtifactStore(folder.root / "artifacts")
    found: list[Submitted] = []
    with reading(engine) as connection:
        rows = connection.execute(select(runs).order_by(runs.c.number.desc()).limit(last)).all()
        for row in reversed(rows):
            try:
                source = store.get(row.source_sha256).decode(errors="replace")
            except NotFoundError:
                continue
            fields = {
                name: getattr(row, name) for name in Submitted.model_fields if name not in ("source", "submitted_at")
            }
            found.append(Submitted(**fields, source=source, submitted_at=as_utc(row.submitted_at)))
    engine.dispose()
    return found


def effective_number(names: Iterable[str]) -> float:
    """How many families there are, counting rare ones for less: `exp(-sum p log p)`; 0 where there is none.

    Source: Jost, "Entropy and diversity", Oikos 113 (2006).
    """
    counts = Counter(names)
    total = sum(counts.values())
    return math.exp(-sum(n / total * math.log(n / total) for n in counts.values())) if total else 0.0


def _fits(node: ast.AST) -> bool:
    return any(isinstance(one, ast.Attribute) and one.attr == "fit" for one in ast.walk(node))
