"""Regular-expression search with a time limit that holds.

The standard `re` cannot be interrupted, and `regex` bounds the time inside its engine only. A child process can
always be killed; it also bounds memory, leaves the server's threads free, and needs no package. It costs about 20 ms.
"""

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from outlearn.errors import InvalidInputError
from outlearn.paging import fit_page
from outlearn.types import Match, MatchList

MAX_PATTERN = 1_000
MATCHER = Path(__file__).with_name("matcher.py")


def grep(pattern: str, files: Iterable[tuple[str, bytes]], *, limit: int, seconds: float) -> MatchList:
    """The lines of `files` (path, contents) in which `pattern` is found, at most `limit`.

    Raises:
        InvalidInputError: the pattern is not a regular expression, or takes more than `seconds` or too much memory.
    """
    if not pattern or len(pattern) > MAX_PATTERN:
        raise InvalidInputError(f"a pattern has 1 to {MAX_PATTERN:,} characters, not {len(pattern):,}")
    paths, contents = [], []
    for path, data in files:
        paths.append(path)
        contents.append(data)
    request = {"pattern": pattern, "limit": limit + 1, "sizes": [len(data) for data in contents]}
    answers = _run(pattern, b"".join([json.dumps(request).encode(), b"\n", *contents]), seconds)
    found = [Match(path=paths[a["file"]], line=a["line"], text=a["text"]) for a in answers if "file" in a]
    matches = fit_page(found[:limit])
    skipped = sum("skipped" in a for a in answers)
    return MatchList(matches=tuple(matches), truncated=len(matches) < len(found), skipped=skipped)


def _run(pattern: str, request: bytes, seconds: float) -> list[dict[str, Any]]:
    command = [sys.executable, "-I", "-S", str(MATCHER), str(math.ceil(seconds) + 1)]
    try:
        done = subprocess.run(command, input=request, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise InvalidInputError(
            f"searching for {pattern!r} took longer than {seconds:g} s; simplify the pattern or narrow path and glob"
        ) from None
    if done.returncode:
        raise InvalidInputError(f"searching for {pattern!r} needs too much memory or time; simplify the pattern")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if answers and "error" in answers[0]:
        raise InvalidInputError(f"{pattern!r} is not a Python regular expression: {answers[0]['error']}")
    return answers
