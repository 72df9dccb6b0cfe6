"""`python -m outlearn_forum`."""

from outlearn_forum.server import main

main()
