"""Bubblewrap around the method host, where it is installed: a world with nothing secret in it.

No network, no other processes, everything read-only. Of the home folder there is only the public data and the folder
for students. The host is started in it once; its children are confined by Landlock and seccomp all the same.
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from outlearn.signing import has_key
from outlearn_training.sandbox.landlock import python_folders

PROBE_SECONDS = 10
PUBLIC, SCRATCH, MODELS = "data", "scratch", "models"
NAMESPACES = ("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts")


def has_bubblewrap(home: Path) -> bool:
    """Whether `bwrap` is installed and can start Python for this home folder."""
    with suppress(OSError, subprocess.SubprocessError):
        command = [*wrap(home), sys.executable, "-I", "-c", ""]
        return subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0
    return False


def wrap(home: Path) -> list[str]:
    """What goes before a command, so that it runs inside."""
    home = home.resolve()
    hidden = _outermost(home)
    (home / SCRATCH).mkdir(parents=True, exist_ok=True)
    command = [shutil.which("bwrap") or "bwrap", *NAMESPACES, "--cap-drop", "ALL", "--die-with-parent", "--new-session"]
    command += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", str(hidden)]
    command += ["--setenv", "TMPDIR", "/dev/shm"]  # noqa: S108 - the only other place to write, inside
    for device in sorted(Path("/dev").glob("nvidia*")):
        command += ["--dev-bind", str(device), str(device)]
    for folder in _readable(home, hidden):
        command += ["--ro-bind-try", str(folder), str(folder)]
    return [*command, "--bind", str(home / SCRATCH), str(home / SCRATCH), "--chdir", "/", "--"]


def _outermost(home: Path) -> Path:
    """The home folder, or the one that it is derived from: a derived one lies in a vault, which has a signing key."""
    vaults = [folder for folder in home.parents if folder.name == "vault" and has_key(folder)]
    return vaults[-1].parent if vaults else home


def _readable(home: Path, hidden: Path) -> list[Path]:
    """What the host reads inside the folder that is hidden otherwise."""
    places = [home / PUBLIC, home / MODELS, hidden / MODELS, Path(os.environ.get("HF_HOME", "/")).resolve()]
    return [place for place in [*places, *python_folders()] if place != hidden and place.is_relative_to(hidden)]
