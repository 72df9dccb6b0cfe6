"""`python -m outlearn_filesystem`."""

from outlearn_filesystem.server import main

main()
