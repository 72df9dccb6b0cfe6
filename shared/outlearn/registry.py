"""Plugins by entry point. Built-ins and third-party plugins come through the same door.

The groups are `outlearn.servers`, `outlearn.methods`, `outlearn.researchers` and `outlearn.sources`. Listing never
imports a plugin; one that fails to load is an error that names it.
"""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict

from outlearn.errors import PluginError

SERVERS = "outlearn.servers"
METHODS = "outlearn.methods"
RESEARCHERS = "outlearn.researchers"
SOURCES = "outlearn.sources"


class Plugin(BaseModel):
    """A registered plugin, as its package's metadata describes it."""

    model_config = ConfigDict(frozen=True)

    name: str
    target: str
    distribution: str
    version: str


class Registry:
    """The plugins of one entry-point group."""

    def __init__(self, group: str) -> None:
        self.group = group
        self._points: dict[str, EntryPoint] = {}
        for point in entry_points(group=group):
            known = self._points.setdefault(point.name, point)
            if known.value != point.value:
                raise PluginError(
                    f"two packages register {point.name!r} in {group!r}: {_owner(known)} and {_owner(point)}; "
                    "uninstall one of them"
                )

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._points)

    def describe(self) -> list[Plugin]:
        """What is registered, without importing any of it."""
        points = (self._points[name] for name in self.names())
        return [
            Plugin(
                name=point.name,
                target=point.value,
                distribution=point.dist.name if point.dist else "?",
                version=point.dist.version if point.dist else "?",
            )
            for point in points
        ]

    def load(self, name: str) -> Any:
        """Import and return the plugin `name`.

        Raises:
            PluginError: the name is unknown, or importing it fails (the cause is chained).
        """
        if name not in self._points:
            raise PluginError(f"no {name!r} in {self.group!r}; there are: {', '.join(self.names()) or 'none'}")
        try:
            return self._points[name].load()
        except Exception as error:
            raise PluginError(
                f"{name!r} in {self.group!r}, from {_owner(self._points[name])}, fails to load: {error!r}"
            ) from error


def _owner(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value
