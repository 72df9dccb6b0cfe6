"""What each server and client makes anew when it is built, and what is always the same, is made once in a test run.

A tool's schemas follow from its function's code and signature, and making them is most of building a server, which
hundreds of tests do.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import httpcore2
import pytest
from mcp.server.mcpserver.tools import Tool


def make_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the schemas of outlearn's tools, and the certificates that HTTP clients trust."""
    from_function, known = Tool.from_function, dict[object, Tool]()

    def describe(fn: Callable[..., Any], *args: Any, **options: Any) -> Tool:
        inner = inspect.unwrap(fn)
        if not inner.__module__.startswith("outlearn_"):
            return from_function(fn, *args, **options)
        about = (inner.__module__, inner.__qualname__, fn.__doc__, str(inspect.signature(fn)), repr((args, options)))
        key = (inner.__code__, about)
        if key not in known:
            known[key] = from_function(fn, *args, **options)
        metadata = known[key].fn_metadata.model_copy()  # the server that it is for changes it
        return known[key].model_copy(update={"fn": fn, "fn_metadata": metadata})

    monkeypatch.setattr(Tool, "from_function", describe)
    monkeypatch.setattr(httpcore2, "default_ssl_context", functools.cache(httpcore2.default_ssl_context))
