"""When signing keys are made, used and forgotten."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from haneul.identity.issuer.key_plan import KEEP, LEAD, PERIOD, KeyPlan, KeyTimes, plan_keys

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_the_first_key_signs_at_once() -> None:
    assert plan_keys([], NOW) == KeyPlan(None, NOW, ())
    assert plan_keys([KeyTimes("a", NOW)], NOW) == KeyPlan("a", None, ())


def test_the_next_is_published_a_day_before_it_signs() -> None:
    keys = [KeyTimes("a", NOW)]
    end = NOW + PERIOD
    assert plan_keys(keys, end - LEAD - timedelta(seconds=1)).make is None
    assert plan_keys(keys, end - LEAD).make == end
    both = [*keys, KeyTimes("b", end)]
    assert plan_keys(both, end - LEAD) == KeyPlan("a", None, ())
    assert plan_keys(both, end) == KeyPlan("b", None, ())


def test_the_replaced_one_is_kept_until_all_that_it_signed_has_expired() -> None:
    keys = [KeyTimes("a", NOW), KeyTimes("b", NOW + PERIOD)]
    assert plan_keys(keys, NOW + PERIOD + KEEP - timedelta(seconds=1)).drop == ()
    assert plan_keys(keys, NOW + PERIOD + KEEP).drop == ("a",)


def test_after_a_long_sleep_the_old_key_signs_until_the_new_one_is_known() -> None:
    late = NOW + 3 * PERIOD
    assert plan_keys([KeyTimes("a", NOW)], late) == KeyPlan("a", late + LEAD, ())


@given(st.lists(st.integers(1, 40 * 24), min_size=1, max_size=60))
def test_whenever_one_looks_every_signature_can_be_verified_by_who_looked_a_day_ago(hours: list[int]) -> None:
    keys: dict[str, KeyTimes] = {}
    published: dict[str, datetime] = {}
    now = NOW
    for number, step in enumerate([0, *hours]):
        now += timedelta(hours=step)
        plan = plan_keys(list(keys.values()), now)
        if plan.make is not None:
            kid = f"k{number}"
            keys[kid] = KeyTimes(kid, plan.make)
            published[kid] = now
        for kid in plan.drop:
            del keys[kid]
        after = plan_keys(list(keys.values()), now)
        # Nothing is left to do, and one key signs.
        assert (after.make, after.drop) == (None, ())
        assert after.signing in keys
        assert len(keys) <= 3
        first = min(published, key=lambda kid: published[kid])
        assert after.signing == first or now - published[after.signing] >= LEAD
