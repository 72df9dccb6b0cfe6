"""Which runs and agents are withheld from the leaderboard, as the audit log says it."""

from collections.abc import Iterable
from dataclasses import dataclass

from outlearn.audit import AuditRecord

OPERATOR = "operator"


@dataclass(frozen=True)
class Withheld:
    """Runs that are quarantined or disqualified, and agents all of whose runs are."""

    runs: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()

    def covers(self, run_id: str, agent: str) -> bool:
        """Whether this run of this agent's is withheld."""
        return run_id in self.runs or agent in self.agents


NOTHING = Withheld()


def withheld(records: Iterable[AuditRecord]) -> Withheld:
    """What these records, oldest first, come to. A record with a run is about the run, else about the agent.

    What the operator released, no detector quarantines again; a disqualification counts whenever it comes.
    """
    runs, agents, released = set[str](), set[str](), set[str]()
    for record in records:
        held, subject = (runs, record.run_id) if record.run_id else (agents, record.agent)
        if record.action == "release":
            held.discard(subject)
            released.add(subject)
        elif record.action == "disqualify" or (
            record.action == "quarantine" and (record.kind == OPERATOR or subject not in released)
        ):
            held.add(subject)
    return Withheld(frozenset(runs), frozenset(agents))
