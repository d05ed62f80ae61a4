"""Where browsers may be sent back to."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.kernel.errors import InvalidInputError
from haneul.signon.addresses import sites_of

SITES = sites_of("https://auth.apps.test", "apps.test")
BEHIND = sites_of("https://auth.apps.test:8443/", "apps.test")


@pytest.mark.parametrize(
    "address",
    [
        "https://apps.test",
        "https://wiki.apps.test/",
        "https://a.b.apps.test/path?query=a%20b&c=[1]|{2}",
        "https://wiki.apps.test:443/",
        "https://wiki.apps.test/go?to=https://evil.test",
        "https://wiki.apps.test//evil.test",
    ],
)
def test_addresses_of_the_domain_are_good(address: str) -> None:
    assert SITES.allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/",
        "//evil.test",
        "///evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "https:evil.test",
        "https:/evil.test",
        "https:///evil.test",
        "https:\\\\wiki.apps.test",
        "https://evil.test",
        "https://evil.test/https://wiki.apps.test",
        "https://evil.test?.apps.test",
        "https://evil.test#.apps.test",
        "https://evil.test\\.apps.test",
        "https://evil.test\\@wiki.apps.test",
        "https://wiki.apps.test@evil.test",
        "https://user@wiki.apps.test/",
        "https://user:secret@wiki.apps.test/",
        "https://@wiki.apps.test/",
        "https://evilapps.test/",
        "https://apps.test.evil.test/",
        "https://apps.test./",
        "https://.apps.test/",
        "https://-x.apps.test/",
        "https://WIKI.apps.test/",
        "https://wiki.apps.test:8443/",
        "https://wiki.apps.test:/",
        "https://wiki.apps.test:0443443/",
        "http://wiki.apps.test/",
        "javascript:alert(1)//wiki.apps.test",
        "data:text/html,x",
        " https://wiki.apps.test/",
        "https://wiki.apps.test/ ",
        "https://wiki.apps.test/\r\nSet-Cookie: a=b",
        "https://wiki.apps.test/\n",
        "ht\ntps://evil.test",
        "https://wiki.apps.test/\\evil",
        "https://wiki.apps.test/#fragment",
        "https://wiki.apps.test?query",
        "https://wiki.äpps.test/",
        "https://wiki.apps.test/ä",
        "https://[::1]/",
        "https://127.0.0.1/",
        "https://wiki。apps.test/",
        "https://wiki.apps.test/" + "a" * 2048,
    ],
)
def test_nothing_else_is(address: str) -> None:
    assert not SITES.allows(address)


def test_all_hosts_are_at_the_gates_own_port() -> None:
    assert BEHIND.url == "https://auth.apps.test:8443"
    assert BEHIND.allows("https://wiki.apps.test:8443/") and not BEHIND.allows("https://wiki.apps.test/")


@given(st.text() | st.from_regex(r"https:[/\\]{0,3}[a-z.@\\:]{0,20}apps\.test[/\\?#@:.a-z]{0,12}", fullmatch=True))
def test_what_is_allowed_is_of_the_domain_however_it_is_read(address: str) -> None:
    if SITES.allows(address):
        # As a browser would: a backslash is a slash, and tabs and line ends are not there.
        read = urlsplit(address.replace("\\", "/").translate({9: None, 10: None, 13: None}))
        assert read.scheme == "https" and read.username is None
        assert read.hostname is not None and f".{read.hostname}".endswith(".apps.test")


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://auth.apps.test", "test"),
        ("https://auth.apps.test", ".apps.test"),
        ("https://auth.apps.test", "Apps.test"),
        ("https://auth.apps.test", "other.test"),
        ("https://127.0.0.1", "0.0.1"),
        ("http://auth.apps.test", "apps.test"),
        ("https://auth.apps.test/gate", "apps.test"),
        ("https://auth.apps.test:0", "apps.test"),
        ("https://auth.apps.test:99999", "apps.test"),
    ],
)
def test_a_gate_is_one_of_its_domains_hosts(url: str, domain: str) -> None:
    with pytest.raises(InvalidInputError):
        sites_of(url, domain)
