"""What tells that a method runs code that does not stand in its file, or tries the vault: a detector, not a sandbox.

A method that knows of it can disable it, or write to the event channel itself; it incriminates nobody but its own run.
"""

import os
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from outlearn.audit import AuditKind

EVENTS = frozenset({"compile", "exec", "marshal.loads", "code.__new__", "function.__new__"})
PREFIX = "ctypes."
RUNNERS = frozenset(
    {"bdb", "cProfile", "code", "codeop", "ctypes", "doctest", "pdb", "profile", "runpy", "timeit", "trace"}
    | {"annotationlib", "inspect", "jinja2.environment", "typing"}
)
"""Modules that run or reach for others' code: what they do, whoever called them does."""
METHOD = "method.py"
MOST = 16


def watch_execution(
    canary: str, vault: str, folders: tuple[str, ...], report: Callable[[dict[str, Any]], None]
) -> None:
    """From now on report, once each, {"watched": event, "where": place}; a canary's name becomes `canary`.

    Args:
        vault: the folder of which no file may be named; whatever names one becomes `vault`.
        folders: where modules may be imported from; code of other files is as dynamic as a string's.
    """
    seen: set[tuple[str, str]] = set()
    get_frame, trusted = sys._getframe, (*folders, "<frozen ")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == canary:
            tell(AuditKind.CANARY, get_frame(1))
        elif _names_a_path(event) and _is_below(vault, arguments[:2]):
            tell(AuditKind.VAULT, _responsible(get_frame(1)))
        elif event in EVENTS or event.startswith(PREFIX):
            if event == "compile" and get_frame(1).f_globals.get("__name__") == "typing":
                return  # a name in quotes, such as Optional["Student"]: it is not run
            caller = _responsible(get_frame(1))
            if caller.f_code.co_filename == METHOD or _is_foreign(event, arguments, caller, trusted):
                tell(event, caller)

    def tell(event: str, frame: FrameType) -> None:
        where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"  # noqa: PTH119
        if (event, where) not in seen and (len(seen) < MOST or event in (AuditKind.CANARY, AuditKind.VAULT)):
            seen.add((event, where))
            report({"watched": event, "where": where})

    sys.addaudithook(hook)


def _names_a_path(event: str) -> bool:
    """Whether an audit event's first arguments are paths."""
    return event.startswith(("open", "os.", "shutil.", "sqlite3.connect"))


def _is_below(folder: str, arguments: tuple[Any, ...]) -> bool:
    """Whether one of these is a path in `folder`."""
    paths = [os.fsdecode(one) for one in arguments if isinstance(one, str | bytes | os.PathLike)]
    return any(f"{os.path.abspath(path)}/".startswith(f"{folder}/") for path in paths)  # noqa: PTH100 - it is hot


def _responsible(frame: FrameType) -> FrameType:
    """The innermost frame that is not of a module which runs others' code."""
    while frame.f_globals.get("__name__") in RUNNERS and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_foreign(event: str, arguments: tuple[Any, ...], caller: FrameType, trusted: tuple[str, ...]) -> bool:
    """Whether this is the import of a file that is none of Python's own or of its packages."""
    code = arguments[0] if arguments else None
    return (
        event == "exec"
        and isinstance(code, CodeType)
        and caller.f_code.co_filename.startswith("<frozen importlib")
        and not code.co_filename.startswith(trusted)
    )
