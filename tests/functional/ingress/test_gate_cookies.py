"""Real nginx: no application sets a cookie of the sign-on gate's, however it answers; the gate itself does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from multidict import CIMultiDict

from haneul.ingress.annotations import PREFIX
from haneul.ingress.asking import Gate
from haneul.kernel.kube import Manifest
from tests.ingress_proxy import PATIENCE, Application, Ground, ground
from tests.unit.ingress.gateway_objects import answer_headers, gateway, gateway_class, http_route, listener, rule
from tests.unit.ingress.objects import ingress, path

pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSION = "__Secure-haneul-session=stolen; Domain=example.com; Path=/; Secure; HttpOnly"
STOLEN = [
    SESSION,
    SESSION.lower(),
    f"={SESSION}",
    f"\t{SESSION}",
    "__SECURE-HANEUL-other=x",
    "__Host-haneul-state-x=y; Path=/; Secure",
]
OWN = ["a=1; Path=/", "b=__Secure-haneul-session=x", "__Secure-own=2; Secure"]


def one(name: str, service: str = "web", **annotations: str) -> Manifest:
    written = {f"{PREFIX}{key.replace('_', '-')}": text for key, text in annotations.items()}
    return ingress(name, path(service=service), host=f"{name}.example.com", annotations=written)


class Raw:
    """Answers every connection with the same bytes, then ends it."""

    def __init__(self) -> None:
        self.bytes = b""
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.bytes)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield


class World:
    def __init__(self, ground: Ground, apps: dict[str, Application], raw: Raw) -> None:
        self.ground = ground
        self.apps = apps
        self.raw = raw


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    apps = {name: Application(name) for name in ("web", "gate", "asks")}
    raw = Raw()
    async with contextlib.AsyncExitStack() as stack:
        made = await stack.enter_async_context(ground())
        for app in apps.values():
            await stack.enter_async_context(app.running())
        await stack.enter_async_context(raw.running())
        made.behind_gate(Gate(f"127.0.0.1:{apps['gate'].port}"))
        made.point("web", apps["web"])
        made.point("asks", apps["asks"])
        made.point("raw", Application("raw", port=raw.port))
        changed = answer_headers(add={"Set-Cookie": SESSION, "X-More": "2"})
        made.see(
            one("open"),
            one("sticky", affinity="cookie"),
            one("named", affinity="cookie", session_cookie_name="__Secure-haneul-session"),
            one("people", auth="required"),
            one("asked", auth_url="http://asks.shop.svc/ask"),
            one("raw", "raw"),
            gateway_class(),
            gateway("web", listener("http")),
            http_route("ruled", rule(filters=[changed]), hosts=["ruled.example.com"]),
        )
        await made.route()
        yield World(made, apps, raw)


def setting(*cookies: str) -> CIMultiDict[str]:
    return CIMultiDict(("Set-Cookie", cookie) for cookie in cookies)


@pytest.mark.parametrize("name", ["open", "sticky", "named", "people", "asked", "ruled"])
async def test_an_application_sets_no_cookie_of_the_gates(world: World, name: str) -> None:
    web = world.apps["web"]
    for cookies in ([*STOLEN, *OWN], [*OWN, *STOLEN], OWN):
        web.headers = setting(*cookies)
        answer = await world.ground.ask(host=f"{name}.example.com")
        assert answer.status == 200, world.ground.log()
        assert [cookie for cookie in answer.set_cookies if "INGRESSCOOKIE" not in cookie] == OWN
        assert ("INGRESSCOOKIE" in answer.cookies) is (name == "sticky")
    for cookie in STOLEN:
        web.headers = setting(cookie)
        cookies = (await world.ground.ask(host=f"{name}.example.com")).set_cookies
        assert not [cookie for cookie in cookies if "haneul" in cookie.lower()]
    web.headers = {}


async def test_more_cookies_than_are_looked_at_are_not_sent(world: World) -> None:
    world.apps["web"].headers = setting(*(["a=1"] * 120), SESSION)
    answer = await world.ground.ask(host="open.example.com")
    world.apps["web"].headers = {}
    assert (answer.status, set(answer.set_cookies)) == (200, {"a=1"})


async def test_the_gate_sets_its_cookies(world: World) -> None:
    gate, web = world.apps["gate"], world.apps["web"]
    renewed = "__Secure-haneul-session=renewed"
    gate.headers, web.headers = {"Set-Cookie": renewed}, setting(SESSION, *OWN)
    answer = await world.ground.ask(host="people.example.com")
    assert sorted(answer.set_cookies) == sorted([*OWN, renewed])
    gate.status, gate.headers = 401, setting(renewed, "__Host-haneul-state-x=y")
    answer = await world.ground.ask(host="people.example.com")
    assert (answer.status, answer.set_cookies[:2]) == (401, [renewed, "__Host-haneul-state-x=y"])
    gate.status, gate.headers, web.headers = 200, {}, {}


async def test_a_service_that_is_asked_sets_cookies_but_none_of_the_gates(world: World) -> None:
    asks = world.apps["asks"]
    for cookie, set_cookies in (("a=1", ["a=1"]), *((cookie, []) for cookie in STOLEN)):
        asks.headers = setting(cookie)
        assert (await world.ground.ask(host="asked.example.com")).set_cookies == set_cookies
    asks.headers = {}


async def test_an_internal_redirect_is_no_way_around(world: World) -> None:
    for place in ("@haneul_gate_away", "/_haneul_none", "/"):
        world.apps["web"].headers = {**setting(SESSION), "X-Accel-Redirect": place}
        answer = await world.ground.ask(host="people.example.com")
        assert (answer.status, answer.said["app"], answer.set_cookies) == (200, "web", [])
    world.apps["web"].headers = {}


@pytest.mark.parametrize(
    "before",
    [
        b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 200\r\n\r\n",
        b"HTTP/1.1 000 None\r\n\r\n",
    ],
)
async def test_what_looks_like_a_body_is_no_way_around(world: World, before: bytes) -> None:
    world.raw.bytes = b"".join(
        (before, b"HTTP/1.1 200 OK\r\nSet-Cookie: ", SESSION.encode(), b"\r\nContent-Length: 0\r\n\r\n")
    )
    reader, writer = await asyncio.open_connection(world.ground.address, world.ground.http)
    writer.write(b"GET / HTTP/1.1\r\nHost: raw.example.com\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert b"stolen" not in await reader.read()
    writer.close()
