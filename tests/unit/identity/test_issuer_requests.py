"""Requests to the issuer and limits of attempts: pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.identity.issuer.limits import Limit, Window, count
from haneul.identity.issuer.model import CLI, SCOPES, Client, OAuthError
from haneul.identity.issuer.requests import known_scope, parameters, redirect_allowed, verifies
from haneul.kernel.openid import challenge_of, with_parameters

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_the_challenge_is_that_of_rfc_7636() -> None:
    # Appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert verifies(verifier, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")


@given(st.text(), st.text())
def test_only_a_verifier_of_the_right_form_verifies(verifier: str, challenge: str) -> None:
    assert not verifies(verifier, challenge)
    assert not verifies(verifier[:42], challenge_of(verifier[:42]))


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("http://127.0.0.1:1024/callback", True),
        ("http://[::1]:1024/callback", True),
        ("http://127.0.0.1/callback", False),
        ("https://127.0.0.1:1/callback", False),
        ("http://127.0.0.1:99999/callback", False),
        ("http://127.0.0.1:1/callback?x=1", False),
        ("http://127.0.0.1:1/callback/", False),
        ("http://127.0.0.2:1/callback", False),
        ("http://[::1/callback", False),
        ("HTTP://127.0.0.1:1/callback", False),
        ("", False),
    ],
)
def test_codes_of_the_command_line_stay_on_its_machine(uri: str, allowed: bool) -> None:
    assert redirect_allowed(CLI, uri) is allowed


@given(st.text())
def test_codes_of_others_go_to_registered_addresses_to_the_letter(suffix: str) -> None:
    client = Client(id="wiki", name="wiki", redirect_uris=("https://wiki.test/back",))
    assert redirect_allowed(client, "https://wiki.test/back" + suffix) is (suffix == "")


def test_parameters_come_once() -> None:
    assert parameters("a=1&b=&c=%20x") == {"a": "1", "c": " x"}
    for text in ("a=1&a=2", "a=%ff", "&".join(f"p{number}=1" for number in range(60))):
        with pytest.raises(OAuthError):
            parameters(text)


@given(st.lists(st.text()))
def test_scopes_are_those_that_there_are(asked: list[str]) -> None:
    assert set(known_scope(" ".join(asked)).split()) <= set(SCOPES)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_is_added_to_an_address_is_read_back(value: str) -> None:
    for uri in ("https://x.test/cb", "https://x.test/cb?kept=1"):
        query = parse_qs(urlsplit(with_parameters(uri, {"state": value, "empty": ""})).query)
        assert query["state"] == [value] and "empty" not in query


@given(st.lists(st.integers(0, 200), max_size=100), st.integers(1, 8))
def test_no_window_lets_more_attempts_through_than_its_limit(steps: list[int], most: int) -> None:
    limit, now = Limit(most, timedelta(seconds=300)), NOW
    window: Window | None = None
    let: list[datetime] = []
    for step in steps:
        now += timedelta(seconds=step)
        counted = count(window, limit, now)
        if counted is not None:
            window = counted
            let.append(now)
    # Two windows may meet, so in any span of one window's length at most twice as many.
    for first in let:
        assert sum(first <= moment < first + limit.window for moment in let) <= 2 * most
    assert len(let) >= min(len(steps), 1)
