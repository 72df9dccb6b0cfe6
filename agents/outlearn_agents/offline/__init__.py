"""The offline researcher: no language model, no network; a baseline and the demo's researcher."""

from outlearn_agents.offline.researcher import OfflineResearcher

__all__ = ["OfflineResearcher"]
