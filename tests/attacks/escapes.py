"""Ways out of a workspace: paths, links, devices, pipes, races, snapshots; each refusal stands in the audit log."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import anyio
from homes import refused
from mcp.server.mcpserver.exceptions import ToolError
from registry import Family

from outlearn.artifacts import LocalArtifactStore
from outlearn.audit import AuditLog
from outlearn.errors import BudgetError, InvalidInputError, PermissionDeniedError
from outlearn.identity import Caller
from outlearn.testing import connect
from outlearn_filesystem.server import build
from outlearn_filesystem.settings import FilesystemSettings
from outlearn_filesystem.snapshots import SnapshotStore
from outlearn_filesystem.views import list_directory, read_file
from outlearn_filesystem.workspace import Workspace

attacks = Family()
SECRET = "the secret outside"
TOOLS = ("read_file", "write_file", "edit_file", "list_directory", "grep", "move", "delete", "load_snapshot")
Trap = Callable[[Path, Path], object]


def home_of(folder: Path) -> FilesystemSettings:
    """A home with somebody else's file beside ada's workspace."""
    (folder / "home" / "workspaces" / "bob").mkdir(parents=True)
    (folder / "home" / "workspaces" / "bob" / "file").write_text(SECRET)
    return FilesystemSettings(home=folder / "home", agent="ada")


async def through_every_tool(settings: FilesystemSettings, path: str) -> tuple[str, int]:
    """All that the tools say when they are given a path, and how many refused it."""
    said, refusals = "", 0
    arguments = {
        "read_file": {"path": path},
        "write_file": {"path": path, "text": "planted"},
        "edit_file": {"path": path, "old": "secret", "new": "planted"},
        "list_directory": {"path": path},
        "grep": {"pattern": "secret", "path": path},
        "move": {"src": path, "dst": "taken"},
        "load_snapshot": {"snapshot_id": "snap-000000000000", "folder": path},
        "delete": {"path": path},
    }
    async with connect(build(settings)) as client:
        for tool, given in arguments.items():
            try:
                said += str(await client.call(tool, **given))
            except ToolError as error:
                said, refusals = said + str(error), refusals + 1
    return said, refusals


def is_kept_in(folder: Path, path: str, trap: Trap = lambda workspace, victim: None) -> bool:
    """Whether no tool reads or changes bob's file by this path in a trapped workspace, and the log knows of it."""
    settings = home_of(folder)
    workspace, victim = settings.workspaces / "ada", settings.workspaces / "bob"
    workspace.mkdir()
    trap(workspace, victim)
    said, refusals = anyio.run(through_every_tool, settings, path)
    kept = [entry.name for entry in victim.iterdir()] == ["file"] and (victim / "file").read_text() == SECRET
    records = AuditLog(settings.vault).records()
    noted = any(one.kind == "path refused" and one.agent == "ada" for one in records)
    return kept and SECRET not in said and refusals > 0 and noted


@attacks
def two_dots(folder: Path) -> bool:
    paths = ("../bob/file", "a/../../bob/file", "./../bob/file", "..", "a/b/../../../bob/file")
    return all(is_kept_in(folder / str(number), path) for number, path in enumerate(paths))


@attacks
def a_symlink_to_a_file(folder: Path) -> bool:
    return is_kept_in(folder, "link", lambda workspace, victim: (workspace / "link").symlink_to(victim / "file"))


@attacks
def a_symlink_to_a_folder(folder: Path) -> bool:
    return is_kept_in(folder, "link/file", lambda workspace, victim: (workspace / "link").symlink_to(victim))


@attacks
def a_chain_of_symlinks(folder: Path) -> bool:
    def trap(workspace: Path, victim: Path) -> None:
        (workspace / "a").mkdir()
        (workspace / "a" / "up").symlink_to("../b")
        (workspace / "b").symlink_to("/proc/self/cwd")
        (workspace / "c").symlink_to(victim)

    return all(is_kept_in(folder / str(n), path, trap) for n, path in enumerate(("a/up/x", "b/x", "c/file")))


@attacks
def a_hard_link(folder: Path) -> bool:
    return is_kept_in(folder, "hard", lambda workspace, victim: (workspace / "hard").hardlink_to(victim / "file"))


@attacks
def a_pipe(folder: Path) -> bool:
    """Opening it would wait for a writer for ever."""
    return is_kept_in(folder, "pipe", lambda workspace, _: os.mkfifo(workspace / "pipe"))


@attacks
def a_device(folder: Path) -> bool:
    def trap(workspace: Path, _: Path) -> None:
        try:
            os.mknod(workspace / "zero", 0o020666, os.makedev(1, 5))
        except PermissionError:  # not root
            (workspace / "zero").symlink_to("/dev/zero")

    return is_kept_in(folder, "zero", trap)


@attacks
def absolute_paths(folder: Path) -> bool:
    """A path that begins with a slash begins in the workspace."""
    settings = home_of(folder)
    space = Workspace(settings, "ada")
    victim = settings.workspaces / "bob" / "file"
    held = refused(lambda: read_file(space, str(victim)))
    space.write_file("/etc/passwd", "mine")
    return held and (space.root / "etc" / "passwd").read_text() == "mine" and victim.read_text() == SECRET


SWAPPER = """
import ctypes, os, sys
os.chdir(sys.argv[1])
os.symlink(sys.argv[2], "link")
exchange = ctypes.CDLL(None).renameat2
print("go", flush=True)
while True:
    exchange(-100, b"d", -100, b"link", 2)
"""
"""Two names change places, so that each of them is always there."""


@attacks
def a_race_of_two_processes(folder: Path) -> bool:
    """A folder turns into a symlink and back, while every call that changes something goes through it."""
    settings = home_of(folder)
    space, victim = Workspace(settings, "ada"), settings.workspaces / "bob"
    space.write_file("d/file", "own")
    read: list[str] = []
    turned_away = 0
    with subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(space.root), str(victim)], stdout=subprocess.PIPE
    ) as racer:
        assert racer.stdout is not None
        racer.stdout.readline()
        for number in range(150):
            acts: list[Callable[[], object]] = [
                lambda: read.append(space.read_text("d/file")),
                lambda n=number: space.write_file("d/new", str(n)),
                lambda: space.edit_file("d/file", "secret", "planted"),
                lambda: space.move("d/new", "d/newer"),
                lambda: space.delete("d/newer"),
                lambda: read.append(str(list_directory(space, "d"))),
            ]
            turned_away += sum(refused(act) for act in acts)
        racer.kill()
    kept = [entry.name for entry in victim.iterdir()] == ["file"] and (victim / "file").read_text() == SECRET
    return kept and SECRET not in str(read) and "own" in read and turned_away > 0


@attacks
def a_snapshot_with_links(folder: Path) -> bool:
    """What cannot be read cannot be saved: symlinks, hard links and pipes are refused by name."""
    settings = home_of(folder)
    store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(settings.home / "artifacts"))
    space, victim = Workspace(settings, "ada"), settings.workspaces / "bob" / "file"
    held = []
    for make in (Path.symlink_to, Path.hardlink_to, lambda path, _: os.mkfifo(path)):
        make(space.root / "trap", victim)
        held.append(refused(lambda: store.save(space, "ada", "all", shared=True), PermissionDeniedError))
        (space.root / "trap").unlink()
    store.engine.dispose()
    return all(held)


@attacks
def a_snapshot_that_leads_out(folder: Path) -> bool:
    """Rows of a snapshot that somebody edited, and a folder that is a symlink: nothing is written outside."""
    settings = home_of(folder)
    store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(settings.home / "artifacts"))
    space, victim = Workspace(settings, "ada"), settings.workspaces / "bob"
    space.write_file("a", "x")
    saved = store.save(space, "ada", "all", shared=True).snapshot_id
    (space.root / "out").symlink_to(victim)
    held = [
        refused(lambda path=path: store.load(Caller(agent="ada"), space, saved, path))
        for path in ("out", "out/new", "../bob/new", "..", "", "/", "x\0", "new\x1b[2J")
    ]
    with store.engine.begin() as connection:
        connection.exec_driver_sql("update snapshot_files set path = '../../bob/planted'")
    held.append(refused(lambda: store.load(Caller(agent="ada"), space, saved, "new")))
    store.engine.dispose()
    return all(held) and [entry.name for entry in victim.iterdir()] == ["file"]


@attacks
def archives_stay_archives(folder: Path) -> bool:
    """A zip bomb in a snapshot is a small file: nothing is ever unpacked."""
    settings = home_of(folder)
    store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(settings.home / "artifacts"))
    space = Workspace(settings, "ada")
    with ZipFile(space.root / "bomb.zip", "w", 8) as archive:
        archive.writestr("../../bob/planted", bytes(2**26))
    saved = store.save(space, "ada", "all", shared=True)
    loaded = store.load(Caller(agent="bob"), Workspace(settings, "bob"), saved.snapshot_id, "from-ada")
    store.engine.dispose()
    names = sorted(path.name for path in (settings.workspaces / "bob").rglob("*"))
    return saved.bytes < 2**20 and loaded.files == 1 and names == ["bomb.zip", "file", "from-ada"]


@attacks
def a_private_snapshot(folder: Path) -> bool:
    settings = home_of(folder)
    store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(settings.home / "artifacts"))
    space = Workspace(settings, "bob")
    saved = store.save(space, "bob", "private", shared=False).snapshot_id
    held = refused(lambda: store.load(Caller(agent="ada"), Workspace(settings, "ada"), saved, "new"))
    hidden = not store.list_snapshots(Caller(agent="ada"), "bob").snapshots
    store.engine.dispose()
    return held and hidden


def quick_limits(folder: Path) -> FilesystemSettings:
    return FilesystemSettings(home=folder, max_file_bytes=1000, max_workspace_bytes=5000, max_files=40, max_snapshots=5)


@attacks
def a_full_workspace_is_its_owners_alone(folder: Path) -> bool:
    """Ada fills hers with bytes, with tiny files and with folders; bob's is as empty as it was."""
    settings = quick_limits(folder)
    ada, bob = Workspace(settings, "ada"), Workspace(settings, "bob")
    held = [refused(lambda: ada.write_file("big", "x" * 1001), InvalidInputError)]
    acts: list[Callable[[int], object]] = [
        lambda n: ada.write_file(f"b{n}", "x" * 1000),
        lambda n: ada.write_file(f"s{n}", ""),
        lambda n: ada.write_file("/".join("d" * (n % 60 + 1)) + f"/{n}", ""),
        lambda n: ada.move(f"s{n}", "/".join("m" * 60) + f"/{n}"),
    ]
    for act in acts:
        held.append(any(refused(lambda n=n, act=act: act(n), BudgetError) for n in range(60)))
    bob.write_file("a", "x" * 1000)
    inside = list(ada.root.rglob("*"))
    size = sum(path.stat().st_size for path in inside if path.is_file())
    return all(held) and len(inside) <= 40 and size <= 5000


@attacks
def snapshots_without_end(folder: Path) -> bool:
    """Snapshots are kept for good, so an agent may have no endless number of them."""
    settings = quick_limits(folder)
    store = SnapshotStore(settings.database("filesystem"), LocalArtifactStore(folder / "artifacts"))
    ada, bob = Workspace(settings, "ada"), Workspace(settings, "bob")

    def save(number: int) -> None:
        ada.write_file("a", str(number))
        store.save(ada, "ada", "again", shared=True)

    held = any(refused(lambda n=n: save(n), BudgetError) for n in range(20))
    store.save(bob, "bob", "first", shared=True)
    tight = Workspace(settings.model_copy(update={"max_snapshots": 99, "max_snapshot_bytes": 3}), "ada")
    held &= refused(lambda: store.save(tight, "ada", "more", shared=True), BudgetError)
    store.engine.dispose()
    return held
