"""The last records, in so many bytes; what is frozen stays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haneul.kernel.errors import ConflictError
from haneul.trail.ring import Ring


def line(number: int, size: int = 40) -> bytes:
    # What does not compress, so that sizes are what they seem.
    noise = "".join(f"{(number * 7919 + at * 104729) % 65521:04x}" for at in range(max(1, size // 4)))
    return f"{number} {noise}\n".encode()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=120))
def test_it_never_has_more_bytes_than_it_may_and_keeps_the_newest(sizes: list[int]) -> None:
    ring = Ring(16_000)
    lines = [line(number, size) for number, size in enumerate(sizes)]
    for number, one in enumerate(lines):
        ring.add(number, one)
        assert ring.state().size <= 16_000
    kept = list(ring.newest_first(0))
    assert kept == lines[::-1][: len(kept)]
    assert not lines or kept
    assert ring.state().records == len(kept)


def test_it_is_read_back_to_a_moment() -> None:
    ring = Ring(1 << 20)
    for number in range(100):
        ring.add(number, line(number))
    assert list(ring.newest_first(95)) == [line(number) for number in range(99, 94, -1)]


def test_what_is_frozen_stays_while_newer_records_come_and_go() -> None:
    ring = Ring(8_000)
    for number in range(20):
        ring.add(number, line(number))
    assert ring.freeze() == 20
    for number in range(20, 2000):
        ring.add(number, line(number))
    kept = list(ring.newest_first(0))
    assert kept[-20:] == [line(number) for number in range(19, -1, -1)]
    assert kept[0] == line(1999)
    assert ring.state().size <= 16_000
    assert ring.state().frozen_records == 20
    assert ring.thaw()
    assert not ring.thaw()
    assert line(0) not in list(ring.newest_first(0))


def test_a_second_freeze_would_lose_the_first() -> None:
    ring = Ring(8_000)
    ring.freeze()
    with pytest.raises(ConflictError):
        ring.freeze()


def test_a_record_larger_than_the_ring_is_left_out() -> None:
    ring = Ring(100)
    ring.add(1, b"x" * 101)
    assert ring.state().records == 0
