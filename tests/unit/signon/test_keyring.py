"""What is sealed, and keys that rotate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.kernel.errors import InvalidInputError
from haneul.signon.keyring import AHEAD, Keyring, as_text, from_text, new_key, rotated

NOW = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
LIFE = timedelta(hours=10)
RING = Keyring("apps.test", [new_key(NOW)])


@given(st.binary(max_size=200))
def test_what_is_sealed_is_opened(content: bytes) -> None:
    sealed = RING.seal("session", content, now=NOW)
    assert RING.open("session", sealed) == content
    assert set(sealed) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@given(st.data())
def test_what_was_changed_is_not(data: st.DataObject) -> None:
    sealed = RING.seal("session", b"somebody", now=NOW)
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = (
        sealed[:at] + data.draw(st.characters(codec="ascii").filter(lambda one: one != sealed[at])) + sealed[at + 1 :]
    )
    assert RING.open("session", changed) is None


def test_the_same_bytes_written_in_another_way_are_not() -> None:
    sealed = next(text for _ in range(10_000) if "-" in (text := RING.seal("session", b"somebody", now=NOW)))
    assert RING.open("session", sealed.replace("-", "+")) is None
    # 36 bytes leave no bit of the last character unused; 37 leave four.
    short = RING.seal("session", b"somebody!", now=NOW)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert RING.open("session", short[:-1] + alphabet[alphabet.index(short[-1]) ^ 1]) is None


@given(st.text(max_size=60))
def test_nonsense_is_not(text: str) -> None:
    assert RING.open("session", text) is None


def test_it_is_for_one_purpose_and_one_domain() -> None:
    key = new_key(NOW)
    sealed = Keyring("apps.test", [key]).seal("state", b"x", now=NOW)
    assert Keyring("apps.test", [key]).open("session", sealed) is None
    assert Keyring("other.test", [key]).open("state", sealed) is None
    assert Keyring("apps.test", [key]).open("state", sealed) == b"x"


def test_a_new_key_seals_when_all_gates_know_it_and_old_ones_open_for_the_life_of_a_session() -> None:
    first = new_key(NOW)
    both = rotated([first], now=NOW, life=LIFE)
    ring = Keyring("apps.test", both)
    before = ring.seal("session", b"x", now=NOW + AHEAD - timedelta(seconds=1))
    after = ring.seal("session", b"x", now=NOW + AHEAD)
    assert (before.partition(".")[0], after.partition(".")[0]) == (first.id, both[1].id)
    # What the first key sealed last is good until a life after the second took over.
    ends = NOW + AHEAD + LIFE
    assert first in rotated(both, now=ends - timedelta(seconds=1), life=LIFE)
    kept = rotated(both, now=ends, life=LIFE)
    assert (first in kept, both[1] in kept, len(kept)) == (False, True, 2)


def test_rotating_often_forgets_nothing_that_is_good() -> None:
    keys, now = [new_key(NOW)], NOW
    sealed: list[tuple[datetime, str]] = []
    for _ in range(60):
        now += timedelta(minutes=30)
        ring = Keyring("apps.test", keys)
        sealed.append((now, ring.seal("session", b"x", now=now)))
        keys = rotated(keys, now=now, life=LIFE)
        ring = Keyring("apps.test", keys)
        assert all(ring.open("session", text) for moment, text in sealed if now - moment < LIFE)
    assert len(keys) < 25


def test_the_file_is_read_as_it_was_written() -> None:
    keys = [new_key(NOW), new_key(NOW + AHEAD)]
    assert from_text("\n" + as_text(keys)) == keys


@pytest.mark.parametrize(
    "text", ["", "\n", "a", "id 2026-11-27T09:00:00Z c2hvcnQ=", "id 2026-11-27T09:00:00 " + "A" * 43 + "=",
             "i.d 2026-11-27T09:00:00Z " + "A" * 43 + "=", "id tomorrow " + "A" * 43 + "=",
             "id 2026-11-27T09:00:00Z ä"],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        from_text(text)
    assert "AAAA" not in refused.value.detail
