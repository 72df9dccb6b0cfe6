"""`python -m outlearn_evaluation` runs the evaluation server."""

from outlearn_evaluation.server import main

main()
