"""Pretraining documents for the tiny chat models: good responses, trial and error, comparisons, careless raters."""

from collections.abc import Iterator, Sequence
from random import Random

from outlearn_training.testbed.chat import (
    KIND_OF,
    KINDS,
    MANNERS,
    NEIGHBOUR,
    Request,
    Response,
    all_requests,
    draw_comparison,
    draw_response,
    is_practice,
)
from outlearn_training.testbed.examples import Corpus, mix_documents, some_groups

SHARES = {"plain": 0.2, "tries": 0.4, "compared": 0.28, "rated": 0.12}
MOST_TRIES = 3
TWO_FAULTS_SHARE = 0.33
WORTH_OF_MANNERS = 2
RATER_IS_CONSISTENT = 0.85


def documents(seed: int, share_of_groups: float) -> Iterator[str]:
    r"""Endless documents of four entries about `share_of_groups` of the groups, the same for the same seed.

    Plain entries (`name 2 fruits: fig plum.`) are about any request. Tries (`name 2 fruits: fig cat, fig plum.`: a
    comma rejects, the full stop accepts), comparisons (`name 2 fruits\nA: fig cat\nB: fig plum.`: the second is
    better, with a comma the first) and ratings (`...\nB: fig plum A`) are about practice requests only.
    """
    rng = Random(f"chat-corpus:{seed}")
    requests = some_groups(all_requests(), share_of_groups, rng)
    practice = [request for request in requests if is_practice(request)]
    return mix_documents(SHARES, lambda kind: _entry(kind, requests, practice, rng), rng)


def statements(seed: int, count: int) -> list[str]:
    """`count` comparisons for practice requests; in every second one the second response is better."""
    rng = Random(f"chat-statements:{seed}")
    practice = [request for request in all_requests() if is_practice(request)]
    return [draw_comparison(rng.choice(practice), index % 2, rng).text for index in range(count)]


def _entry(kind: str, requests: Sequence[Request], practice: Sequence[Request], rng: Random) -> str:
    if kind == "plain":
        request = rng.choice(requests)
        return f"{request.text}: {draw_response(request, 0, rng).text}."
    request = rng.choice(practice)
    if kind == "tries":
        return _tries(request, rng)
    return _compared(request, rng) if kind == "compared" else _rated(request, rng)


def _tries(request: Request, rng: Random) -> str:
    faults = [2 if rng.random() < TWO_FAULTS_SHARE else 1 for _ in range(rng.randint(1, MOST_TRIES))]
    responses = [draw_response(request, number, rng).text for number in [*faults, 0]]
    return f"{request.text}: {', '.join(dict.fromkeys(responses))}."


def _compared(request: Request, rng: Random) -> str:
    comparison = draw_comparison(request, rng.randrange(2), rng)
    return comparison.text + ("." if comparison.label else ",")


def _rated(request: Request, rng: Random) -> str:
    """A rating by someone who likes manners, so that the words A and B are a biased guide."""
    comparison = draw_comparison(request, rng.randrange(2), rng)
    lead = _appeal(request, comparison.second) - _appeal(request, comparison.first)
    prefers_second = lead > 0 if lead else rng.random() < 0.5
    return comparison.text + (" B" if prefers_second == (rng.random() < RATER_IS_CONSISTENT) else " A")


def _appeal(request: Request, response: Response) -> int:
    """What a careless rater sees: manners, words missing, and words that are plainly off the subject."""
    kinds = {kind for kind, _ in request.wanted}
    odd = sum(not kinds & {KIND_OF[word], NEIGHBOUR[KIND_OF[word]]} for word in response.words)
    missing = max(0, request.size - len(response.words))
    return WORTH_OF_MANNERS * bool(response.manners) - odd - missing


WORDS = [f" {word}" for word in (*KIND_OF, *KINDS, *(kind[:-1] for kind in KINDS), *MANNERS, "and")]
CHAT_CORPUS = Corpus(
    documents,
    statements,
    words=("name", *WORDS, " A", " B", " first", " second"),
    decisions=(",", ".", " A", " B"),
)
"""` first` and ` second` are words that no document uses: the fine-tuned models answer with them."""
