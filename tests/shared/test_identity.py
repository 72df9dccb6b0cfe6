"""Tokens: made, rotated, revoked, ending, listed; and who is let in without one."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outlearn import ServerSettings, make_server
from outlearn.errors import ConfigError, ConflictError, NotFoundError, OutlearnError
from outlearn.identity import Caller, Grant, TokenFile

ADA = Caller(agent="ada")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=400)).map(lambda passed: NOW + passed)


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.json")


def test_a_rotated_token_works_through_its_grace_and_not_after(tokens: TokenFile) -> None:
    first = tokens.issue("ada")
    second = tokens.rotate("ada", timedelta(hours=1))
    assert tokens.verify(first) == tokens.verify(second) == ADA
    third = tokens.rotate("ada", timedelta(0))
    assert [tokens.verify(token) for token in (first, second, third)] == [None, None, ADA]
    assert len(tokens.read()) == 3
    tokens.issue("bob")
    assert len(tokens.read()) == 2, "what has ended is forgotten at the next change"


def test_rotating_leaves_other_agents_and_the_role_alone(tokens: TokenFile) -> None:
    bob, chief = tokens.issue("bob"), tokens.issue("chief", "operator")
    renewed = tokens.rotate("chief", timedelta(0))
    assert tokens.verify(bob) == Caller(agent="bob")
    assert tokens.verify(renewed) == Caller(agent="chief", role="operator")
    assert tokens.verify(chief) is None


def test_revoking_ends_all_tokens_of_an_agent_and_of_nobody_else(tokens: TokenFile) -> None:
    own, bob = [tokens.issue("ada"), tokens.issue("ada"), tokens.rotate("ada")], tokens.issue("bob")
    assert tokens.revoke("ada") == 3
    assert not any(map(tokens.verify, own))
    assert tokens.verify(bob)
    for change in (tokens.revoke, tokens.rotate):
        with pytest.raises(NotFoundError, match=r"'ada' has no token in .*; these have: bob"):
            change("ada")


def test_a_token_can_have_an_end_and_keeps_its_lifetime_when_rotated(tokens: TokenFile) -> None:
    gone = tokens.issue("gone", lifetime=timedelta(microseconds=1))
    assert tokens.verify(gone) is None
    with pytest.raises(NotFoundError):
        tokens.rotate("gone")
    tokens.issue("ada", lifetime=timedelta(days=3))
    tokens.rotate("ada", timedelta(0))
    [grant] = tokens.grants()
    assert grant.rotated_at
    assert grant.expires_at == grant.rotated_at + timedelta(days=3)
    assert grant.created_at < grant.rotated_at


@given(created=MOMENTS, ends=st.none() | MOMENTS, moment=MOMENTS, now=MOMENTS)
def test_no_grace_makes_a_token_last_longer(
    created: datetime, ends: datetime | None, moment: datetime, now: datetime
) -> None:
    grant = Grant(agent="ada", created_at=created, expires_at=ends)
    assert grant.ending(moment).holds(now) == (grant.holds(now) and now < moment)


def test_a_name_has_one_role(tokens: TokenFile) -> None:
    tokens.issue("ada")
    with pytest.raises(ConflictError, match="'ada' has another role than 'operator'"):
        tokens.issue("ada", "operator")
    tokens.revoke("ada")
    assert tokens.verify(tokens.issue("ada", "operator")) == Caller(agent="ada", role="operator")


def test_the_list_says_who_and_when_and_no_token(tokens: TokenFile) -> None:
    secrets = [tokens.issue("bob"), tokens.issue("ada", lifetime=timedelta(days=1)), tokens.rotate("bob")]
    listed = tokens.grants()
    assert [grant.agent for grant in listed] == ["ada", "bob", "bob"]
    assert [grant.rotated_at is None for grant in listed] == [True, True, False]
    text = json.dumps([grant.model_dump(mode="json") for grant in listed]) + tokens.path.read_text()
    assert not any(secret in text for secret in secrets)
    assert tokens.path.stat().st_mode & 0o777 == 0o600


def test_of_changes_at_once_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    TokenFile(path).issue("ada")
    with ThreadPoolExecutor(4) as pool:
        rotated = list(pool.map(lambda _: TokenFile(path).rotate("ada"), range(10)))
    assert len({*map(TokenFile(path).verify, rotated)}) == 1
    assert len(TokenFile(path).grants()) == 11

    def revoke_and_rotate(number: int) -> None:
        try:
            TokenFile(path).revoke("ada") if number == 5 else TokenFile(path).rotate("ada")
        except NotFoundError:
            assert number != 5

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(revoke_and_rotate, range(10)))
    assert TokenFile(path).grants() == [], "a rotation brought back somebody who was revoked"


def test_a_file_that_is_damaged_is_not_overwritten(tokens: TokenFile) -> None:
    tokens.path.write_text("{")
    for change in (tokens.issue, tokens.rotate, tokens.revoke):
        with pytest.raises(ConfigError, match="is no token file"):
            change("ada")
    assert tokens.path.read_text() == "{"


def test_a_file_that_cannot_be_read_is_not_called_damaged(tokens: TokenFile) -> None:
    tokens.path.mkdir()
    for read in (tokens.read, lambda: tokens.issue("ada")):
        with pytest.raises(ConfigError, match=r"tokens\.json' cannot be read: Is a directory"):
            read()


# who needs one


def test_over_http_tokens_are_needed_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    settings = ServerSettings(home=tmp_path, transport="http")
    with pytest.raises(OutlearnError, match=r"no token file at .*tokens\.json'; `outlearn token NAME"):
        make_server("kit", settings, instructions="")
    TokenFile(tmp_path / "tokens.json").issue("ada")
    make_server("kit", settings, instructions="")
    assert ServerSettings(home=tmp_path, transport="http", unsafe_no_tokens=True).token_file is None
    assert ServerSettings(home=tmp_path, transport="stdio").token_file is None


@pytest.mark.parametrize(
    "settings", [{"host": "0.0.0.0"}, {"host": "lab.example"}, {"role": "operator"}, {"tokens": "x"}]
)
def test_nobody_is_let_in_without_a_token_from_afar_or_as_an_operator(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="--unsafe-no-tokens is for agents on loopback"):
        ServerSettings(transport="http", unsafe_no_tokens=True, **settings)
