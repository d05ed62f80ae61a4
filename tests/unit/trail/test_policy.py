"""Which records are kept, and how little may be written to say so."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from haneul.ingress.grammar import parse_audit
from haneul.trail.policy import DEFAULT, Policy, parse_policy
from tests.unit.trail.samples import message, record

KEPT = ("errors", " errors ", "matched", "slow=2s", "slow=250ms", "sample=1%", "sample=100%", "sample=0.01%")
WRONG = ("", "Errors", "slow=2", "slow=1234567s", "sample=0%", "sample=100.1%", "sample=0.001%", "sample=1")
WORDS = st.sampled_from((*KEPT, *WRONG, "all", "nothing", "off"))


@pytest.mark.parametrize(
    ("text", "status", "seconds", "rules", "why"),
    [
        ("errors", 200, 9.0, True, ""),
        ("errors", 404, 0.1, False, "error"),
        ("errors", 0, 0.1, False, "error"),
        ("matched", 200, 0.1, True, "matched"),
        ("matched", 500, 0.1, False, ""),
        ("slow=2s", 200, 2.0, False, "slow"),
        ("slow=2s", 200, 1.9, False, ""),
        ("slow=250ms", 200, 0.25, False, "slow"),
        ("errors,slow=1s,matched", 500, 2.0, True, "error"),
        ("all", 200, 0.1, False, "sample"),
        ("nothing", 500, 9.0, True, ""),
        ("off", 500, 9.0, True, ""),
    ],
)
def test_a_record_is_kept_for_what_the_policy_says(
    text: str, status: int, seconds: float, rules: bool, why: str
) -> None:
    told = record(status=status, seconds=seconds, messages=[message()] if rules else [])
    assert parse_policy(text).why(told) == why


def test_a_sample_is_its_part_and_always_the_same() -> None:
    records = [record(unique=f"{number:032x}") for number in range(4000)]
    policy = parse_policy("sample=10%")
    kept = [number for number, one in enumerate(records) if policy.why(one)]
    assert 300 < len(kept) < 500
    assert kept == [number for number, one in enumerate(records) if policy.why(one)]
    more = parse_policy("sample=20%")
    assert all(more.why(records[number]) for number in kept)


def test_only_off_is_not_even_looked_at() -> None:
    assert not parse_policy("off").watched
    assert parse_policy("nothing").watched
    assert parse_policy(DEFAULT) == Policy(errors=True, matched=True, slow=5.0, sample=100)


@given(st.lists(WORDS, min_size=1, max_size=4).map(",".join) | st.text(max_size=20))
@example("all,errors")
@example("errors,errors")
@example("errors, slow=2s")
def test_an_annotation_and_a_policy_have_one_grammar(text: str) -> None:
    def taken(read: object) -> bool:
        try:
            read(text)  # type: ignore[operator]
        except ValueError:
            return False
        return True

    assert taken(parse_audit) == taken(parse_policy)
    if taken(parse_audit):
        assert parse_policy(parse_audit(text)) == parse_policy(text)
