"""Which runs and agents are withheld from the leaderboard, and who gets no answers, as the audit log says it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from outlearn.audit import AuditKind, AuditRecord

PROBING = {
    AuditKind.RANDOM_MASKS: "its answers are earlier ones with changes that training does not make",
    AuditKind.FORGED_RECEIPT: "its receipts are not what the predictor signed",
    AuditKind.CANARY: "its method executed a program under review",
    AuditKind.VAULT: "its method reached for the vault",
}
"""What costs an agent its answers too, and not only the run its rank; in the agent's words. Decision 20 says why."""


@dataclass(frozen=True)
class Withheld:
    """Runs that are quarantined or disqualified, and agents all of whose runs are."""

    runs: frozenset[str] = frozenset()
    agents: frozenset[str] = frozenset()
    probing: Mapping[str, AuditRecord] = field(default_factory=dict)
    """For each agent that was seen probing, the record of it."""
    released: frozenset[str] = frozenset()
    """Runs that are not held against their agent again."""

    def covers(self, run_id: str, agent: str) -> bool:
        """Whether this run of this agent's is withheld."""
        return run_id in self.runs or agent in self.agents

    def refusal(self, agent: str) -> str | None:
        """Why this agent's new questions are not answered; None where they are."""
        if (seen := self.probing.get(agent)) is not None:
            return because(seen.run_id, seen.kind)
        return "the operator withholds your runs" if agent in self.agents else None


NOTHING = Withheld()


def because(run_id: str, kind: str) -> str:
    """What is told of a run that was withheld for probing."""
    return f"run {run_id!r} is withheld: {PROBING[AuditKind(kind)]}"


def withheld(records: Iterable[AuditRecord]) -> Withheld:
    """What these records, oldest first, come to. A record with a run is about the run, else about the agent.

    What the operator released, no detector quarantines again; a disqualification counts whenever it comes. An agent
    that is released gets answers again, and its runs are decided about one by one.
    """
    runs, agents, released = set[str](), set[str](), set[str]()
    probing = dict[str, AuditRecord]()  # by run
    for record in records:
        held, subject = (runs, record.run_id) if record.run_id else (agents, record.agent)
        if record.action == "release":
            held.discard(subject)
            forgiven = {run_id for run_id, seen in probing.items() if subject in (run_id, seen.agent)}
            released |= {subject} | forgiven
            probing = {run_id: seen for run_id, seen in probing.items() if run_id not in forgiven}
        elif record.action == "disqualify" or (
            record.action == "quarantine" and (record.kind == AuditKind.OPERATOR or subject not in released)
        ):
            held.add(subject)
            if record.kind in PROBING and record.run_id:
                probing[record.run_id] = record
    by_agent = {seen.agent: seen for seen in probing.values()}
    return Withheld(frozenset(runs), frozenset(agents), by_agent, frozenset(released))
