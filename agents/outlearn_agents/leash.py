"""`python -m outlearn_agents.leash MODULE ...` runs a module until the process at the other end of stdin is gone."""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module named by the first argument as `python -m` would, on a leash."""
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
