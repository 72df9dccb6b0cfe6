"""The commands of `outlearn`, one module each."""
