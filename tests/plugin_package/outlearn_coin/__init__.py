"""A third-party package for outlearn."""
