"""`python -m outlearn_agents.team.plugin_server NAME ...` runs a tool server that another package registered."""

import sys

from outlearn.errors import PluginError
from outlearn.registry import SERVERS, Registry


def main() -> None:
    """Run the server named by the first argument with the others as its command line."""
    name = sys.argv.pop(1)
    try:
        serve = Registry(SERVERS).load(name)
    except PluginError as error:
        raise SystemExit(f"outlearn: {error}") from None
    serve()


if __name__ == "__main__":
    main()
