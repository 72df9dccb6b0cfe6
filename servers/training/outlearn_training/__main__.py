"""`python -m outlearn_training` runs the training server."""

from outlearn_training.server import main

main()
