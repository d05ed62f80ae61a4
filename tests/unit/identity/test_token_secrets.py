"""Token secrets: their form, and how they are checked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from haneul.identity.secrets import SecretHasher, new_token, split_token
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnauthenticatedError


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(datetime(2026, 11, 24, tzinfo=UTC))


def test_a_token_is_taken_apart_into_what_it_was_made_of() -> None:
    for _ in range(50):
        identity, secret, text = new_token()
        # Secrets may have underscores of their own.
        assert split_token(text) == (identity, secret)
        assert len(secret) >= 43, "256 bits at least"


@pytest.mark.parametrize("text", ["", "haneul", "haneul_", "haneul__x", "haneul_x", "haneul_x_", "other_x_y", "_x_y"])
def test_what_is_no_token_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        split_token(text)
    assert caught.value.hint
    assert not text or text not in caught.value.detail.split()


def test_only_the_secret_itself_matches_its_hash(clock: VirtualClock) -> None:
    hasher = SecretHasher(clock)
    hashed = hasher.hash("right")
    assert "right" not in hashed
    assert hashed != hasher.hash("right"), "every hash has its own salt"
    for _ in range(2):
        # The second time is remembered; a wrong secret must not profit from it.
        assert hasher.matches(hashed, "right")
        assert not hasher.matches(hashed, "wrong")
    assert not hasher.matches("no hash", "right")
    assert not hasher.matches(None, "right")


def test_what_was_checked_is_remembered_for_a_while_only(clock: VirtualClock) -> None:
    hasher = SecretHasher(clock)
    hashed = hasher.hash("right")
    assert hasher.matches(hashed, "right")
    assert hasher.matches(hashed, "right")
    clock.advance(31)
    assert hasher.matches(hashed, "right")
    assert not hasher.matches(hashed, "wrong")


def test_hashes_are_as_slow_as_is_recommended(clock: VirtualClock) -> None:
    # OWASP's Password Storage Cheat Sheet: Argon2id with 19 MiB, two passes, one lane.
    parameters = extract_parameters(SecretHasher(clock).hash("secret"))
    assert (parameters.type, parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (
        Type.ID,
        19 * 1024,
        2,
        1,
    )
