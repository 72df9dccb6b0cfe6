"""Attempts to leave a workspace, for the audit log."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from outlearn.audit import AuditKind, AuditLog
from outlearn.errors import PermissionDeniedError

MOST = 100
"""Records about one agent, of one server process: nobody can fill the log."""
Given = ParamSpec("Given")
Answer = TypeVar("Answer")
log = structlog.get_logger("outlearn.filesystem")


class Refusals:
    """Notes, once each, what paths agents were refused: `..`, symlinks, hard links, devices."""

    def __init__(self, vault: Path, caller: Callable[[], str]) -> None:
        self._log = AuditLog(vault)
        self._caller = caller
        self._noted: dict[str, set[str]] = {}

    def noted(self, tool: Callable[Given, Answer]) -> Callable[Given, Answer]:
        """The tool, whose refusals are noted."""

        @functools.wraps(tool)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
            try:
                return tool(*args, **kwargs)
            except PermissionDeniedError as error:
                self._note(self._caller(), tool.__name__, str(error))
                raise

        return call

    def _note(self, agent: str, tool: str, why: str) -> None:
        noted = self._noted.setdefault(agent, set())
        if len(noted) >= MOST or why in noted:
            return
        noted.add(why)
        try:
            self._log.append(AuditKind.PATH_REFUSED, "note", agent=agent, evidence={"tool": tool, "why": why})
        except OSError as error:
            log.error("the audit log cannot be written", agent=agent, error=str(error))
