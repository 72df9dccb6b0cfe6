"""The answers to agents' last requests, so that a request that is repeated because its answer was lost happens once."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import Boolean, Column, Engine, Integer, String, Table, Text, UniqueConstraint, select

from outlearn.database import reading, writing
from outlearn.errors import ConflictError
from outlearn.locks import locked
from outlearn.requests import MAX_REQUEST_ID, check_request_id
from outlearn_filesystem.snapshots import tables

KEPT = 200
Answer = TypeVar("Answer", bound=BaseModel)
requests = Table(
    "requests",
    tables,
    Column("seq", Integer, primary_key=True),
    Column("agent", String(32), nullable=False),
    Column("request_id", String(MAX_REQUEST_ID), nullable=False),
    Column("arguments_sha256", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    Column("is_done", Boolean, nullable=False, comment="False: it was about to take effect."),
    UniqueConstraint("agent", "request_id"),
    sqlite_autoincrement=True,
)


class RequestBook:
    """Requests of all agents, in the database of `engine`. `locks` is a folder."""

    def __init__(self, engine: Engine, locks: Path) -> None:
        self._engine = engine
        self._locks = locks

    def once(
        self,
        agent: str,
        request_id: str | None,
        arguments: Sequence[Any],
        act: Callable[[Callable[[Answer], None]], Answer],
        *,
        answer: type[Answer],
        has_happened: Callable[[Answer], bool] = lambda _: False,
    ) -> Answer:
        """Act, unless this request was answered before: then give that answer. An error is no answer.

        Args:
            arguments: what is asked for; the same `request_id` with others is refused.
            act: does it. It may announce its answer right before it takes effect, for the case that the process dies
                between that and the end.
            has_happened: whether an announced answer came true.

        Raises:
            ConflictError: `request_id` was used for something else.
            InvalidInputError: it is no request id.
        """
        if request_id is None:
            return act(lambda _: None)
        digest = hashlib.sha256(json.dumps(arguments).encode(errors="replace")).hexdigest()
        with locked(self._locks / f"{agent}.requests"):
            known = self._find(agent, check_request_id(request_id))
            if known is not None and known.arguments_sha256 != digest:
                raise ConflictError(f"request_id {request_id!r} was used for another call; use a new one")
            if known is not None:
                told = answer.model_validate_json(known.answer)
                if known.is_done or has_happened(told):
                    return told
            made = act(lambda coming: self._keep(agent, request_id, digest, coming, is_done=False))
            self._keep(agent, request_id, digest, made, is_done=True)
            return made

    def _find(self, agent: str, request_id: str) -> Any:
        query = select(requests).where(requests.c.agent == agent, requests.c.request_id == request_id)
        with reading(self._engine) as connection:
            return connection.execute(query).one_or_none()

    def _keep(self, agent: str, request_id: str, digest: str, answer: BaseModel, *, is_done: bool) -> None:
        values = {"agent": agent, "request_id": request_id, "arguments_sha256": digest, "is_done": is_done}
        mine = requests.c.agent == agent
        with writing(self._engine) as connection:
            connection.execute(requests.delete().where(mine, requests.c.request_id == request_id))
            connection.execute(requests.insert().values(values | {"answer": answer.model_dump_json()}))
            newest = select(requests.c.seq).where(mine).order_by(requests.c.seq.desc()).limit(KEPT)
            connection.execute(requests.delete().where(mine, requests.c.seq.not_in(newest)))
