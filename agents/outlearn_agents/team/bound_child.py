"""`python -m outlearn_agents.team.bound_child LOCK MODULE ...` runs a module until whoever holds its stdin is gone.

Meanwhile it holds the file LOCK, by which a later team runner finds it.
"""

import os
import runpy
import signal
import sys
import threading
from pathlib import Path

from outlearn.locks import holding


def main() -> None:
    """Run the module named by the second argument as `python -m` would, on a leash."""
    threading.Thread(target=_watch, daemon=True).start()
    lock, *sys.argv = sys.argv[1:]
    with holding(Path(lock)):
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
