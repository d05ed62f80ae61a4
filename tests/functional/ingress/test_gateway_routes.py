"""Real nginx with what HTTPRoutes ask for: precedence, weights, filters, listeners; what changes without a reload."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from haneul.kernel.kube import Manifest
from tests.ingress_proxy import Application, Ground, ground
from tests.unit.ingress.gateway_objects import (
    answer_headers,
    backend,
    full_path,
    gateway,
    gateway_class,
    http_route,
    listener,
    match,
    prefix,
    redirect,
    request_headers,
    rewrite,
    rule,
)
from tests.unit.ingress.objects import certificate, ingress, tls_secret

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOMAIN = "example.com"


def one(name: str, *rules: Manifest, host: str = "", age: int = 0, section: str = "http") -> Manifest:
    """Return a route of a host that is named as it is, unless it says another."""
    parents = [{"name": "web", "sectionName": section}]
    return http_route(name, *rules, hosts=[f"{host or name}.{DOMAIN}"], age=age, parents=parents)


SECURE = certificate(f"secure.{DOMAIN}")
OBJECTS = [
    gateway_class(),
    gateway(
        "web",
        listener("http"),
        listener("https", f"secure.{DOMAIN}", secret="secure"),
        listener("inner", f"*.inner.wide.{DOMAIN}"),
    ),
    tls_secret("secure", SECURE),
    one(
        "order",
        rule(match("/v1"), match("/", method="POST"), to=["a"]),
        rule(match("/v1", headers={"X-Version": "2"}), to=["b"]),
        rule(match("/v1", queries={"v": "3"}), to=["c"]),
        rule(match("/v1", method="PUT"), to=["d"]),
        rule(match("/v1/exact", "Exact"), to=["b"]),
        rule(match("/exact", "Exact", headers={"x-only": "me"}), to=["c"]),
        rule(match("/exact", method="GET"), to=["d"]),
    ),
    one("spread", rule(to=[backend("a", weight=3), backend("b", weight=1), backend("c", weight=0)])),
    one("half", rule(to=[backend("a", weight=1), backend("none", weight=1)])),
    one("nobody", rule(to=[])),
    one("empty", rule(to=["empty"])),
    one(
        "headers",
        rule(
            filters=[
                request_headers(
                    set={"X-Set": 'we"ird $uri; }\\', "X-Mine": "1"}, add={"X-Add": "b"}, remove=["X-Gone"]
                ),
                answer_headers(set={"X-Answer": "$host"}, add={"X-More": "2"}, remove=["X-Secret"]),
            ]
        ),
    ),
    one(
        "moved",
        rule(match("/prefix"), to=[], filters=[redirect(path=prefix("/new"), statusCode=301)]),
        rule(match("/full"), to=[], filters=[redirect(path=full_path("/a b"), hostname="other.example.org")]),
        rule(match("/port"), to=[], filters=[redirect(scheme="https", port=8443)]),
        rule(match("/usual"), to=[], filters=[redirect(scheme="https", port=443)]),
        rule(match("/"), to=[], filters=[redirect(scheme="https")]),
    ),
    one(
        "rewritten",
        rule(match("/prefix"), filters=[rewrite(path=prefix("/"), hostname="inside.example.org")]),
        rule(match("/deep"), filters=[rewrite(path=prefix("/x/y/"))]),
        rule(match("/full"), filters=[rewrite(path=full_path("/only"))]),
    ),
    one("secure", rule(to=[], filters=[redirect(scheme="https", port=443)])),
    one("secure-app", rule(to=["b"]), host="secure", section="https"),
    one("wide", rule(to=["a"]), host="*.wide"),
    one("wide-path", rule(match("/special"), to=["b"]), host="*.wide", age=1),
    one("narrow", rule(match("/mine"), to=["c"]), host="narrow.wide"),
    one("deep", rule(to=["d"]), host="*.inner.wide", section="inner"),
    one("closed", rule(match("/x"), filters=[{"type": "ExtensionRef"}]), rule(match("/"), to=["a"])),
    ingress("beside", host="beside.example.org"),
]


class World:
    """One nginx for the whole module: every test has hosts of its own."""

    def __init__(self, ground: Ground, apps: dict[str, Application]) -> None:
        self.ground = ground
        self.apps = apps

    async def ask(self, name: str, path: str = "/", **more: Any) -> Any:
        return await self.ground.ask(path, host=f"{name}.{DOMAIN}", **more)

    async def said(self, name: str, path: str = "/", **more: Any) -> Any:
        answer = await self.ask(name, path, **more)
        assert answer.status == 200, (answer, self.ground.log())
        return answer.said

    async def app(self, name: str, path: str = "/", **more: Any) -> str:
        answer = await self.ask(name, path, **more)
        return answer.said["app"] if answer.status == 200 else str(answer.status)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        apps = {name: Application(name) for name in ("web", "a", "b", "c", "d")}
        apps["web"].headers = {"X-Secret": "s", "X-More": "1"}
        for app in apps.values():
            await stack.enter_async_context(app.running())
        made = await stack.enter_async_context(ground())
        made.see(*OBJECTS)
        for name, app in apps.items():
            made.point(name, app)
        made.point("empty")
        await made.route()
        yield World(made, apps)


@pytest.mark.parametrize(
    ("path", "more", "app"),
    [
        ("/v1/x", {}, "a"),
        ("/v1", {}, "a"),
        ("/v1x", {}, "404"),
        ("/v1", {"headers": {"x-version": "2"}}, "b"),
        ("/v1", {"headers": {"x-version": "22"}}, "a"),
        ("/v1?v=3&v=4", {}, "c"),
        ("/v1?w=3", {}, "a"),
        ("/v1?v=3", {"headers": {"X-Version": "2"}}, "b"),
        ("/v1?v=3", {"headers": {"X-Version": "2"}, "method": "PUT"}, "d"),
        ("/v1/exact", {"method": "PUT"}, "b"),
        ("/exact", {"headers": {"X-Only": "me"}}, "c"),
        ("/exact", {}, "d"),
        ("/exact/below", {}, "d"),
        ("/exact", {"method": "POST"}, "a"),
        ("/exact", {"method": "DELETE"}, "404"),
        ("/other", {"method": "POST"}, "a"),
        ("/other", {}, "404"),
    ],
)
async def test_the_most_precise_match_answers(world: World, path: str, more: Any, app: str) -> None:
    assert await world.app("order", path, **more) == app


async def test_requests_are_spread_by_weight(world: World) -> None:
    asked = Counter([await world.app("spread") for _ in range(200)])
    assert set(asked) == {"a", "b"}
    # Of 200 with a chance of 3 in 4, fewer than 110 are as likely as 1 in 10 to the ninth.
    assert asked["a"] >= 110


async def test_a_backend_that_is_not_there_answers_500_for_its_part(world: World) -> None:
    asked = {await world.app("half") for _ in range(60)}
    assert asked == {"a", "500"}
    assert await world.app("nobody") == "500"
    assert await world.app("empty") == "503"


async def test_headers_are_changed_both_ways_and_no_value_is_more_than_text(world: World) -> None:
    answer = await world.ask("headers", headers={"X-Add": "a", "X-Gone": "x", "X-Set": "old"})
    seen = answer.said["headers"]
    assert seen["x-set"] == 'we"ird $uri; }\\'
    assert seen["x-mine"] == "1"
    assert "x-gone" not in seen
    assert world.apps["web"].seen[-1]["headers"]["x-add"] in ("b", "a, b")
    assert answer.headers["x-answer"] == "$host"
    assert "x-secret" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status", "there"),
    [
        ("/prefix/x?q=1", 301, "http://moved.example.com/new/x?q=1"),
        ("/prefix", 301, "http://moved.example.com/new"),
        ("/full/x", 302, "http://other.example.org/a%20b"),
        ("/port/x", 302, "https://moved.example.com:8443/port/x"),
        ("/usual", 302, "https://moved.example.com/usual"),
        ("/a%20b?c=d", 302, "https://moved.example.com/a%20b?c=d"),
    ],
)
async def test_redirects(world: World, path: str, status: int, there: str) -> None:
    answer = await world.ask("moved", path)
    assert (answer.status, answer.headers["location"]) == (status, there)


async def test_paths_and_hosts_are_rewritten(world: World) -> None:
    said = await world.said("rewritten", "/prefix/a%20b/c?x=1")
    assert (said["path"], said["headers"]["host"]) == ("/a%20b/c?x=1", "inside.example.org")
    assert said["headers"]["x-forwarded-host"].partition(":")[0] == "rewritten.example.com"
    assert (await world.said("rewritten", "/prefix"))["path"] == "/"
    assert (await world.said("rewritten", "/deep/z"))["path"] == "/x/y/z"
    assert (await world.said("rewritten", "/full/whatever?k=v"))["path"] == "/only?k=v"
    # Nothing is unescaped on the way where nothing is rewritten.
    assert (await world.said("headers", "/a%2Fb"))["path"] == "/a%2Fb"


async def test_a_host_may_be_redirected_by_one_listener_and_served_by_the_other(world: World) -> None:
    answer = await world.ask("secure", "/login")
    assert (answer.status, answer.headers["location"]) == (302, "https://secure.example.com/login")
    authority = world.ground.folder / "authority.pem"
    authority.write_bytes(SECURE.certificate)
    told = await world.ground.curl("-v", "--insecure", host=f"secure.{DOMAIN}")
    assert '"app": "b"' in told
    assert f"subject: CN=secure.{DOMAIN}" in told


async def test_wildcards_are_any_number_of_labels_and_give_way(world: World) -> None:
    assert await world.app("x.wide") == "a"
    assert await world.app("x.y.wide") == "a"
    assert await world.app("x.wide", "/special") == "b"
    # Another host's rule that matches answers where the more precise host has none.
    assert await world.app("narrow.wide", "/mine") == "c"
    assert await world.app("narrow.wide", "/special") == "b"
    # A listener of a more precise host has all requests for it.
    assert await world.app("x.inner.wide", "/special") == "d"


async def test_what_cannot_be_done_is_closed_and_the_rest_served(world: World) -> None:
    assert await world.app("closed", "/x/y") == "503"
    assert await world.app("closed", "/y") == "a"
    answer = await world.ground.ask(host="beside.example.org")
    assert answer.said["app"] == "web"


async def test_clients_may_talk_on_and_send_large_bodies(world: World) -> None:
    async with world.ground.session() as session:
        headers = {"Host": f"headers.{DOMAIN}"}
        async with session.ws_connect(world.ground.url(), headers=headers) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "web heard hello"
    said = await world.said("headers", method="POST", data=io.BytesIO(b"x" * (3 << 20)))
    assert said["bytes"] == 3 << 20


async def test_endpoints_weights_filters_and_conditions_change_without_a_reload() -> None:
    async with ground() as made, Application("a").running() as a, Application("b").running() as b:
        made.see(gateway_class(), gateway())
        made.point("a", a)
        made.point("b", b)

        async def served(*rules: Manifest) -> tuple[str, bool]:
            made.see(http_route("web", *rules, hosts=["www.example.com"]))
            before = await made.processes.generation() if await made.processes.master() else None
            await made.route()
            answer = await made.ask("/x")
            reloaded = await made.processes.generation() != before
            return answer.said["app"] if answer.status == 200 else str(answer.status), reloaded

        assert await served(rule(to=[backend("a", weight=1), backend("b", weight=0)])) == ("a", True)
        assert await served(rule(to=[backend("a", weight=0), backend("b", weight=1)])) == ("b", False)
        changes = request_headers(set={"X-New": "1"})
        assert await served(rule(to=["b"], filters=[changes])) == ("b", False)
        assert b.seen[-1]["headers"]["x-new"] == "1"
        made.point("b", a)
        await made.repoint()
        assert (await made.ask("/x")).said["app"] == "a"
