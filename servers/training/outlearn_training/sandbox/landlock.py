"""What a method's process may touch, kept by the Linux kernel's Landlock: a few folders, no TCP, no programs.

Landlock needs no privilege and cannot be undone by the process, nor escaped by its children. Source: the kernel's
documentation, userspace-api/landlock.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path

from outlearn.errors import ConfigError
from outlearn_training.sandbox.limits import gain_no_privileges

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
RULE_PATH_BENEATH = 1
READ_FILE, READ_DIR, WRITE_FILE, TRUNCATE = 1 << 2, 1 << 3, 1 << 1, 1 << 14
MAKE_REG = 1 << 8
FS_RIGHTS_BY_VERSION = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many of the low bits each version knows
TCP, SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
SYSTEM = (
    *("/usr", "/lib", "/lib64", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf", "/etc/passwd", "/etc/mime.types"),
    *(f"/etc/python{sys.version_info[0]}.{sys.version_info[1]}", "/etc/ssl/openssl.cnf"),
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def landlock_version() -> int:
    """The kernel's Landlock version; 0 where there is none."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return 0
    return max(0, _syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG))


def python_folders() -> list[Path]:
    """Where this interpreter finds its modules."""
    return [Path(place).resolve() for place in module_folders()]


def module_folders() -> tuple[str, ...]:
    """The same, as the files of its code name them."""
    return tuple(place for place in (sys.prefix, sys.base_prefix, *sys.path) if place)


def confine(readable: Iterable[Path], writable: Iterable[Path], secret: Path) -> bool:
    """Confine this process, for good, to reading `readable` and the system's libraries, and to writing `writable`.

    What it writes there it cannot remove, so that no file holds space without being seen.

    Returns:
        False where the system has no Landlock: the process is not confined.

    Raises:
        ConfigError: `secret` lies in a folder that must be readable.
    """
    version = landlock_version()
    if not version:
        return False
    roots = [Path(place) for place in SYSTEM] + list(readable)
    for root in roots:
        if secret.resolve().is_relative_to(root.resolve()):
            raise ConfigError(f"methods can read {str(root)!r}, which has the vault in it; move the home folder")
    handled = (1 << FS_RIGHTS_BY_VERSION[min(version, 5)]) - 1
    rules = _Ruleset(handled, TCP if version >= 4 else 0, SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = _checked(CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), 0)
    devices = [*DEVICES, *(str(path) for path in Path("/dev").glob("nvidia*"))]
    for root in roots:
        _allow(ruleset, root, READ_FILE | READ_DIR, handled)
    for folder in writable:
        _allow(ruleset, folder, READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MAKE_REG, handled)
    for device in devices:
        _allow(ruleset, Path(device), READ_FILE | WRITE_FILE | (1 << 15), handled)
    gain_no_privileges()
    _checked(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return True


def _allow(ruleset: int, path: Path, rights: int, handled: int) -> None:
    """Allow `rights` beneath `path`, if it exists; a plain file takes no folder's rights."""
    if not path.exists():
        return
    if not path.is_dir():
        rights &= READ_FILE | WRITE_FILE | TRUNCATE | (1 << 15)
    folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights & handled, folder)
        _checked(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(folder)


def _checked(number: int, *arguments: object) -> int:
    result = _syscall(number, *arguments)
    if result < 0:
        raise ConfigError(f"Landlock refused: {os.strerror(ctypes.get_errno())}")
    return result


def _syscall(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(number), *arguments))
