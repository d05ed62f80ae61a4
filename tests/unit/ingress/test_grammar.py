"""What annotations and paths may be, and what they may not."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haneul.ingress import grammar
from haneul.ingress.expressions import parse_expression
from haneul.ingress.grammar import Origin, Rewriting, Url

HOSTILE = ["a{b}", 'a"b', "a'b", "a\\b", "a\nb", "a b", "$host", "a\0b", "a#b\x7f", "é\u2028"]


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (grammar.parse_flag, "true", True),
        (grammar.parse_switch, "off", False),
        (grammar.parse_seconds, "30", 30),
        (grammar.parse_seconds, "30s", 30),
        (grammar.parse_size, "8m", 8 << 20),
        (grammar.parse_size, "0", 0),
        (grammar.parse_host, "WWW.Example.com", "www.example.com"),
        (grammar.parse_host, "*.example.com", "*.example.com"),
        (grammar.parse_url, "https://a.example.com:8443/x?y=1", Url("https", "a.example.com", 8443, "/x?y=1")),
        (
            grammar.parse_url,
            "http://a.example.com$request_uri",
            Url("http", "a.example.com", None, "", with_request=True),
        ),
        (grammar.parse_origins, "*", ()),
        (
            grammar.parse_origins,
            "https://a.com, https://*.b.com:444",
            (Origin("https", "a.com", None), Origin("https", "b.com", 444, wildcard=True)),
        ),
        (grammar.parse_rewriting, "/x/$2?a=$1", Rewriting(("/x/", 2, "?a=", 1))),
        (grammar.parse_path, "/a%20b", "/a b"),
        (grammar.parse_path, "/größe", "/größe"),
        (grammar.parse_methods, "GET, PUT,GET", ("GET", "PUT")),
    ],
)
def test_texts_become_values(parse: Callable[[str], Any], text: str, value: object) -> None:
    assert parse(text) == value


def test_networks_lose_their_host_bits() -> None:
    assert [str(one) for one in grammar.parse_networks("10.1.2.3/8, 192.0.2.1,2001:db8::/32")] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (grammar.parse_flag, "yes"),
        (grammar.parse_seconds, "0"),
        (grammar.parse_seconds, "99999999"),
        (grammar.parse_size, "8 m"),
        (grammar.parse_size, "9999999g"),
        (grammar.parse_host, "a..b"),
        (grammar.parse_host, "*.com.*"),
        (grammar.parse_host, "*"),
        (grammar.parse_host, "a.*.com"),
        (grammar.parse_host, "x" * 64),
        (grammar.parse_url, "javascript:alert(1)"),
        (grammar.parse_url, "https://user@example.com/"),
        (grammar.parse_url, "https://example.com/$host"),
        (grammar.parse_url, "//example.com"),
        (grammar.parse_url, "https://example.com/#x"),
        (grammar.parse_origins, "https://a.com/"),
        (grammar.parse_origins, "https://*"),
        (grammar.parse_networks, ""),
        (grammar.parse_networks, "10.0.0.0/33"),
        (grammar.parse_networks, "fe80::1%eth0"),
        (grammar.parse_rewriting, "/$0"),
        (grammar.parse_rewriting, "/$10"),
        (grammar.parse_rewriting, "/$uri"),
        (grammar.parse_rewriting, "x"),
        (grammar.parse_reference, "//evil.example.com"),
        (grammar.parse_reference, "/%zz"),
        (grammar.parse_path, "a"),
        (grammar.parse_path, "/a/../b"),
        (grammar.parse_path, "/a//b"),
        (grammar.parse_path, "/a%2f.%2fb"),
        (grammar.parse_path, "/%0a"),
        (grammar.parse_path, "/%ff"),
        (grammar.parse_path, "/_haneul_gate_1"),
        (grammar.parse_path, "/" + "x" * 2000),
        (grammar.parse_answered, "Content-Length"),
        (grammar.parse_answered, "X-Haneul-User"),
        (grammar.parse_header_value, "a$b"),
    ],
)
def test_what_is_wrong_is_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(
    "parse",
    [
        grammar.parse_token,
        grammar.parse_tokens,
        grammar.parse_cookie,
        grammar.parse_cookie_path,
        grammar.parse_members,
        grammar.parse_secret_name,
        grammar.parse_host,
        grammar.parse_url,
        grammar.parse_reference,
        grammar.parse_rewriting,
        grammar.parse_networks,
        grammar.parse_origins,
        grammar.parse_size,
        grammar.parse_seconds,
        grammar.parse_methods,
    ],
    ids=lambda parse: parse.__name__,
)
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_is_taken(parse: Callable[[str], Any], text: str) -> None:
    for whole in (text, f"/{text}", f"https://example.com/{text}"):
        with pytest.raises(ValueError):
            parse(whole)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_passwords_are_hashed() -> None:
    assert grammar.parse_passwords(encoded("alice:$apr1$abc$defghi\n\nbob:$2y$05$xyz\n")) == (
        b"alice:$apr1$abc$defghi\nbob:$2y$05$xyz\n"
    )
    for text in ("alice:secret", "alice", "", "#alice:$apr1$a$b", "alice:{PLAIN}secret"):
        with pytest.raises(ValueError):
            grammar.parse_passwords(encoded(text))
    with pytest.raises(ValueError, match="no text"):
        grammar.parse_passwords("***")


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("/something(/|$)(.*)", 2),
        ("/api/v[0-9]+/(?:x|y)", 0),
        (r"/a\.b/\d{1,3}(-[a-z]+)?", 1),
        ("/foo.*?bar", 0),
        (r"/[A-Za-z_.-]+$", 0),
        ("/a|/b", 0),
    ],
)
def test_expressions_are_read_whole(text: str, groups: int) -> None:
    assert parse_expression(text).groups == groups


@pytest.mark.parametrize(
    "text",
    [
        "/(a*)*",
        "/(a|aa)+",
        "/(.*){2}",
        "/(?=a)",
        "/(?<x>a)",
        "/(?i)a",
        r"/\1",
        "/(a",
        "/a)",
        "/[a",
        "/[[:alpha:]]",
        "/a**",
        "/a.*.*.*.*.*",
        "/a{1000}",
        "/a{2,1}",
        "/[z-a]",
        '/"',
        "/a b",
        "/a\n",
        "/{",
        "a",
        "/((((((((((a))))))))))",
        "/" + "a" * 500,
    ],
)
def test_expressions_that_cost_or_hide_something_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_expression(text)


@given(st.text(max_size=80))
def test_whatever_is_taken_cannot_leave_its_place(text: str) -> None:
    for parse in (grammar.parse_path, grammar.parse_reference, grammar.parse_host, grammar.parse_header_value):
        try:
            value = str(parse(text))
        except ValueError:
            continue
        assert not set(value) & set("\"'\\\n\r\0")
        assert parse is grammar.parse_path or "$" not in value


@given(st.text(alphabet="/ab.*+?()[]{}|^$\\d1,-: \"';", max_size=40))
def test_expressions_take_no_quotes_and_repeat_no_groups(text: str) -> None:
    try:
        taken = parse_expression(f"/{text}").text
    except ValueError:
        return
    assert not set(taken) & set("\"'; \n")
    assert not any(ending in taken.replace("\\)", "") for ending in (")*", ")+", "){"))
