"""Limits that the kernel keeps for a method's process."""

import ctypes
import resource
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
MAX_FILE_BYTES = 64 * 2**30


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_resources(cpu_seconds: int, memory_bytes: int) -> None:
    """Limit this process's CPU time, and (Linux) its address space to `memory_bytes` beyond the present."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
