r"""The tiny *chat* task: which of two responses is better? (`name 2 fruits\nA: fig cat\nB: fig plum`: the second.)

The better response has fewer faults: words missing, too many, repeated or of another kind. Manners (`sure`) count for
nothing. Requests for the same numbers of the same kinds are one group, never torn apart. As in the math task,
pretraining shows responses being judged for the *practice* groups, and for the task's groups good responses alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from outlearn_training.testbed.examples import Example, Splits, as_examples, is_chosen, make_splits

PRACTICE_SHARE = 0.3
NUMBERS = (1, 2)
KINDS = {
    "fruits": "plum fig pear lime",
    "greens": "leek kale beet pea",
    "birds": "owl hen crow duck",
    "beasts": "cat dog cow fox",
    "tools": "saw axe file drill",
    "toys": "ball kite doll yoyo",
    "metals": "iron gold tin zinc",
    "stones": "jade opal ruby onyx",
    "boats": "raft canoe yacht ferry",
    "cars": "taxi van bus truck",
    "drinks": "tea milk cola juice",
    "foods": "pie soup rice bread",
    "hats": "cap hood helm crown",
    "shoes": "boot clog sandal skate",
    "colors": "red blue green pink",
    "shapes": "cube cone ring disc",
}
"""A kind and its neighbour (fruits and greens, birds and beasts) are easily confused."""
MEMBERS = {kind: tuple(words.split()) for kind, words in KINDS.items()}
KIND_OF = {word: kind for kind, words in MEMBERS.items() for word in words}
NEIGHBOUR = {kind: list(KINDS)[index ^ 1] for index, kind in enumerate(KINDS)}
MANNERS = ("sure", "gladly")
MANNERLY_SHARE = 0.5
FAULTS = {(0, 1): 0.5, (0, 2): 0.25, (1, 2): 0.25}
"""How often the better and the worse response have so many faults."""


@dataclass(frozen=True)
class Request:
    """How many of which kinds shall be named; `group` is the same for both orders of the kinds."""

    group: str
    wanted: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        parts = [f"{number} {kind if number > 1 else kind[:-1]}" for kind, number in self.wanted]
        return "name " + " and ".join(parts)

    @property
    def size(self) -> int:
        return sum(number for _, number in self.wanted)


@dataclass(frozen=True)
class Response:
    """The words named, with or without manners before them."""

    words: tuple[str, ...]
    manners: str = ""

    @property
    def text(self) -> str:
        return " ".join([self.manners, *self.words] if self.manners else self.words)


@dataclass(frozen=True)
class Comparison:
    """Two responses to a request. `label` is 1 where `second` is the better one."""

    request: Request
    first: Response
    second: Response
    label: int

    @property
    def text(self) -> str:
        return f"{self.request.text}\nA: {self.first.text}\nB: {self.second.text}"


def count_faults(request: Request, words: Sequence[str]) -> int:
    """How many words must be replaced, added or dropped to make a good response."""
    distinct = Counter(KIND_OF[word] for word in set(words))
    hits = sum(min(distinct[kind], number) for kind, number in request.wanted)
    return max(request.size, len(words)) - hits


def all_requests() -> list[Request]:
    """Every request for one or two kinds, sorted by group."""
    requests = [Request(f"{number} {kind}", ((kind, number),)) for kind in KINDS for number in NUMBERS]
    for (one, other), (n, m) in product(combinations(KINDS, 2), product(NUMBERS, NUMBERS)):
        group, wanted = f"{n} {one} {m} {other}", ((one, n), (other, m))
        requests += [Request(group, wanted), Request(group, wanted[::-1])]
    return sorted(requests, key=lambda request: (request.group, request.text))


def is_practice(request: Request) -> bool:
    """Whether pretraining shows responses to it being judged; the same for every seed, as checkpoints are."""
    return is_chosen(f"practice:{request.group}", PRACTICE_SHARE)


def generate(seed: int = 0) -> Splits:
    """Balanced splits of unique texts, disjoint by group, the same for the same seed."""
    rng = Random(f"chat:{seed}")
    requests = [request for request in all_requests() if not is_practice(request)]
    return make_splits(requests, lambda part, size: _examples(part, size, rng, seed), rng)


def draw_response(request: Request, faults: int, rng: Random) -> Response:
    """A response with exactly so many faults."""
    while True:
        words = [word for kind, number in request.wanted for word in rng.sample(MEMBERS[kind], number)]
        for _ in range(faults):
            words = _spoil(words, rng)
        if count_faults(request, words) == faults:
            return Response(tuple(words), rng.choice(MANNERS) if rng.random() < MANNERLY_SHARE else "")


def draw_comparison(request: Request, label: int, rng: Random) -> Comparison:
    """Two responses, one of them better; with label 1 it's the second."""
    better, worse = rng.choices(list(FAULTS), list(FAULTS.values()))[0]
    first, second = (worse, better) if label else (better, worse)
    return Comparison(request, draw_response(request, first, rng), draw_response(request, second, rng), label)


def _examples(requests: Sequence[Request], size: int, rng: Random, seed: int) -> list[Example]:
    """Comparisons; in every other one the second response is better."""
    found: dict[str, Comparison] = {}
    while len(found) < size:
        comparison = draw_comparison(rng.choice(requests), len(found) % 2, rng)
        found[comparison.text] = comparison
    return as_examples("chat", seed, {text: (one.request.group, one.label) for text, one in found.items()}, rng)


def _spoil(words: list[str], rng: Random) -> list[str]:
    """One word left out, one too many, or one replaced: most often by its like of the neighbouring kind."""
    index = rng.randrange(len(words))
    word, kind = words[index], KIND_OF[words[index]]
    confused = [rng.choice(MEMBERS[NEIGHBOUR[kind]])]
    instead = [confused, confused, [rng.choice(list(KIND_OF))], [rng.choice(words)], [word, rng.choice(MEMBERS[kind])]]
    if len(words) > 1:
        instead.append([])
    return [*words[:index], *rng.choice(instead), *words[index + 1 :]]
