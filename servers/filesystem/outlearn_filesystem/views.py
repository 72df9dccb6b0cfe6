"""What the filesystem server shows of a workspace, in pages that fit an agent's context."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice

from outlearn.confined import Entry, list_confined, look_up, walk_confined
from outlearn.errors import InvalidInputError, NotFoundError, OutlearnError
from outlearn.paging import PAGE_BYTES, cut_text, fit_page
from outlearn.types import FileEntry, FileList, FileText, MatchList
from outlearn_filesystem.diffs import count_lines, line_start, split_lines
from outlearn_filesystem.globs import Glob
from outlearn_filesystem.grep import grep
from outlearn_filesystem.workspace import Workspace

MAX_ENTRIES = 500
MAX_SEARCHED_BYTES = 64 * 1024 * 1024
# a control character takes six bytes in JSON
LONG_LINE_BYTES = PAGE_BYTES // 6


def read_file(workspace: Workspace, path: str, first_line: int = 1, max_lines: int = 500) -> FileText:
    """Lines of a text file, as many as are asked for and fit a page.

    Lines count from 1, or from the end, where -1 is the last.

    Raises:
        NotFoundError, PermissionDeniedError: there is no such file, or the path is not confined.
        InvalidInputError: it is not UTF-8 text, or has no such line.
    """
    text = workspace.read_text(path)
    lines = count_lines(text)
    if first_line < 0:
        first_line = max(1, lines + 1 + first_line)
    if first_line == 0 or first_line > max(1, lines):
        raise InvalidInputError(f"{path!r} has {lines:,} lines; there is no line {first_line:,}")
    start = line_start(text, first_line)
    wanted = split_lines(text[start : start + PAGE_BYTES])[:max_lines]  # no more than this fit
    shown = _fit_lines(wanted)
    cut = bool(wanted) and not shown
    next_line = first_line + max(len(shown), 1)
    return FileText(
        path=path,
        text=cut_text(wanted[0], LONG_LINE_BYTES) if cut else "".join(shown),
        first_line=first_line,
        next_line=next_line if next_line <= lines else None,
        lines=lines,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        line_cut=cut,
    )


def list_directory(workspace: Workspace, path: str = "") -> FileList:
    """What is in a folder, sorted by name. Raises NotFoundError, PermissionDeniedError."""
    return _file_list(list_confined(workspace.root, path))


def find_files(workspace: Workspace, glob: str, *, seconds: float) -> FileList:
    """All files, at any depth, whose paths match.

    Raises:
        InvalidInputError: the glob is empty or too long, or the search takes more than `seconds`.
    """
    entries = _in_time(walk_confined(workspace.root), f"looking for {glob!r}", seconds)
    pattern = Glob(glob)
    return _file_list(e for e in entries if e.kind != "folder" and pattern.matches(e.parts))


def grep_files(
    workspace: Workspace, pattern: str, *, path: str = "", glob: str = "", limit: int = 100, seconds: float
) -> MatchList:
    """Lines that match a regular expression, in one file or in the files of a folder (those that match `glob`).

    Raises:
        NotFoundError, PermissionDeniedError: there is no such path, or it is not confined.
        InvalidInputError: the pattern or the glob is impossible, or the search takes too long.
    """
    files: list[tuple[str, bytes]] = []
    skipped = size = 0
    candidates = _candidates(workspace, path, Glob(glob) if glob else None)
    for entry in _in_time(candidates, "reading the files", seconds):
        try:
            data = workspace.read_bytes(entry.path)
        except OutlearnError:
            skipped += 1
            continue
        size += len(data)
        if size > MAX_SEARCHED_BYTES:
            break
        files.append((entry.path, data))
    found = grep(pattern, files, limit=limit, seconds=seconds)
    incomplete = found.truncated or size > MAX_SEARCHED_BYTES
    return found.model_copy(update={"skipped": found.skipped + skipped, "truncated": incomplete})


def _candidates(workspace: Workspace, path: str, glob: Glob | None) -> Iterator[Entry]:
    start = look_up(workspace.root, path)
    if start is None:
        raise NotFoundError(f"no {path!r} here; `list_directory` shows what there is")
    if start.kind != "folder":
        workspace.read_bytes(path)
        yield start
        return
    for entry in walk_confined(workspace.root, path):
        if entry.kind != "folder" and (glob is None or glob.matches(entry.parts)):
            yield entry


def _in_time(entries: Iterable[Entry], what: str, seconds: float) -> Iterator[Entry]:
    end = time.monotonic() + seconds
    for entry in entries:
        if time.monotonic() > end:
            raise InvalidInputError(f"{what} took longer than {seconds:g} s; use a simpler glob, or a folder")
        yield entry


def _fit_lines(lines: Iterable[str]) -> list[str]:
    shown, left = [], PAGE_BYTES
    for line in lines:
        left -= len(json.dumps(line, ensure_ascii=False).encode())
        if left < 0:
            break
        shown.append(line)
    return shown


def _file_list(entries: Iterable[Entry]) -> FileList:
    views = [
        FileEntry(
            path=entry.path,
            kind=entry.kind,
            bytes=entry.status.st_size if entry.kind == "file" else 0,
            modified_at=datetime.fromtimestamp(entry.status.st_mtime, UTC),
        )
        for entry in islice(entries, MAX_ENTRIES + 1)
    ]
    page = fit_page(views[:MAX_ENTRIES])
    return FileList(entries=tuple(page), truncated=len(page) < len(views))
