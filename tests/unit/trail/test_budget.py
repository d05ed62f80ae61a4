"""What is kept never exceeds the budget, in no second and on no day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from haneul.trail.budget import Budget, Limits

START = datetime(2026, 11, 27, 23, 59, 0, tzinfo=UTC)
STEPS = st.lists(
    st.tuples(st.floats(0, 30, allow_nan=False), st.integers(0, 700), st.booleans()), min_size=1, max_size=60
)


@given(STEPS)
def test_no_second_and_no_day_has_more_than_it_may(steps: list[tuple[float, int, bool]]) -> None:
    limits = Limits(per_second=1000, per_day=3000, reserved=600)
    budget = Budget(limits, START)
    budget.learn(500, 100)
    passed = 0.0
    kept: list[tuple[float, int]] = []
    days = {START.date(): [500, 100]}
    for seconds, size, collected in steps:
        passed += seconds
        now = START + timedelta(seconds=passed)
        day = days.setdefault(now.date(), [0, 0])
        if collected:
            if budget.take_collected(size, now=now):
                day[1] += size
        elif budget.take(size, now=now, monotonic=passed):
            kept.append((passed, size))
            day[0] += size
    for began, _ in kept:
        assert sum(size for moment, size in kept if began <= moment < began + 1.0) <= limits.per_second
    for automatic, collected_bytes in days.values():
        assert automatic + collected_bytes <= limits.per_day
        assert automatic <= limits.per_day - limits.reserved


def test_a_whole_second_is_used_and_then_the_next() -> None:
    budget = Budget(Limits(1000, 1 << 30), START)
    budget.learn(0, 0)
    assert budget.take(1000, now=START, monotonic=5.0)
    assert not budget.take(1, now=START, monotonic=5.999)
    assert budget.take(1000, now=START, monotonic=6.0)


def test_a_flood_leaves_room_to_collect() -> None:
    budget = Budget(Limits(1 << 20, 1000, reserved=400), START)
    budget.learn(0, 0)
    assert budget.take(600, now=START, monotonic=0.0)
    assert not budget.take(1, now=START, monotonic=9.0)
    assert budget.take_collected(400, now=START)
    assert not budget.take_collected(1, now=START)
    budget.give_back(100)
    assert budget.take_collected(100, now=START)


def test_nothing_is_given_before_it_is_known_what_was_used() -> None:
    budget = Budget(Limits(1000, 1000), START)
    assert not budget.take(1, now=START, monotonic=0.0)
    assert not budget.take_collected(1, now=START)
    budget.learn(999, 0)
    assert not budget.take(2, now=START, monotonic=0.0)
    assert budget.take(1, now=START, monotonic=0.0)


def test_a_clock_that_is_set_back_gives_no_second_day() -> None:
    budget = Budget(Limits(1 << 20, 1000), START)
    budget.learn(0, 0)
    tomorrow = START + timedelta(days=1)
    assert budget.take(1000, now=START, monotonic=0.0)
    assert budget.take(1000, now=tomorrow, monotonic=10.0)
    assert not budget.take(1, now=START, monotonic=20.0)
    assert not budget.take(1, now=tomorrow, monotonic=30.0)
