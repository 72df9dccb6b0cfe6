"""Limits that the kernel keeps for a method's process, and the end of what it leaves behind."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
MAX_OPEN_FILES = 256
MAX_SIGNALS = 256
"""Timers and signals on their way: a user's processes share what the system has for them."""
NICENESS = 10
MAX_DESCRIPTOR = 2**16


def count_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def share_of_cores(slot: int, slots: int, threads: int) -> tuple[int, ...]:
    """CPU cores for what runs in a slot: its own, where there are `threads` for each slot; else all that there are.

    Empty where the system cannot keep a process to some of them.
    """
    if sys.platform != "linux":
        return ()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) // slots < threads:
        return tuple(cores)
    return tuple(cores[slot * len(cores) // slots : (slot + 1) * len(cores) // slots])


def stay_on(cores: Collection[int]) -> None:
    """Keep this process, and the threads that it will start, to these CPU cores; none: to any."""
    if cores and sys.platform == "linux":
        os.sched_setaffinity(0, cores)


def begin_session() -> None:
    """Be the leader of a session of its own, which takes second place when cores are short.

    Tool calls, for which agents wait, come before training that would fill every core. Linux shares cores among
    sessions first, and a process's own niceness counts within its session only: the session gets one too.
    """
    with suppress(PermissionError):  # it leads one already
        os.setsid()
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))
    take_second_place()


def take_second_place(pid: int = 0) -> None:
    """Let a process, this one or a child, give way to others of its session."""
    os.setpriority(os.PRIO_PROCESS, pid, max(NICENESS, os.getpriority(os.PRIO_PROCESS, pid)))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def gain_no_privileges() -> None:
    """Have this process, and all that it starts, gain no privileges: the condition of its own filters (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def adopt_orphans() -> None:
    """Make this process the parent of whatever its descendants leave behind (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def kill_children() -> None:
    """Kill this process's children, and those that it inherits from them, until there are none (Linux)."""
    while pids := _children():
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def count_threads(pid: int) -> int:
    """Threads of a process; 0 where there is none, or where the system does not tell."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/task").stat().st_nlink - 2
    return 0


def limit_resources(cpu_seconds: int, file_bytes: int) -> None:
    """Limit this process's CPU time, the size of its files and how many are open; it leaves no core, and is the one
    that Linux ends where the machine's memory is used up."""
    if sys.platform == "linux":
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        _lower(resource.RLIMIT_SIGPENDING, MAX_SIGNALS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)


def limit_memory(memory_bytes: int) -> None:
    """Limit this process's address space to `memory_bytes` beyond the present (Linux)."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def close_all_but(kept: Collection[int]) -> None:
    """Close every file descriptor of this process that is not in `kept`."""
    edges = [-1, *sorted(kept), MAX_DESCRIPTOR]
    for low, high in pairwise(edges):
        if high > low + 1:  # an empty range that begins at 0 closes everything, in CPython 3.11
            os.closerange(low + 1, high)


def _lower(limit: int, most: int) -> None:
    """Set a limit to `most`, unless it is lower already."""
    hard = resource.getrlimit(limit)[1]
    value = most if hard == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(limit, (value, value))


def _children() -> list[int]:
    """Process ids of this process's children, zombies included (Linux)."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(pid) for children in lists for pid in children.read_text(encoding="ascii").split()]
