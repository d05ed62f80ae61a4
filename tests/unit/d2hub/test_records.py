"""Signatures, waits, answers, addresses, events: pure."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.cli.spans import parse_span
from haneul.d2hub.deliveries import DeliveryState, Outcome, RetryPolicy, outcome
from haneul.d2hub.happenings import TOLD, AuditEntry, Happening, event_of
from haneul.d2hub.receivers import Receiver, is_local, parse_url, shown
from haneul.d2hub.rules import ProjectRules
from haneul.d2hub.signing import parse_secrets, signed_headers
from haneul.kernel.errors import InvalidInputError

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
#: The example of the specification's own libraries.
PUBLISHED_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PUBLISHED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


def test_signatures_are_those_that_are_published() -> None:
    body = b'{"test": 2432232314}'
    identity, at = PUBLISHED["webhook-id"], int(PUBLISHED["webhook-timestamp"])
    assert signed_headers(parse_secrets(PUBLISHED_SECRET), identity=identity, at=at, body=body) == PUBLISHED
    other = "whsec_" + "A" * 32
    both = signed_headers(parse_secrets(f"{other}\n{PUBLISHED_SECRET}\n"), identity=identity, at=at, body=body)
    assert both["webhook-signature"].split()[1] == PUBLISHED["webhook-signature"]
    assert len(both["webhook-signature"].split()) == 2


@pytest.mark.parametrize(
    "text",
    ["", "secret", "whsec_", "whsec_short", "whsec_" + "A" * 28, "whsec_" + "A" * 88, "A" * 32, "whsec_" + "é" * 32],
)
def test_what_is_no_secret_is_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_secrets(text)
    assert not text or text not in refused.value.detail.removeprefix("the secret is not whsec_")


@given(st.integers(1, 1000), st.integers())
def test_waits_grow_and_end(attempts: int, seed: int) -> None:
    policy = RetryPolicy(first_seconds=5, longest_seconds=3600)
    whole = min(5 * 4 ** min(attempts - 1, 50), 3600)
    wait = policy.wait(attempts, random.Random(seed)).total_seconds()  # noqa: S311 - chance, no secret
    assert whole / 2 <= wait <= whole


def test_the_last_attempt_is_made_within_a_day() -> None:
    policy = RetryPolicy()
    longest = sum(min(policy.first_seconds * 4**turn, policy.longest_seconds) for turn in range(policy.attempts - 1))
    assert timedelta(hours=9) < timedelta(seconds=longest / 2)
    assert timedelta(seconds=longest) < timedelta(hours=20)


@pytest.mark.parametrize(
    ("status", "attempts", "state"),
    [
        (200, 1, DeliveryState.DELIVERED),
        (204, 10, DeliveryState.DELIVERED),
        (302, 1, DeliveryState.WAITING),
        (400, 1, DeliveryState.WAITING),
        (410, 1, DeliveryState.FAILED),
        (500, 9, DeliveryState.WAITING),
        (500, 10, DeliveryState.FAILED),
        (None, 1, DeliveryState.WAITING),
        (None, 10, DeliveryState.FAILED),
    ],
)
def test_what_an_answer_means(status: int | None, attempts: int, state: DeliveryState) -> None:
    chance = random.Random(1)  # noqa: S311 - chance, no secret
    found = outcome(status, "said", attempts, RetryPolicy(attempts=10), now=NOW, chance=chance)
    assert (found.state, found.answer) == (state, "said")
    assert (found.at > NOW) is (state is DeliveryState.WAITING)
    assert isinstance(found, Outcome)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",  # noqa: S104 - to be refused
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "ff02::1",
    ],
)
def test_addresses_that_are_nobodys_business(address: str) -> None:
    assert is_local(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.1.1", "192.0.2.1", "2001:db8::1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_addresses_of_receivers(address: str) -> None:
    assert not is_local(address)


@pytest.mark.parametrize("url", ["http://ci", "https://ci.example.com:8443/hub?x=1", "https://[2001:db8::1]/"])
def test_urls_of_receivers(url: str) -> None:
    assert parse_url(url) == url
    assert "?" not in shown(url)


@pytest.mark.parametrize(
    "url",
    ["", "ci", "ftp://ci", "https://", "https://u:p@ci/", "https://ci/#x", "https://ci/ x", "https://ci:99999/",
     "https://ci/\n", "https://[::1", "https://ci/" + "x" * 1000],
)  # fmt: skip
def test_what_is_no_url_of_a_receiver(url: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_url(url)


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        assert parse_url(text) == text
    except InvalidInputError:
        return


def test_an_event_says_what_happened_and_not_from_where() -> None:
    entry = AuditEntry(NOW, Happening.PUSH, "shop/web", "v1", "sha256:aa", "alice", "192.0.2.7")
    event = event_of(entry, identity="evt_1", media_type="a/b")
    assert {key: event[key] for key in ("specversion", "id", "type", "subject", "time")} == {
        "specversion": "1.0",
        "id": "evt_1",
        "type": "dev.haneul.d2hub.push",
        "subject": "shop/web:v1",
        "time": "2026-11-24T09:00:00Z",
    }
    assert event["data"] == {
        "action": "push",
        "project": "shop",
        "repository": "shop/web",
        "tag": "v1",
        "digest": "sha256:aa",
        "account": "alice",
        "mediaType": "a/b",
    }
    assert "192.0.2.7" not in str(event)
    by_digest = event_of(AuditEntry(NOW, Happening.DELETE, "shop/web", "", "sha256:aa", "x"), identity="evt_2")
    assert by_digest["subject"] == "shop/web@sha256:aa"


def test_rules_say_who_is_told() -> None:
    everything = Receiver("https://a/", Path("a"))
    deletions = Receiver("https://b/", Path("b"), frozenset({Happening.DELETE}))
    rules = ProjectRules(notify=(everything, deletions))
    assert rules.receivers_of(Happening.PUSH) == ("https://a/",)
    assert rules.receivers_of(Happening.DELETE) == ("https://a/", "https://b/")
    assert rules.receivers_of(Happening.PULL) == ()
    assert rules.receiver("https://b/") == deletions
    assert rules.receiver("https://c/") is None
    assert Happening.PURGE not in TOLD


def test_stretches_of_time() -> None:
    assert parse_span("90m") == timedelta(minutes=90)
    assert parse_span("7d") == timedelta(days=7)
    for text in ("", "7", "d", "-1h", "1.5h", "999999d", "1w"):
        with pytest.raises(InvalidInputError):
            parse_span(text)
