"""How many attackers the detectors find, and how many honest agents they suspect, on simulated servers.

An attacker is a campaign: nine tokens that work together on one server. It is found where one of its runs is flagged.
Suspicions of the honest are counted by runs and by agents: any detector, any flag. Notes are none.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from home_worlds import ALL_HOMES, like
from measure import SERVERS, Figure
from probing import PROBES
from watched import DRESSES, campaign, honest_team
from world import AGENTS

from outlearn_evaluation.thresholds import CONSTANTS, Thresholds

FOUND, SUSPECTED = 95.0, 0.5  # percent
HONEST_TEAMS = 5  # for each server that is attacked
HOMES_SHARE = 10  # homes have so many servers fewer each


@dataclass
class Tally:
    """Flags over several servers."""

    servers: int = 0
    found: int = 0
    runs: int = 0
    flagged_runs: int = 0
    flagged_agents: int = 0
    detectors: Counter[str] = field(default_factory=Counter)  # servers on which each flagged something


def attacked(attack: str, dress: str, servers: int, thresholds: Thresholds = CONSTANTS) -> Tally:
    """Campaigns of one attack."""
    tally = Tally()
    for seed in range(servers):
        flags = campaign(attack, dress, seed, thresholds).flags()
        tally.servers += 1
        tally.found += bool(flags)
        tally.detectors.update(flags.keys())
    return tally


def honest(servers: int, thresholds: Thresholds = CONSTANTS) -> Tally:
    """Honest teams."""
    tally = Tally()
    for seed in range(10_000, 10_000 + servers):
        world = honest_team(seed, thresholds)
        flagged = [look.agent for look, found in zip(world.looks, world.found, strict=True) if found]
        tally.servers += 1
        tally.runs += len(world.looks)
        tally.flagged_runs += len(flagged)
        tally.flagged_agents += len(set(flagged))
        tally.detectors.update(world.flags().keys())
    return tally


def detection(_: Path, servers: int) -> Iterator[Figure]:
    """Percent of campaigns found, and of honest runs and agents suspected, with the constants."""
    for name in PROBES:
        for dress in DRESSES:
            tally = attacked(name, dress, servers)
            yield Figure(f"found_{name}_{dress}", 100 * tally.found / tally.servers, FOUND, at_most=False)
    tally = honest(HONEST_TEAMS * servers)
    yield Figure("suspected_honest_runs", 100 * tally.flagged_runs / tally.runs, SUSPECTED)
    yield Figure("suspected_honest_agents", 100 * tally.flagged_agents / (AGENTS * tally.servers), SUSPECTED)


def homes(_: Path, servers: int) -> Iterator[Figure]:
    """The same with the thresholds of homes' own calibrations: all campaigns, and honest runs beside the constants'."""
    servers = max(1, servers // HOMES_SHARE)
    for home in ALL_HOMES:
        with like(home) as thresholds:
            tallies = [attacked(name, dress, servers, thresholds) for name in PROBES for dress in DRESSES]
            share = sum(one.found for one in tallies) / sum(one.servers for one in tallies)
            yield Figure(f"found_{home}", 100 * share, FOUND, at_most=False)
            for name, chosen, bar in (("", thresholds, SUSPECTED), ("_by_constants", CONSTANTS, inf)):
                tally = honest(HONEST_TEAMS * servers, chosen)
                yield Figure(f"suspected_{home}{name}", 100 * tally.flagged_runs / tally.runs, bar)


def main() -> None:
    """Print the table, of so many servers as the first argument says; the exit status says whether all bars held."""
    servers = int(sys.argv[1]) if sys.argv[1:] else SERVERS
    held = []
    for family in (detection, homes):
        for figure in family(Path(), servers):
            print(figure, flush=True)
            held.append(figure.held)
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
