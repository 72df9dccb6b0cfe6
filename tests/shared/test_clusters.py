"""The design effect of groups: against hand calculations, and by simulation in the tests of scoring."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlearn.clusters import design_effect
from outlearn.errors import InvalidInputError


def test_items_that_are_their_own_groups_have_no_design_effect() -> None:
    values = np.random.default_rng(0).random((5, 40)) < 0.7
    assert design_effect(values, [str(i) for i in range(40)]) == 1.0


def test_groups_whose_items_are_copies_count_as_one_item_each() -> None:
    groups = np.random.default_rng(1).random((3, 10))
    copies = np.repeat(groups, 7, axis=1)
    names = [f"g{i}" for i in range(10) for _ in range(7)]
    variance = groups.mean(axis=0).var(ddof=1) / 10
    assert design_effect(copies, names) * copies.mean(axis=0).var(ddof=1) / 70 == pytest.approx(variance)


def test_one_group_has_no_error_over_groups() -> None:
    with pytest.raises(InvalidInputError, match="needs two of them"):
        design_effect(np.ones((2, 3)), ["a", "a", "a"])


def test_items_that_are_all_the_same_have_no_design_effect() -> None:
    assert design_effect(np.ones((2, 4)), ["a", "a", "b", "b"]) == 1.0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), min_size=2, max_size=30), st.randoms())
def test_a_design_effect_is_at_least_one_and_does_not_depend_on_order(items: list[tuple[str, bool]], random) -> None:  # type: ignore[no-untyped-def]
    if len({group for group, _ in items}) < 2:
        return

    def effect() -> float:
        return design_effect(np.array([[value for _, value in items]]), [group for group, _ in items])

    before = effect()
    random.shuffle(items)
    assert 1 <= before == pytest.approx(effect())
