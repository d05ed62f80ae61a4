"""What providers say of people."""

from __future__ import annotations

from typing import Any

import pytest

from haneul.kernel.errors import UnauthenticatedError
from haneul.signon.claims import who_of
from haneul.signon.settings import ProviderSettings


def provider(**changes: Any) -> ProviderSettings:
    base = {"name": "company", "issuer": "https://id.test", "clientId": "apps", "clientSecretFile": "secret"}
    return ProviderSettings.model_validate({**base, **changes})


CLAIMS = {"sub": "7", "preferred_username": "alice", "email": "Alice@example.com", "email_verified": True}


def test_names_groups_and_projects() -> None:
    who = who_of(provider(), {**CLAIMS, "groups": ["b", "a", "a", 5, "", None], "projects": ["shop"]})
    assert (who.user, who.subject, who.email) == ("alice", "7", "Alice@example.com")
    assert (who.groups, who.projects) == (("a", "b"), ("shop",))


def test_lists_that_are_none_are_nothing() -> None:
    assert who_of(provider(), {**CLAIMS, "groups": "admins"}).groups == ()


@pytest.mark.parametrize(
    ("changes", "claims", "email"),
    [
        ({}, {"email_verified": False}, ""),
        ({}, {"email_verified": "true"}, ""),
        ({"emailIsVerified": True}, {"email_verified": False}, "Alice@example.com"),
        ({"emailDomains": ["example.com"]}, {}, "Alice@example.com"),
        ({"emailDomains": ["other.test"]}, {}, ""),
        ({"emailDomains": ["other.test"]}, {"email": "a@example.com@other.test"}, ""),
        ({"prefix": "partner:"}, {}, ""),
        ({"prefix": "partner:", "emailDomains": ["example.com"]}, {}, "Alice@example.com"),
        ({}, {"email": ["x"]}, ""),
        ({}, {"email": "a\r\nb@example.com"}, ""),
    ],
)
def test_addresses_count_where_somebody_vouches_for_them(changes: Any, claims: Any, email: str) -> None:
    assert who_of(provider(**changes), {**CLAIMS, **claims}).email == email


def test_people_of_a_second_provider_are_told_apart() -> None:
    who = who_of(provider(prefix="partner:"), {**CLAIMS, "groups": ["admins"], "projects": ["shop"]})
    assert (who.user, who.groups, who.projects) == ("partner:alice", ("partner:admins",), ("partner:shop",))


def test_nobody_takes_a_name_that_is_anothers() -> None:
    settings = provider(reservedPrefixes=["robot:", "partner:"])
    for name in ("partner:bob", "robot:shop/ci"):
        with pytest.raises(UnauthenticatedError):
            who_of(settings, {**CLAIMS, "preferred_username": name})
    assert who_of(settings, {**CLAIMS, "groups": ["partner:admins", "urn:x:y"]}).groups == ("urn:x:y",)
    prefixed = provider(prefix="company:", reservedPrefixes=["partner:"])
    assert who_of(prefixed, {**CLAIMS, "preferred_username": "partner:bob"}).user == "company:partner:bob"


@pytest.mark.parametrize("name", [None, "", 5, ["alice"], "a\nb", "x" * 300])
def test_who_has_no_name_is_nobody(name: Any) -> None:
    with pytest.raises(UnauthenticatedError):
        who_of(provider(), {**CLAIMS, "preferred_username": name})
