"""Duplicates, near duplicates and splits: what must hold for any data."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from outlearn.errors import InvalidInputError
from outlearn.similar import Links, Similar, jaccard, normal, shingles
from outlearn_training.data.splits import ORDER, fill, needed, turns_in_group, winners

GROUPS = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=60)
WORDS = st.lists(
    st.sampled_from(["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "far", "away"]), min_size=4, max_size=12
)


def numbered(groups: list[list[int]]) -> tuple[list[list[int]], dict[int, int]]:
    """Groups of item numbers, and the label of each."""
    labels: dict[int, int] = {}
    numbers = []
    for group in groups:
        numbers.append([len(labels) + at for at in range(len(group))])
        labels |= dict(zip(numbers[-1], group, strict=True))
    return numbers, labels


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(GROUPS, st.integers(2, 12), st.integers(2, 20), st.integers(2, 20), st.booleans())
def test_splits_have_their_sizes_and_no_group_in_common(
    groups: list[list[int]], test: int, train: int, pool: int, balanced: bool
) -> None:
    numbers, labels = numbered(groups)
    sizes = {"test": test, "train": train, "pool": pool}
    owner = {item: at for at, group in enumerate(numbers) for item in group}
    try:
        splits = fill(numbers, labels, sizes, balanced=balanced)  # type: ignore[arg-type]
    except InvalidInputError:
        assume(False)
    seen: set[int] = set()
    for name in ORDER:
        chosen = splits[name]
        assert len(set(chosen)) == len(chosen) == sizes[name]
        mine = {owner[item] for item in chosen}
        assert not mine & seen
        seen |= mine
        if balanced:
            assert Counter(labels[item] for item in chosen)[1] == sizes[name] // 2


def test_too_few_items_say_which_label_is_lacking() -> None:
    numbers, labels = numbered([[0, 0]] * 20)
    with pytest.raises(InvalidInputError, match="the test split has 2 and lacks 0 of label 0 and 2 of label 1"):
        fill(numbers, labels, {"test": 4, "train": 2, "pool": 2}, balanced=True)


@given(GROUPS, st.integers(1, 100))
def test_needed_groups_hold_enough_or_are_all(groups: list[list[int]], total: int) -> None:
    ranks = np.array([at for at, group in enumerate(groups) for _ in group])
    labels = np.array([label for group in groups for label in group], dtype=np.uint8)
    count = needed(ranks, labels, total, 0.0, balanced=True)
    held = Counter(label for group in groups[:count] for label in group)
    assert count == len(groups) or 2 * min(held[0], held[1]) >= total


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), max_size=50))
def test_turns_count_those_of_the_same_group_and_label_before(items: list[tuple[int, int]]) -> None:
    groups = np.array([group for group, _ in items], dtype=np.int64)
    labels = np.array([label for _, label in items], dtype=np.uint8)
    assert turns_in_group(groups, labels).tolist() == [items[:at].count(one) for at, one in enumerate(items)]


@given(st.integers(0, 200))
def test_each_position_wins_half(n: int) -> None:
    assert winners(n, np.random.default_rng(n)).sum() == n // 2


@given(st.lists(WORDS, min_size=2, max_size=25), st.integers(0, 3))
def test_every_near_copy_in_another_group_is_linked(texts: list[list[str]], groups: int) -> None:
    lines = [" ".join(words) for words in texts]
    owners = [at % (groups + 2) for at in range(len(lines))]
    links = Links(len(lines))
    for i, j in Similar(lines, owners).pairs(0.8):
        assert owners[i] != owners[j]
        assert jaccard(shingles(lines[i]), shingles(lines[j])) >= 0.8
        links.link(i, j)
    for i, one in enumerate(lines):
        for j in range(i):
            if owners[i] != owners[j] and normal(one) == normal(lines[j]):
                together = {owners[k] for k in range(len(lines)) if links.find(k) in (links.find(i), links.find(j))}
                assert {owners[i], owners[j]} <= together


def test_a_copy_with_a_few_other_words_is_found_and_another_text_is_not() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 500, 80)) for _ in range(200)]
    changed = texts[17].split()
    changed[40] = "other"
    pairs = list(Similar([*texts, " ".join(changed)], range(201)).pairs(0.8))
    assert pairs == [(17, 200)]


def test_texts_without_words_are_compared_too() -> None:
    assert list(Similar(["", "!", "", "!"], [0, 1, 2, 3]).pairs(1)) == [(0, 2), (1, 3)]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40))
def test_links_are_an_equivalence(pairs: list[tuple[int, int]]) -> None:
    links = Links(20)
    for one, other in pairs:
        links.link(one, other)
    assert all(links.find(one) == links.find(other) for one, other in pairs)
    assert all(links.find(one) <= one for one in range(20))
