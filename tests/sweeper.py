"""`sweeper.py MARK` waits until its stdin closes, then kills what has MARK in its environment (Linux)."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path


def sweep(mark: bytes) -> None:
    """Kill what was started with this mark."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes():
                os.kill(int(environment.parent.name), signal.SIGKILL)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(sys.argv[1].encode())
