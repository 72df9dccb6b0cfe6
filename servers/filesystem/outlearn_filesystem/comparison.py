"""What is different between two snapshots."""

from collections.abc import Iterator
from itertools import islice

from outlearn.identity import Caller
from outlearn.paging import fit_page
from outlearn.types import FileChange, SnapshotDiff
from outlearn_filesystem.diffs import edit_diff
from outlearn_filesystem.globs import Glob
from outlearn_filesystem.snapshots import SnapshotStore

MAX_CHANGES = 500


def diff_snapshots(
    store: SnapshotStore, caller: Caller, snapshot_id: str, base: str | None = None, glob: str = ""
) -> SnapshotDiff:
    """What became of the files of `base`, by default the snapshot's parent, in a snapshot, sorted by path.

    A first snapshot has no parent: all its files are new.

    Raises:
        NotFoundError: there is no such snapshot, or its owner does not share it.
        InvalidInputError: the glob is impossible.
        IntegrityError: a stored file was damaged.
    """
    found, new = store.contents(caller, snapshot_id)
    base = base or found.parent
    old = store.contents(caller, base)[1] if base else {}
    pattern = Glob(glob or "**")
    changed = [
        path for path in sorted(old | new) if old.get(path) != new.get(path) and pattern.matches(path.split("/"))
    ]
    changes = _changes(store, changed, old, new)
    page = fit_page(islice(changes, MAX_CHANGES))
    return SnapshotDiff(
        snapshot_id=snapshot_id,
        base=base,
        changes=tuple(page),
        changed=len(changed),
        truncated=len(page) < len(changed),
    )


def _changes(store: SnapshotStore, paths: list[str], old: dict[str, str], new: dict[str, str]) -> Iterator[FileChange]:
    for path in paths:
        before, after = _text(store, old.get(path)), _text(store, new.get(path))
        yield FileChange(
            path=path,
            change="added" if path not in old else "removed" if path not in new else "changed",
            diff="" if before is None or after is None else edit_diff(path, before, after),
        )


def _text(store: SnapshotStore, sha256: str | None) -> str | None:
    """The text with this digest, empty where there is no file; None where it is binary."""
    try:
        return store.read(sha256).decode() if sha256 else ""
    except UnicodeDecodeError:
        return None
