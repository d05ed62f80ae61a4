"""What the company's provider says of a person, read as the settings say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from haneul.identity.issuer.claims import colleague
from haneul.identity.issuer.relying import ProviderSettings, read_provider
from haneul.identity.model import LONGEST_NAME
from haneul.kernel.errors import InvalidInputError, UnauthenticatedError
from haneul.kernel.names import parse_label


def settings(**changes: Any) -> ProviderSettings:
    needed = {"issuer": "https://login.test", "clientId": "haneul", "clientSecretFile": "/data/secret"}
    return ProviderSettings.model_validate({**needed, **changes})


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("alice", "alice"),
        ("Alice.Kim@example.com", "alice-kim"),
        ("EXAMPLE\\alice", "example-alice"),
        ("a" * 40, "a" * LONGEST_NAME),
        ("kim_", "kim"),
    ],
)
def test_names_are_made_of_a_claim(said: str, name: str) -> None:
    assert colleague(settings(), {"sub": "1", "preferred_username": said}).name == name


@pytest.mark.parametrize("said", ["", "@example.com", "42", "---", "김하늘"])
def test_what_no_name_can_be_made_of_is_refused(said: str) -> None:
    with pytest.raises(UnauthenticatedError, match="no name"):
        colleague(settings(), {"sub": "1", "preferred_username": said})


@given(st.text())
def test_whatever_comes_out_is_a_persons_name(said: str) -> None:
    try:
        name = colleague(settings(), {"sub": "1", "preferred_username": said}).name
    except UnauthenticatedError:
        return
    assert parse_label(name, what="name", longest=LONGEST_NAME) == name


DOMAINS: list[tuple[dict[str, Any], bool]] = [
    ({"email": "a@example.com", "email_verified": True}, True),
    ({"email": "a@EXAMPLE.com", "email_verified": True}, True),
    ({"email": "a@example.com"}, False),
    ({"email": "a@example.com", "email_verified": "true"}, False),
    ({"email": "a@sub.example.com", "email_verified": True}, False),
    ({"email": "a@example.com.evil.test", "email_verified": True}, False),
    ({"email": "example.com", "email_verified": True}, False),
    ({"email_verified": True}, False),
]


@pytest.mark.parametrize(("claims", "allowed"), DOMAINS)
def test_only_proved_addresses_of_the_named_domains_are_let_in(claims: dict[str, Any], allowed: bool) -> None:
    strict = settings(allowedDomains=["example.com"])
    whole = {"sub": "1", "preferred_username": "alice", **claims}
    if allowed:
        assert colleague(strict, whole).name == "alice"
    else:
        with pytest.raises(UnauthenticatedError):
            colleague(strict, whole)


@pytest.mark.parametrize(
    ("said", "groups"),
    [(["a", "b", 3], frozenset({"a", "b"})), ([], frozenset()), ("a", None), (None, None), ({"a": 1}, None)],
)
def test_groups_are_a_list_or_nothing_was_said(said: Any, groups: frozenset[str] | None) -> None:
    assert (
        colleague(settings(groupsClaim="roles"), {"sub": "1", "preferred_username": "a", "roles": said}).groups
        == groups
    )


def test_a_provider_is_reached_by_https() -> None:
    with pytest.raises(ValidationError):
        settings(issuer="http://login.test")


def test_a_file_that_is_not_there_or_not_right(tmp_path: Path) -> None:
    assert read_provider(tmp_path / "absent.yaml") is None
    for text in ("issuer: https://login.test", "a: [", "colour: red"):
        (tmp_path / "provider.yaml").write_text(text)
        with pytest.raises(InvalidInputError):
            read_provider(tmp_path / "provider.yaml")
