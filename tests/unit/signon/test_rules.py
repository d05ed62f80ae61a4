"""Who may pass a route."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.kernel.errors import InvalidInputError
from haneul.signon.model import Who
from haneul.signon.rules import Rule, parse_rule, rule_of

ALICE = Who("company", "1", "alice", "Alice@example.com", ("devs",), ("shop",))
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name.encode("utf-8", "ignore").decode() == name)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("anyone", True),
        ("project:shop", True),
        ("project:lab", False),
        ("group:devs", True),
        ("group:shop", False),
        ("person:alice", True),
        ("person:ALICE", False),
        ("email:alice@EXAMPLE.com", True),
        ("email:alice", False),
        # A user name that looks like an address is none.
        ("person:alice@example.com", False),
        ("project:lab group:ops person:alice", True),
        ("project:lab group:ops person:bob", False),
    ],
)
def test_one_fitting_word_is_enough(text: str, may: bool) -> None:
    assert parse_rule(text).admits(ALICE) is may


def test_who_has_no_address_fits_no_address() -> None:
    assert not Rule(emails=frozenset({""})).admits(Who("company", "1", "bob"))


@pytest.mark.parametrize(
    "text",
    ["", " ", "anyone ", "everyone", "project:", "project", "team:x", "person:a  person:b", "anyone,person:a",
     "person:%FF", "PROJECT:shop", "x" * 5000],
)  # fmt: skip
def test_what_is_no_rule_lets_nobody_pass(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_rule(text)


def test_a_rule_is_for_anyone_or_for_some() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {},
        {"anyone": True, "people": ["a"]},
        {"groups": [""]},
        {"people": [f"person-{n}" for n in range(999)]},
    )
    for wrong in wrongs:
        with pytest.raises(InvalidInputError):
            rule_of(**wrong)


@given(st.lists(NAMES), st.lists(NAMES), st.lists(NAMES), NAMES)
def test_whatever_names_are_the_header_holds_them(
    projects: list[str], groups: list[str], people: list[str], email: str
) -> None:
    rule = rule_of(projects=projects, groups=groups, people=people, emails=[email])
    words = rule.words()
    assert words.isascii() and words.isprintable() and not set(words) & set('"\\$;{}')
    assert parse_rule(words) == rule


def test_it_is_told_in_words() -> None:
    rule = rule_of(projects=["shop"], groups=["ops"], people=["bob"], emails=["C@x.test"])
    assert rule.told() == ["members of the project shop", "the group ops", "bob", "c@x.test"]
    assert rule_of(anyone=True).told() == ["everybody who is signed on"]
