"""Researchers, the team runner, the `outlearn` command and the report."""
