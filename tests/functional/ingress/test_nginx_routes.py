"""Real nginx with what Ingress objects ask for: paths, redirects, who gets in, limits, canaries, sessions."""

from __future__ import annotations

import base64
import contextlib
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from haneul.ingress.annotations import PREFIX
from haneul.ingress.asking import Gate
from haneul.kernel.pki import issue_authority
from tests.ingress_proxy import Application, Ground, ground
from tests.unit.ingress.objects import certificate, ingress, path, secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "127.0.0.77"


def annotated(**annotations: str) -> dict[str, str]:
    return {f"{PREFIX}{name.replace('_', '-')}": text for name, text in annotations.items()}


def one(name: str, *paths: Any, host: str = "", age: int = 0, **annotations: str) -> Any:
    """Return an Ingress of a host that is named as it is, unless it says another."""
    return ingress(name, *paths, host=f"{host or name}.example.com", annotations=annotated(**annotations), age=age)


class World:
    """One nginx for the whole module: every test has hosts of its own."""

    def __init__(self, ground: Ground, apps: dict[str, Application]) -> None:
        self.ground = ground
        self.apps = apps

    async def ask(self, name: str, path: str = "/", **more: Any) -> Any:
        return await self.ground.ask(path, host=f"{name}.example.com", **more)

    async def said(self, name: str, path: str = "/", **more: Any) -> Any:
        answer = await self.ask(name, path, **more)
        assert answer.status == 200, (answer, self.ground.log())
        return answer.said


AUTHORITY = issue_authority("test", now=datetime.now(UTC))
SECURE = certificate("secure.shop.svc", authority=AUTHORITY)
OBJECTS = [
    one("paths", path("/"), path("/api", service="api"), path("/api", "Exact", service="exact")),
    one("regex", path("/x(/|$)(.*)", "ImplementationSpecific"), rewrite_target="/new/$2"),
    one("app-root", app_root="/start"),
    one("moved", permanent_redirect="https://example.org/new$request_uri"),
    one("secure-only", force_ssl_redirect="true"),
    one("some", whitelist_source_range="127.0.0.77"),
    one("not-some", denylist_source_range="127.0.0.77"),
    one("rated", limit_rpm="1", limit_burst_multiplier="2", limit_whitelist="127.0.0.77"),
    one("small", proxy_body_size="1k"),
    one("impatient", path("/never", "Exact"), proxy_read_timeout="1"),
    one("scripts", enable_cors="true", cors_allow_origin="https://*.example.org"),
    one("password", auth_type="basic", auth_secret="people"),
    one(
        "asked",
        auth_url="http://asks.shop.svc/ask?x=1",
        auth_response_headers="X-User",
        auth_signin="https://in.example.com/",
    ),
    one("people", auth="required", auth_groups="dev,ops"),
    one("open"),
    one("header", age=1),
    one("header-next", path(service="next"), host="header", canary="true", canary_by_header="X-Next", age=2),
    one("cookie", age=1),
    one("cookie-next", path(service="next"), host="cookie", canary="true", canary_by_cookie="next", age=2),
    one("value", age=1),
    one(
        "value-next",
        path(service="next"),
        host="value",
        canary="true",
        canary_by_header="X-Region",
        canary_by_header_value="eu",
        age=2,
    ),
    one("weight", age=1),
    one("weight-next", path(service="next"), host="weight", canary="true", canary_weight="100", age=2),
    one("sticky", path(service="three"), affinity="cookie"),
    one("retried", path(service="broken")),
    one("verified", path(service="secure"), backend_protocol="HTTPS", proxy_ssl_verify="on", proxy_ssl_secret="ca"),
    one(
        "unverified",
        path(service="secure"),
        backend_protocol="HTTPS",
        proxy_ssl_verify="on",
        proxy_ssl_secret="other-ca",
    ),
    one("host", upstream_vhost="inner.example.net", x_forwarded_prefix="/out"),
    one("closed", whitelist_source_range="nobody knows"),
    ingress("wild", host="*.wild.example.com"),
    ingress("anybody", host="", age=9),
    secret("people", auth=b"alice:$apr1$zaH4bO4s$EQ7V6Dbmc4eWPhn/pCL501\n"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    names = ("web", "api", "exact", "asks", "gate", "next", "one", "two", "three")
    apps = {name: Application(name) for name in names}
    gone, secure = Application("gone"), Application("secure")
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(ground())
        for app in apps.values():
            await stack.enter_async_context(app.running())
        await stack.enter_async_context(secure.running(tls=speaking(tmp_path_factory.mktemp("tls"))))
        async with gone.running():
            pass
        gate = f"127.0.0.1:{apps['gate'].port}"
        made.behind_gate(Gate(gate))
        for name in ("web", "api", "exact", "asks", "next"):
            made.point(name, apps[name])
        made.point("secure", secure)
        made.point("three", apps["one"], apps["two"], apps["three"])
        made.point("broken", gone, apps["web"])
        made.see(*OBJECTS, secret("ca", ca_crt=AUTHORITY.certificate))
        made.see(secret("other-ca", ca_crt=issue_authority("other", now=datetime.now(UTC)).certificate))
        await made.route()
        yield World(made, apps)


def speaking(folder: Path) -> ssl.SSLContext:
    """Return how the application with a certificate speaks TLS."""
    (folder / "crt").write_bytes(SECURE.certificate)
    (folder / "key").write_bytes(SECURE.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


@pytest.mark.parametrize(
    ("asked", "app"),
    [
        ("/", "web"),
        ("/api", "exact"),
        ("/api/", "api"),
        ("/api/x?y=1", "api"),
        ("/apix", "web"),
        ("/API", "web"),
        ("/x/../api/z", "api"),
        ("/%61pi/z", "api"),
    ],
)
async def test_the_longest_path_has_the_request(world: World, asked: str, app: str) -> None:
    assert (await world.said("paths", asked))["app"] == app


async def test_requests_arrive_as_they_were(world: World) -> None:
    said = await world.said("paths", "/a%2Fb?c=%20d", headers={"X-Forwarded-For": "192.0.2.1", "Proxy": "evil"})
    assert said["path"] == "/a%2Fb?c=%20d"
    headers = said["headers"]
    assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "http")
    assert headers["host"] == headers["x-forwarded-host"] == "paths.example.com"
    assert len(headers["x-request-id"]) == 32
    assert "proxy" not in headers


@pytest.mark.parametrize(
    ("asked", "became"), [("/x", "/new/"), ("/x/", "/new/"), ("/X/a/b?c=d", "/new/a/b?c=d"), ("/x/a%20b", "/new/a%20b")]
)
async def test_paths_are_rewritten(world: World, asked: str, became: str) -> None:
    assert (await world.said("regex", asked))["path"] == became


async def test_what_no_ingress_has_is_not_found(world: World) -> None:
    assert (await world.ask("regex", "/other")).status == 404
    assert (await world.ground.ask(host="nobody.example.com")).said["app"] == "web"
    assert (await world.ground.ask(host="a.wild.example.com")).status == 200
    assert (await world.ground.ask(host="a.b.wild.example.com", path="/w")).said["headers"]["host"].startswith("a.b")


async def test_redirects(world: World) -> None:
    moved = await world.ask("moved", "/a?b=c")
    assert (moved.status, moved.headers["location"]) == (301, "https://example.org/new/a?b=c")
    root = await world.ask("app-root")
    assert (root.status, root.headers["location"]) == (302, "/start")
    assert (await world.said("app-root", "/start"))["app"] == "web"
    secure = await world.ask("secure-only", "/a?b")
    there = f"https://secure-only.example.com:{world.ground.https}/a?b"
    assert (secure.status, secure.headers["location"]) == (308, there)


async def test_only_some_clients_get_in(world: World) -> None:
    assert (await world.ask("some")).status == 403
    assert (await world.ask("some", client=OTHER)).status == 200
    assert (await world.ask("not-some")).status == 200
    assert (await world.ask("not-some", client=OTHER)).status == 403
    # Whoever is not trusted cannot say that he is somebody else.
    assert (await world.ask("some", headers={"X-Forwarded-For": OTHER, "X-Real-IP": OTHER})).status == 403
    assert (await world.ask("closed", client=OTHER)).status == 503


async def test_rates_are_limited(world: World) -> None:
    assert [(await world.ask("rated")).status for _ in range(4)] == [200, 200, 200, 429]
    assert [(await world.ask("rated", client=OTHER)).status for _ in range(5)] == [200] * 5


async def test_bodies_are_limited(world: World) -> None:
    assert (await world.said("small", method="POST", data=b"x" * 1024))["bytes"] == 1024
    assert (await world.ask("small", method="POST", data=b"x" * 1025)).status == 413
    # Large enough to be kept in a file on its way.
    assert (await world.said("paths", method="POST", data=b"x" * 1_000_000))["bytes"] == 1_000_000


async def test_slow_applications_are_given_up(world: World) -> None:
    assert (await world.ask("impatient", "/never")).status == 504


async def test_scripts_of_some_origins_may_ask(world: World) -> None:
    asking = {"Origin": "https://shop.example.org", "Access-Control-Request-Method": "PUT"}
    early = await world.ask("scripts", method="OPTIONS", headers=asking)
    assert (early.status, early.headers["access-control-allow-origin"]) == (204, "https://shop.example.org")
    assert "PUT" in early.headers["access-control-allow-methods"]
    world.apps["web"].headers = {"Access-Control-Allow-Origin": "*"}
    late = await world.ask("scripts", headers=asking)
    world.apps["web"].headers = {}
    assert late.headers["access-control-allow-origin"] == "https://shop.example.org"
    for origin in ("https://example.org", "https://evil.com", "https://shop.example.org.evil.com", "null"):
        answer = await world.ask("scripts", headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers


async def test_names_and_passwords(world: World) -> None:
    assert (await world.ask("password")).status == 401
    for password, status in (("wrong", 401), ("secret", 200)):
        said = base64.b64encode(f"alice:{password}".encode()).decode()
        assert (await world.ask("password", headers={"Authorization": f"Basic {said}"})).status == status


async def test_an_application_of_the_same_namespace_is_asked(world: World) -> None:
    asks = world.apps["asks"]
    asks.headers = {"X-User": "alice"}
    said = await world.said("asked", "/a", headers={"X-User": "root", "Cookie": "s=1"})
    assert said["headers"]["x-user"] == "alice"
    question = asks.seen[-1]
    assert (question["path"], question["headers"]["cookie"]) == ("/ask?x=1", "s=1")
    asks.headers, asks.status = {}, 403
    assert (await world.ask("asked")).status == 403
    asks.status = 401
    browser = await world.ask("asked", "/a?b=c&d", headers={"Accept": "text/html"})
    place = "https://in.example.com/?rd=http%3A%2F%2Fasked.example.com%2Fa%3Fb%3Dc%26d"
    assert (browser.status, browser.headers["location"]) == (302, place)
    asks.status = 200


LIE = {
    "X-Haneul-User": "root",
    "x-haneul-email": "root@example.com",
    "X-Haneul-Groups": "admin",
    "X-Haneul-Projects": "all",
    "X_Haneul_Groups": "admin",
    "X-Haneul-Rule": "anyone",
    "X-Haneul-Cookie": "a=b",
}
COOKIES = "a=1; __Secure-haneul-session=secret; b=2"


async def test_the_gate_says_who_people_are(world: World) -> None:
    gate = world.apps["gate"]
    gate.headers = {
        "X-Haneul-User": "alice",
        "X-Haneul-Email": "alice@example.com",
        "X-Haneul-Groups": "dev",
        "X-Haneul-Cookie": "a=1; b=2",
        "Set-Cookie": "__Secure-haneul-session=renewed",
    }
    headers = {**LIE, "Authorization": "Bearer t", "Cookie": COOKIES}
    answer = await world.ask("people", "/a?b", method="POST", data=b"body", headers=headers)
    assert (answer.status, answer.cookies) == (200, {"__Secure-haneul-session": "renewed"})
    said = answer.said["headers"]
    assert answer.said["bytes"] == 4
    assert {name: value for name, value in said.items() if "haneul" in name.lower()} == {
        "x-haneul-user": "alice",
        "x-haneul-email": "alice@example.com",
        "x-haneul-groups": "dev",
    }
    assert (said["cookie"], "authorization" in said) == ("a=1; b=2", False)
    question = gate.seen[-1]
    assert (question["path"], question["method"]) == ("/auth", "GET")
    asked = question["headers"]
    assert (asked["x-original-method"], asked["x-original-url"]) == ("POST", "http://people.example.com/a?b")
    assert (asked["x-original-uri"], asked["x-original-host"]) == ("/a?b", "people.example.com")
    assert (asked["x-haneul-rule"], asked["authorization"]) == ("group:dev group:ops", "Bearer t")
    assert asked["cookie"] == COOKIES
    assert not {"x-haneul-user", "x-haneul-cookie", "content-length"} & set(asked)
    gate.headers = {}
    said = (await world.said("people", headers=headers))["headers"]
    assert not [name for name in said if "haneul" in name.lower() or name in ("cookie", "authorization")]


async def test_clients_cannot_say_who_they_are_where_nobody_asks(world: World) -> None:
    said = (await world.said("open", headers={**LIE, "Cookie": COOKIES}))["headers"]
    assert not [name for name in said if "haneul" in name.lower()]
    assert said["cookie"] == "a=1; b=2"
    twice = "__Secure-haneul-session=x; __Secure-haneul-session=y; c=1"
    assert "cookie" not in (await world.said("open", headers={"Cookie": twice}))["headers"]
    assert (await world.ask("open", "/_haneul_gate_0123456789abcdef")).said["app"] == "web"


async def test_who_is_not_let_in(world: World) -> None:
    gate, before = world.apps["gate"], len(world.apps["web"].seen)
    for status in (401, 403):
        gate.status, gate.headers = status, {"Location": "https://in.example.com/start", "WWW-Authenticate": "Bearer"}
        denied = await world.ask("people", "/a?b=c", method="POST", data=b"x", headers={"Accept": "text/html"})
        assert (denied.status, denied.said["app"]) == (status, "gate")
        assert denied.headers["location"] == "https://in.example.com/start"
        question = gate.seen[-1]
        assert (question["path"], question["method"]) == ("/denied", "GET")
        assert question["headers"]["x-haneul-rule"] == "group:dev group:ops"
        assert question["headers"]["x-original-url"] == "http://people.example.com/a?b=c"
    gate.headers = {"X-Haneul-Problem": "the provider is away"}
    for status in (500, 302, 404):
        gate.status = status
        away = await world.ask("people")
        assert (away.status, away.headers["retry-after"]) == (503, "10")
        assert "the provider is away" in away.text
    gate.status, gate.headers = 200, {}
    assert len(world.apps["web"].seen) == before


async def test_without_the_gate_nobody_gets_in_and_open_paths_are_served(world: World) -> None:
    apart = one("apart", auth="required")
    async with ground() as made:
        async with Application("gate").running() as gate:
            made.behind_gate(Gate(f"127.0.0.1:{gate.port}"))
        made.point("web", world.apps["web"])
        made.see(apart, one("open"))
        await made.route()
        assert (await made.ask(host="apart.example.com")).status == 503
        assert (await made.ask(host="open.example.com")).status == 200


@pytest.mark.parametrize(
    ("name", "headers", "app"),
    [
        ("header", {}, "web"),
        ("header", {"X-Next": "always"}, "next"),
        ("header", {"X-Next": "never"}, "web"),
        ("header", {"X-Next": "perhaps"}, "web"),
        ("cookie", {"Cookie": "next=always"}, "next"),
        ("cookie", {"Cookie": "next=never"}, "web"),
        ("value", {"X-Region": "eu"}, "next"),
        ("value", {"X-Region": "always"}, "web"),
        ("weight", {}, "next"),
    ],
)
async def test_canaries(world: World, name: str, headers: dict[str, str], app: str) -> None:
    for _ in range(3):
        assert (await world.said(name, headers=headers))["app"] == app


async def test_a_client_stays_at_one_endpoint(world: World) -> None:
    first = await world.ask("sticky")
    session = first.cookies["INGRESSCOOKIE"]
    for _ in range(6):
        again = await world.ask("sticky", headers={"Cookie": f"INGRESSCOOKIE={session}"})
        assert (again.said["app"], again.cookies) == (first.said["app"], {})
    # What nobody gave out is no session.
    assert (await world.ask("sticky", headers={"Cookie": "INGRESSCOOKIE=x"})).cookies
    assert {(await world.said("sticky"))["app"] for _ in range(40)} == {"one", "two", "three"}


async def test_an_endpoint_that_takes_no_connection_is_not_asked_again(world: World) -> None:
    assert {(await world.said("retried"))["app"] for _ in range(6)} == {"web"}


async def test_endpoints_certificates_are_verified(world: World) -> None:
    assert (await world.said("verified"))["app"] == "secure"
    assert (await world.ask("unverified")).status == 502


async def test_endpoints_see_another_host(world: World) -> None:
    headers = (await world.said("host"))["headers"]
    assert (headers["host"], headers["x-forwarded-prefix"]) == ("inner.example.net", "/out")
    assert headers["x-forwarded-host"] == "host.example.com"
