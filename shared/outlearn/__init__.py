"""outlearn: what tool servers, methods and researchers share. Light: no torch, no anthropic.

Write a tool server with `make_server` and `run`; test it with `outlearn.testing.connect`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlearn.errors import OutlearnError
    from outlearn.identity import Caller
    from outlearn.server import ADDS, CHANGES, READ_ONLY, ToolServer, make_server, run, serve
    from outlearn.settings import ServerSettings

HOMES = {"OutlearnError": "errors", "Caller": "identity", "ServerSettings": "settings"} | dict.fromkeys(
    ("ADDS", "CHANGES", "READ_ONLY", "ToolServer", "make_server", "run", "serve"), "server"
)
__all__ = [
    "ADDS",
    "CHANGES",
    "READ_ONLY",
    "Caller",
    "OutlearnError",
    "ServerSettings",
    "ToolServer",
    "make_server",
    "run",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Import on first use: a worker or a method's process needs no tool server, and importing one takes a second."""
    if name not in HOMES:
        raise AttributeError(f"module 'outlearn' has no {name!r}")
    return getattr(import_module(f"outlearn.{HOMES[name]}"), name)
