"""nginx's configuration: golden files, and that nothing from an object becomes more than a word of it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haneul.ingress.annotations import OTHER_PREFIX, PREFIX, Wishes
from haneul.ingress.asking import Gate
from haneul.ingress.directives import Pattern, Text, Word, block, joined, line, render
from haneul.ingress.model import Certificate
from haneul.ingress.options import Options
from haneul.ingress.ports import Configuration
from haneul.ingress.rendering import Site, render_configuration
from haneul.ingress.routes import compile_routes
from haneul.kernel.kube import Manifest
from tests import golden
from tests.unit.ingress import nginx_text
from tests.unit.ingress.objects import HOST, NOW, certificate, ingress, observed, path, secret, tls_secret

GATE = Gate("127.0.0.1:4180")
SITE = Site(
    ("0.0.0.0:80", "[::]:80"),
    ("0.0.0.0:443",),
    443,
    Certificate(b"chain", b"key"),
    folder="/var/lib/haneul/ingress/shop",
    lua="/usr/share/haneul",
    user="www-data",
    trusted=(ipaddress.ip_network("10.0.0.0/8"),),
    gate=GATE,
    access_log="access.log",
)


#: Of no use but to be in a golden file.
AUTHORITY = (Path(__file__).parent / "authority.crt").read_bytes()


def configured(*manifests: Manifest, site: Site = SITE) -> Configuration:
    routes = compile_routes(observed(*manifests), Options(gate=True), NOW)
    return render_configuration(routes, site)


def servers(text: str) -> dict[str, list[Any]]:
    """Return each server's directives by its name."""
    [http] = [node for node in nginx_text.parse(text) if node[0] == "http"]
    found = {}
    for node in http[-1]:
        if node[0] == "server":
            name = next((inner[1] for inner in node[-1] if inner[0] == "server_name"), "")
            found[name] = node[-1]
    return found


def locations(text: str, host: str = HOST) -> list[tuple[str, ...]]:
    return [tuple(node[1:-1]) for node in servers(text)[host] if node[0] == "location"]


def shown(text: str) -> str:
    """Return a configuration without its generation, which is of the whole."""
    return "".join(f"{piece}\n" for piece in text.splitlines() if "return 200" not in piece)


EXAMPLES: dict[str, list[Manifest]] = {
    "nothing": [],
    "plain": [ingress("web", path("/"), path("/api"), path("/login", "Exact"))],
    "expressions": [
        ingress(
            "web",
            path("/x(/|$)(.*)", "ImplementationSpecific"),
            annotations={f"{OTHER_PREFIX}rewrite-target": "/$2", f"{OTHER_PREFIX}x-forwarded-prefix": "/x"},
        ),
        ingress("other", path("/files"), path("/"), age=1),
    ],
    "restricted": [
        ingress(
            "web",
            annotations={
                f"{OTHER_PREFIX}whitelist-source-range": "10.0.0.0/8,2001:db8::/32",
                f"{OTHER_PREFIX}denylist-source-range": "10.6.6.0/24",
                f"{OTHER_PREFIX}limit-rps": "10",
                f"{OTHER_PREFIX}limit-connections": "20",
                f"{OTHER_PREFIX}limit-whitelist": "10.0.0.0/8",
                f"{OTHER_PREFIX}proxy-body-size": "8m",
            },
        )
    ],
    "signed-on": [ingress("web", annotations={f"{PREFIX}auth": "required", f"{PREFIX}auth-groups": "dev"})],
    "passwords": [
        ingress("web", annotations={f"{PREFIX}auth-type": "basic", f"{PREFIX}auth-secret": "p"}),
        secret("p", auth=b"alice:$apr1$abc$defghi\n"),
    ],
    "cors": [
        ingress(
            "web",
            annotations={
                f"{OTHER_PREFIX}enable-cors": "true",
                f"{OTHER_PREFIX}cors-allow-origin": "https://*.example.com,https://example.org:8443",
            },
        )
    ],
    "grpc": [ingress("web", host="*.example.com", annotations={f"{PREFIX}backend-protocol": "GRPCS"})],
    "verified": [
        ingress(
            "web",
            annotations={
                f"{PREFIX}backend-protocol": "HTTPS",
                f"{PREFIX}proxy-ssl-verify": "on",
                f"{PREFIX}proxy-ssl-secret": "ca",
            },
        ),
        secret("ca", ca_crt=AUTHORITY),
    ],
    "sessions": [ingress("web", annotations={f"{PREFIX}affinity": "cookie"})],
    "redirected": [ingress("web", annotations={f"{PREFIX}permanent-redirect": "https://example.org$request_uri"})],
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_configurations_are_what_was_reviewed(name: str) -> None:
    text = shown(configured(*EXAMPLES[name]).text)
    whole = text if name == "nothing" else text[text.index('access_log "access.log"') :]
    golden.compare(Path(__file__).parent / "golden", f"{name}.conf", whole)


@pytest.mark.parametrize(
    ("size", "asked", "gathered"),
    [("64m", "on", True), ("65m", "on", False), ("0", "on", False), ("1m", "off", False), ("", "on", True)],
)
def test_only_bodies_of_some_size_lie_on_the_disk(size: str, asked: str, gathered: bool) -> None:
    wanted = {f"{PREFIX}proxy-body-size": size} if size else {}
    made = configured(ingress("web", annotations={**wanted, f"{PREFIX}proxy-request-buffering": asked})).text
    assert f"proxy_request_buffering {'on' if gathered else 'off'};" in made
    assert "proxy_max_temp_file_size 0;" in made


def test_prefixes_match_whole_elements() -> None:
    assert locations(configured(ingress("web", path("/a"), path("/a", "Exact"), path("/b/"))).text) == [
        ("=", "/a"),
        ("^~", "/a/"),
        ("=", "/b"),
        ("^~", "/b/"),
        ("/",),
    ]


def test_an_exact_path_takes_nothing_of_what_lies_below_it() -> None:
    assert locations(configured(ingress("web", path("/a"), path("/a/", "Exact"))).text) == [
        ("=", "/a/"),
        ("=", "/a"),
        ("^~", "/a/"),
        ("/",),
    ]


def test_where_there_are_expressions_all_are_and_in_order() -> None:
    rule = path("/v[0-9]+/x", "ImplementationSpecific")
    text = configured(
        ingress("re", rule, annotations={f"{PREFIX}use-regex": "true"}),
        ingress("web", path("/"), path("/a.b"), path("/v1/long/path"), path("/x", "Exact"), age=1),
    ).text
    assert locations(text) == [
        ("=", "/x"),
        ("~", "^/v1/long/path(?:/|$)"),
        ("~*", "^/v[0-9]+/x"),
        ("~", r"^/a\.b(?:/|$)"),
        ("~", "^/"),
    ]


def test_a_wildcard_is_one_label() -> None:
    assert r"~^[^.]+\.example\.com$" in servers(configured(ingress("web", host="*.example.com")).text)


def test_certificates_are_files_for_the_owner_alone() -> None:
    pair = certificate(HOST, now=NOW)
    made = configured(ingress("web", tls=[{"hosts": [HOST], "secretName": "c"}]), tls_secret("c", pair))
    assert pair.certificate in made.files.values()
    assert {name.partition("/")[0] for name in made.files} == {"private"}
    assert b"PRIVATE KEY" not in made.text.encode()


def test_the_generation_is_of_all_that_is_served() -> None:
    same = configured(ingress("web"))
    assert same == configured(ingress("web"))
    assert same.generation in same.text
    for other in (ingress("web", path("/x")), ingress("web", annotations={f"{PREFIX}limit-rps": "1"})):
        assert configured(other).generation != same.generation


def test_words_are_of_their_kind() -> None:
    with pytest.raises(ValueError, match="dollar"):
        Text("$host")
    with pytest.raises(ValueError, match="control"):
        render([line("return", 200, Text("a\nb"))])
    with pytest.raises(ValueError, match="bytes"):
        render([line("return", 200, Text("a" * 3000))])
    made = render([block("location", "=", Pattern('/a"\\ {;'), inside=[line("x", joined(Text("a;"), Word("$b")))])])
    assert nginx_text.parse(made) == [["location", "=", '/a"\\ {;', [["x", "a;$b"]]]]


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="/a1.;{}\"'\\$#\n\r\t (*)|+?[]%0d0a-,:=~^@", max_size=60),
    st.sampled_from(
        [
            '/"; } } server { listen 1; } #',
            "/;return 200;",
            "/$(env)",
            "/\\",
            "/a b{",
            "}\n} load_module /tmp/x.so;",
            "${HOME}",
            "%22%3b",
            "' ; access_by_lua_block { os.execute() }",
        ]
    ),
)
#: What the same structure has without anything hostile; each is a directive that this code writes.
NAMES = frozenset(
    nginx_text.names(
        [node for manifests in EXAMPLES.values() for node in nginx_text.parse(configured(*manifests).text)]
    )
)
_ANNOTATIONS = [field.replace("_", "-") for field in Wishes.model_fields]


@st.composite
def hostile_ingress(draw: st.DrawFn) -> Manifest:
    values = st.one_of(HOSTILE, st.builds(lambda prefix, text: f"{prefix}{text}", st.sampled_from(_VALID), HOSTILE))
    some = draw(st.dictionaries(st.sampled_from(_ANNOTATIONS), values, max_size=6))
    prefix = draw(st.sampled_from([PREFIX, OTHER_PREFIX]))
    rules = [
        path(draw(st.one_of(HOSTILE, st.builds("/{}".format, HOSTILE))), kind)
        for kind in draw(
            st.lists(st.sampled_from(["Exact", "Prefix", "ImplementationSpecific"]), min_size=1, max_size=3)
        )
    ]
    host = draw(st.one_of(st.just("evil.example.com"), HOSTILE))
    return ingress(
        "evil", *rules, host=host, annotations={f"{prefix}{name}": text for name, text in some.items()}, age=2
    )


_VALID = ["true", "/", "10.0.0.0/8,", "https://example.com/", "GET,", "basic", "cookie", "5", "8m", "*.a.com", "X-A"]


GOOD = ingress("web", path("/"), path("/api"))
GOOD_SERVER = servers(configured(GOOD).text)[HOST]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(hostile_ingress())
def test_nothing_from_an_object_becomes_configuration(evil: Manifest) -> None:
    text = configured(GOOD, evil).text
    tree = nginx_text.parse(text)
    assert servers(text)[HOST] == GOOD_SERVER
    assert set(nginx_text.names(tree)) - _keys(tree) <= NAMES


def _keys(tree: list[Any]) -> set[str]:
    """Return what stands before values in maps, which is no directive."""
    [http] = [node for node in tree if node[0] == "http"]
    return {entry[0] for node in http[-1] if node[0] in ("map", "geo") for entry in node[-1]}
