"""A filter over a process's system calls, kept by the kernel (seccomp): what a method has no use for fails.

A refused call fails with EPERM, and one that may have a substitute with ENOSYS; nothing is killed, so that honest
libraries go on without it. The filter cannot be undone. Source: the kernel's documentation,
userspace-api/seccomp_filter.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable

from outlearn.errors import ConfigError
from outlearn_training.sandbox.limits import gain_no_privileges
from outlearn_training.sandbox.syscalls import (
    BY_ARGUMENT,
    FILES,
    FORBIDDEN_FCNTL,
    FORBIDDEN_IOCTL,
    FORBIDDEN_IOCTL_TYPES,
    FORBIDDEN_PRCTL,
    LAST_KNOWN,
    MACHINES,
    NEVER,
    NEW_NAMESPACES,
    ON_ITSELF,
    THREAD,
    UNSHARE,
    WITHOUT_NAME,
    ZERO_IS_A_GROUP,
    Machine,
)

SET_MODE_FILTER, GET_ACTION_AVAIL, TSYNC = 1, 2, 1
LOAD, AND, EQUAL, GREATER_OR_EQUAL, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06  # BPF operations on words
ALLOW, ERROR = 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in what the filter sees; each argument has 8 bytes
X32 = 0x40000000
CAPABILITY_VERSION = 0x20080522
Code = list[tuple[int, int, int, int]]
"""Instructions: operation, how many to skip where it holds and where not, operand."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def has_seccomp() -> bool:
    """Whether this system can filter system calls, and we know its numbers."""
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        return False
    action = ctypes.c_uint32(ERROR)
    return _syscall("seccomp", GET_ACTION_AVAIL, 0, ctypes.byref(action)) == 0


def filter_calls() -> None:
    """Filter this process's system calls from now on, in all its threads.

    Raises:
        ConfigError: the system cannot.
    """
    if not has_seccomp():
        raise ConfigError(f"this system ({sys.platform}, {platform.machine()}) cannot filter system calls")
    code = b"".join(struct.pack("<HBBI", *one) for one in build_filter(MACHINES[platform.machine()], os.getpid()))
    program = _Program(len(code) // 8, code)
    gain_no_privileges()
    if _syscall("seccomp", SET_MODE_FILTER, TSYNC, ctypes.byref(program)) != 0:
        raise ConfigError(f"seccomp refused: {os.strerror(ctypes.get_errno())}")


def drop_capabilities() -> None:
    """Give up what this process may do as root, for good (Linux)."""
    if sys.platform == "linux" and platform.machine() in MACHINES:
        header, none = struct.pack("<Ii", CAPABILITY_VERSION, 0), bytes(24)
        if _syscall("capset", header, none) != 0:
            raise ConfigError(f"cannot give up capabilities: {os.strerror(ctypes.get_errno())}")


def build_filter(machine: Machine, pid: int) -> Code:
    """The filter for a process with this id: the first rule that returns decides."""
    return [
        *_load(ARCHITECTURE),
        (EQUAL, 1, 0, machine.audit_arch),
        *_refuse(),
        *_load(NUMBER),
        *([(GREATER_OR_EQUAL, 0, 1, X32), *_refuse()] if machine.has_x32 else []),
        (GREATER_OR_EQUAL, 0, 1, LAST_KNOWN + 1),
        *_refuse(errno.ENOSYS),
        *_match(machine.numbers(NEVER).values(), _refuse()),
        *_own_process(machine, pid),
        *_by_argument(machine.numbers(BY_ARGUMENT), pid),
        *_allow(),
    ]


def _own_process(machine: Machine, pid: int) -> Code:
    code: Code = []
    for name, number in machine.numbers(ON_ITSELF).items():
        own = [pid] if name in ZERO_IS_A_GROUP else [pid, 0]
        code += _when(number, [*_argument(0), *_match(own, _allow()), *_refuse()])
    return code


def _by_argument(numbers: dict[str, int], pid: int) -> Code:
    """`clone` makes threads only, and `open` and `openat` no files without a name. The flags of clone3 and openat2
    cannot be seen, and libraries go on without them. Without fallocate, disk is taken no faster than by writing.
    All threads have the same open files: the limit of them is for each table of descriptors."""
    threads = [(ANY_BIT, 0, 1, NEW_NAMESPACES), *_refuse(), (ANY_BIT, 1, 0, FILES), *_refuse()]
    threads += [(ANY_BIT, 0, 1, THREAD), *_allow(), *_refuse()]
    shared = [(ANY_BIT, 0, 1, UNSHARE), *_refuse(), *_allow()]
    itself = [*_match([0], [*_argument(1), *_match([0, pid], _allow()), *_refuse()]), *_refuse()]
    named = [(ANY_BIT, 0, 1, WITHOUT_NAME), *_refuse(), *_allow()]
    types = [(AND, 0, 0, 0xFF00), *_match(FORBIDDEN_IOCTL_TYPES, _refuse()), *_allow()]
    return [
        *_when(numbers["clone"], [*_argument(0), *threads]),
        *_when(numbers["clone3"], _refuse(errno.ENOSYS)),
        *(_when(numbers["open"], [*_argument(1), *named]) if "open" in numbers else []),
        *_when(numbers["openat"], [*_argument(2), *named]),
        *_when(numbers["openat2"], _refuse(errno.ENOSYS)),
        *_when(numbers["fallocate"], _refuse(errno.EOPNOTSUPP)),
        *_when(numbers["close_range"], [*_argument(2), *shared]),
        *_when(numbers["setpriority"], [*_argument(0), *itself]),
        *_when(numbers["prctl"], [*_argument(0), *_match(FORBIDDEN_PRCTL, _refuse()), *_allow()]),
        *_when(numbers["fcntl"], [*_argument(1), *_match(FORBIDDEN_FCNTL, _refuse()), *_allow()]),
        *_when(numbers["ioctl"], [*_argument(1), *_match(FORBIDDEN_IOCTL, _refuse()), *types]),
    ]


def _load(offset: int) -> Code:
    return [(LOAD, 0, 0, offset)]


def _argument(index: int) -> Code:
    """Load an argument's low word: the kernel looks at no more of those that we ask for."""
    return _load(ARGUMENTS + 8 * index)


def _when(value: int, code: Code) -> Code:
    """Run `code`, which returns, where what was loaded is `value`."""
    return [(EQUAL, 0, len(code), value), *code]


def _match(values: Iterable[int], code: Code) -> Code:
    return [one for value in values for one in _when(value, code)]


def _refuse(error: int = errno.EPERM) -> Code:
    return [(RETURN, 0, 0, ERROR | error)]


def _allow() -> Code:
    return [(RETURN, 0, 0, ALLOW)]


def _syscall(name: str, *arguments: object) -> int:
    number = MACHINES[platform.machine()].numbers(NEVER)[name]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(ctypes.c_long(number), *arguments))
