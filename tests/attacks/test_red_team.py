"""The red team's attacks, but for those that take long; `make attacks` makes all of them."""

from pathlib import Path

import collusion
import escapes
import floods
import forgery
import full_disk
import injection
import leaks
import pytest
import vault
import weights
from measure import Figure
from registry import Attack

from outlearn_training.sandbox.landlock import landlock_version
from outlearn_training.sandbox.seccomp import has_seccomp

LONG = ("no_more_than_the_teams_budget", "searches_that_never_end", "time_of_an_answer")
FAMILIES = (collusion, escapes, floods, forgery, full_disk, injection, leaks, weights)
QUICK = {name: one for family in FAMILIES for name, one in family.attacks.items() if name not in LONG}


@pytest.mark.parametrize("attack", QUICK.values(), ids=QUICK)
def test_an_attack_is_held_off(attack: Attack, tmp_path: Path) -> None:
    found = attack(tmp_path)
    assert found.held if isinstance(found, Figure) else found


@pytest.mark.skipif(not landlock_version() or not has_seccomp(), reason="this system has no Landlock, or no seccomp")
def test_nothing_that_a_method_tries_gets_through(tmp_path: Path) -> None:
    assert [str(figure) for figure in vault.attempts(tmp_path) if not figure.held] == []
