"""outlearn: what tool servers, methods and researchers share. Light: no torch, no anthropic.

Write a tool server with `make_server` and `run`; test it with `outlearn.testing.connect`.
"""

from outlearn.errors import OutlearnError
from outlearn.identity import Caller
from outlearn.server import ADDS, CHANGES, READ_ONLY, ToolServer, make_server, run, serve
from outlearn.settings import ServerSettings

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
