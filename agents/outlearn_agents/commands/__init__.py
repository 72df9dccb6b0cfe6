"""The commands of `outlearn`: a module for each, or for those that belong together."""
