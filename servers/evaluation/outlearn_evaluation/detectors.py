"""What looks like gaming, as pure functions over votes, answers and secrets. Decisions 14 and 22 derive thresholds.

`n` is the number of public items, `s` of seeds. Counts say how many seeds vote 1 for each item, `(n,)`. A detector
returns a suspicion or None. Only those that need nothing secret may quarantine a run: an agent can see that it is.
"""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from outlearn.audit import Action, AuditKind, Evidence
from outlearn.tasks import Bits, Floats
from outlearn_evaluation.scoring import differing, unary

Counts = NDArray[np.uint8]

LOPSIDED = 0.05  # a run with fewer answers of one kind is degenerate: it has nothing to probe with
ALIKE = 0.002
APART, APART_Z = 0.9, 3.0
FEW_DUPLICATES, DUPLICATE_SHARE = 8, 0.85
FEW_ANSWERS, FLOOR_SHARE, UNRELATED = 8, 0.8, 0.1
DOUBT, ENOUGH_NATS = 0.3, math.log(0.95 / 0.005)  # Wald: 5 % of masks missed, 0.5 % of the honest suspected
SECRET_Z = 4.5
MAJORITY_EXCESS = 0.75


@dataclass(frozen=True)
class Suspicion:
    """What a detector found."""

    kind: AuditKind
    action: Action
    evidence: Evidence


@dataclass(frozen=True)
class Look:
    """An evaluated run, as it stands in the ledger."""

    run_id: str
    agent: str
    seeds: int
    counts: Counts
    at_most: bool = False
    same_as: str | None = None

    @classmethod
    def of(cls, positive: Bits) -> "Look":
        """One of hard answers, (s, n), without names."""
        return cls("", "", len(positive), positive.sum(axis=0, dtype=np.uint8))

    def told(self, at_most: bool, same_as: str | None) -> "Look":
        """The same run, once it is answered; what was worked out of its counts stays."""
        if (self.at_most, self.same_as) == (at_most, same_as):  # a copy takes its time
            return self
        answered = copy(self)
        vars(answered).update(at_most=at_most, same_as=same_as)
        return answered

    @cached_property
    def bits(self) -> int:
        """Its votes, for `differing`."""
        return unary(self.counts, self.seeds)

    @cached_property
    def majority(self) -> Bits:
        """(n,) what most seeds say."""
        return np.asarray(2 * self.counts.astype(np.int16) > self.seeds)

    @cached_property
    def minority(self) -> Floats:
        """(n,) the share of seeds that say something else than most."""
        return np.asarray(np.minimum(self.counts, self.seeds - self.counts) / self.seeds)

    @cached_property
    def is_degenerate(self) -> bool:
        """Whether nearly all answers are the same."""
        share = float(self.counts.mean()) / self.seeds
        return min(share, 1 - share) < LOPSIDED


def disagreement(counts: NDArray[np.integer], seeds: int) -> float:
    """The share of items on which two of the seeds disagree, mean over pairs; `counts` (n,) say yes."""
    yes = counts.astype(np.float64)
    return float(np.mean(yes * (seeds - yes))) / math.comb(seeds, 2)


def strangers_disagreement(right: Floats) -> float:
    """The same for seeds of these accuracies, (s,), that err independently."""
    return float(np.mean([one * (1 - other) + other * (1 - one) for one, other in combinations(right, 2)]))


def seeds_alike(run: Look, least: float = ALIKE) -> Suspicion | None:
    """Seeds have teachers of their own, so students of two of them disagree somewhere: on 2 % of the items and more
    with the built-in methods, on 0.6 % in the narrowest honest run that we saw."""
    apart = disagreement(run.counts, run.seeds) if run.seeds > 1 else 1.0
    if run.is_degenerate or apart >= least:
        return None
    return Suspicion(AuditKind.SEEDS_ALIKE, "flag", {"disagreement": round(apart, 5), "least": round(least, 5)})


def seeds_apart(positive: Bits, labels: NDArray[np.int64], most: float = APART) -> Suspicion | None:
    """Students learn the same task and err on the same hard items. Seeds `(s, n)` that disagree as often as strangers
    of their accuracies were made to differ: several attempts packed into one run."""
    shares = positive.mean(axis=1)
    if len(positive) < 2 or np.minimum(shares, 1 - shares).min() < LOPSIDED:
        return None
    strangers = strangers_disagreement((positive == labels).mean(axis=1))
    apart = np.mean([one != other for one, other in combinations(positive, 2)], axis=0)
    z = (float(apart.mean()) - most * strangers) / max(float(apart.std()) / math.sqrt(len(apart)), 1e-9)
    if z <= APART_Z:
        return None
    return Suspicion(
        AuditKind.SEEDS_APART, "flag", {"disagreement": float(apart.mean()), "strangers": strangers, "z": z}
    )


def near_duplicates(looks: Sequence[Look]) -> Suspicion | None:
    """An agent's runs that got earlier runs' answers. One is chance; most of them are small steps around a run."""
    if not looks or looks[-1].same_as is None:
        return None
    near = sum(look.same_as is not None for look in looks)
    many = near >= FEW_DUPLICATES and near >= DUPLICATE_SHARE * len(looks)
    evidence: Evidence = {"same_as": looks[-1].same_as or "", "near": near, "runs": len(looks)}
    return Suspicion(AuditKind.NEAR_DUPLICATE, "flag" if many else "note", evidence)


def floor_rate(looks: Sequence[Look]) -> Suspicion | None:
    """Answers at the floor, from runs with nothing in common: random vectors. Students that fail fail alike."""
    floored = sum(look.at_most for look in looks) / max(len(looks), 1)
    if len(looks) < FEW_ANSWERS or floored < FLOOR_SHARE:
        return None
    signs = [np.where(look.majority, 1.0, -1.0) for look in looks if not look.is_degenerate]
    alike = float(np.mean([np.mean(one * other) for one, other in combinations(signs, 2)])) if len(signs) > 1 else 1.0
    if alike >= UNRELATED:
        return None
    return Suspicion(AuditKind.FLOOR_RATE, "flag", {"floored": floored, "answers": len(looks), "correlation": alike})


@dataclass(frozen=True)
class Change:
    """How a run differs from the nearest earlier one of anybody's."""

    weight: float
    """`k (n - k) / n` for k changed items of n: the inverse of the effect's variance where they are random."""
    effect: float
    """By how many standard deviations changed items are more doubtful than kept ones."""
    base: str = ""
    """The nearest run and its agent."""
    of_other: bool = False
    """Whether the nearest run is another agent's."""


def change(run: Look, earlier: Sequence[Look]) -> Change | None:
    """What `run` changed of the nearest earlier run; None where it, or all before it, are degenerate."""
    others = [look for look in earlier if not look.is_degenerate and look.seeds == run.seeds]
    if run.is_degenerate or not others:
        return None
    base = min(others, key=lambda look: differing(run.bits, look.bits))
    return changed_from(run, base, yes_share(others))


def yes_share(looks: Sequence[Look]) -> Floats:
    """The share of 1 among all votes of these runs, (n,)."""
    votes = sum(look.seeds for look in looks)
    return np.asarray(np.stack([look.counts for look in looks]).sum(axis=0, dtype=np.int64) / votes)


def changed_from(run: Look, base: Look, yes: Floats) -> Change | None:
    """What `run` changed of `base`, given the share `yes` (n,) of all earlier votes for 1; None where it is nothing.

    An item's doubt is the share of earlier votes against what most of them say, and the share of the nearest run's
    seeds against its answer; the run's own seeds are left out, as whoever makes masks would have them disagree just
    there. Items on which the nearest run itself left what most say are, too: to go back is no change of mind, and
    would be found where doubt is, for two runs with other masks over the same answers.
    """
    steady = base.majority == (yes > 0.5)
    changed = steady & (run.majority != base.majority)
    n, k = float(np.count_nonzero(steady)), float(np.count_nonzero(changed))
    if not 0 < k < n:
        return None
    doubt = (np.minimum(yes, 1 - yes) + base.minority) * steady
    mean, of_changed = float(doubt.sum()) / n, float(doubt @ changed) / k
    variance = float(doubt @ doubt) / n - mean**2
    if variance <= 1e-12:  # all are equally doubtful
        return None
    of_kept = (n * mean - k * of_changed) / (n - k)
    return Change(
        weight=k * (n - k) / n,
        effect=(of_changed - of_kept) / math.sqrt(variance),
        base=f"{base.run_id} of {base.agent}",
        of_other=base.agent != run.agent,
    )


def random_masks(changes: Sequence[Change], doubt: float = DOUBT) -> Suspicion | None:
    """Changes of an agent's that fall on items without regard to how doubtful these are: with an effect under `doubt`.

    A retrained student changes its mind where it or others were in doubt. Masks, random or in blocks, have an effect of
    0. What a blind change says is the log-likelihood ratio of an effect of 0 to one of `2 * doubt`, with the variance
    `1 / weight` that so many items leave: `2 * doubt * weight * (doubt - effect)` nats. Blind changes count by
    themselves, so that others in between do not hide them, and for half of what is enough at most: one may be a failed
    training. The evidence says what runs were changed, and how many of others': somebody may have made runs that an
    honest agent's look like changes of. Source of the bar: Wald 1945, "Sequential tests of statistical hypotheses".
    """
    blind = [one for one in changes if one.effect < doubt]
    nats = sum(min(2 * doubt * one.weight * (doubt - one.effect), ENOUGH_NATS / 2) for one in blind)
    if nats < ENOUGH_NATS:
        return None
    weight = sum(one.weight for one in blind)
    effect = sum(one.weight * one.effect for one in blind) / weight
    evidence: Evidence = {
        "effect": effect,
        "blind": len(blind),
        "of_others": sum(one.of_other for one in blind),
        "bases": ", ".join(dict.fromkeys(one.base for one in blind)),
        "weight": weight,
        "nats": nats,
        "least": doubt,
    }
    return Suspicion(AuditKind.RANDOM_MASKS, "quarantine", evidence)


def watermark(mean_votes: Floats, noise: Floats) -> Suspicion | None:
    """`z = sum(S * g) / sqrt(sum(S^2))` of votes `S (n,)` and secret noise `g (n,)`: N(0, 1) for who never saw g."""
    z = float(mean_votes @ noise / math.sqrt(max(float(mean_votes @ mean_votes), 1e-9)))
    return Suspicion(AuditKind.WATERMARK, "flag", {"z": z}) if z > SECRET_Z else None


def public_private_gap(right: Floats, public: Bits, design_effect: float) -> Suspicion | None:
    """Better on the public half than on the private one by more than halves differ by chance.

    Args:
        right: (items,) of both halves, share of the seeds that are right.
        public: (items,) which of them are public.
    """
    halves = right[public], right[~public]
    if min(map(len, halves)) < 2:
        return None
    error = math.sqrt(design_effect * sum(float(half.var(ddof=1)) / len(half) for half in halves))
    gap = float(halves[0].mean() - halves[1].mean())
    if gap <= SECRET_Z * error:
        return None
    return Suspicion(AuditKind.PUBLIC_PRIVATE_GAP, "flag", {"gap": gap, "standard_error": error})


def majority_answer(majority: Bits, frequent: Bits, labels: NDArray[np.int64]) -> Suspicion | None:
    """Agreement with "the most frequent answer of the group is right" beyond what accuracy explains.

    `(agreement - e) / (1 - e)` with `e = a f + (1 - a)(1 - f)`, the agreement of strangers with accuracies a of the run
    and f of the shortcut: 1 for who copies the shortcut. All arguments are (items,).
    """
    own, line = float(np.mean(majority == labels)), float(np.mean(frequent == labels))
    expected, agreement = own * line + (1 - own) * (1 - line), float(np.mean(majority == frequent))
    excess = (agreement - expected) / max(1 - expected, 1e-9)
    if excess <= MAJORITY_EXCESS:
        return None
    return Suspicion(AuditKind.MAJORITY_ANSWER, "flag", {"excess": excess, "agreement": agreement, "accuracy": own})
