"""How many attackers the detectors find, and how many honest agents they suspect, on simulated servers.

An attacker is a campaign: nine tokens that work together on one server. It is found where one of its runs is flagged.
Suspicions of the honest are counted by runs and by agents: any detector, any flag. Notes are none.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from measure import SERVERS, Figure
from probing import PROBES
from watched import DRESSES, campaign, honest_team
from world import AGENTS

FOUND, SUSPECTED = 95.0, 0.5  # percent
HONEST_TEAMS = 5  # for each server that is attacked


@dataclass
class Tally:
    """Flags over several servers."""

    servers: int = 0
    found: int = 0
    runs: int = 0
    flagged_runs: int = 0
    flagged_agents: int = 0
    detectors: Counter[str] = field(default_factory=Counter)  # servers on which each flagged something


def attacked(attack: str, dress: str, servers: int) -> Tally:
    """Campaigns of one attack."""
    tally = Tally()
    for seed in range(servers):
        flags = campaign(attack, dress, seed).flags()
        tally.servers += 1
        tally.found += bool(flags)
        tally.detectors.update(flags.keys())
    return tally


def honest(servers: int) -> Tally:
    """Honest teams."""
    tally = Tally()
    for seed in range(10_000, 10_000 + servers):
        world = honest_team(seed)
        flagged = [look.agent for look, found in zip(world.looks, world.found, strict=True) if found]
        tally.servers += 1
        tally.runs += len(world.looks)
        tally.flagged_runs += len(flagged)
        tally.flagged_agents += len(set(flagged))
        tally.detectors.update(world.flags().keys())
    return tally


def detection(_: Path, servers: int) -> Iterator[Figure]:
    """Percent of campaigns found, and of honest runs and agents suspected."""
    for name in PROBES:
        for dress in DRESSES:
            tally = attacked(name, dress, servers)
            yield Figure(f"found_{name}_{dress}", 100 * tally.found / tally.servers, FOUND, at_most=False)
    tally = honest(HONEST_TEAMS * servers)
    yield Figure("suspected_honest_runs", 100 * tally.flagged_runs / tally.runs, SUSPECTED)
    yield Figure("suspected_honest_agents", 100 * tally.flagged_agents / (AGENTS * tally.servers), SUSPECTED)


def main() -> None:
    """Print the figures, and which detectors found whom; the exit status says whether all bars held."""
    figures = []
    for figure in detection(Path(), SERVERS):
        print(figure, flush=True)
        figures.append(figure)
    for name in PROBES:
        print(name, {dress: dict(attacked(name, dress, 5).detectors) for dress in DRESSES})
    sys.exit(not all(figure.held for figure in figures))


if __name__ == "__main__":
    main()
