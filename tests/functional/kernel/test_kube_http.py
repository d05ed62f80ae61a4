"""The Kubernetes client against a small HTTP server that behaves as asked: what it sends, and what it makes of answers.

What it does with an API server as it should be is in the port's behaviour suite; here are the ways in which one fails.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import CONFIG_MAPS, NODES, PODS, KubeAccess, KubeApiError, Manifest, WatchEvent
from haneul.kernel.kube_budget import Budget, Ledger
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers each request with the next of the handlers it was given, and keeps what it was asked."""

    def __init__(self) -> None:
        self.script: list[Handler] = []
        self.seen: list[tuple[str, str, dict[str, str], dict[str, str], str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.seen.append((request.method, request.path, dict(request.query), dict(request.headers), text))
        if not self.script:
            await asyncio.Event().wait()
        return await self.script.pop(0)(request)

    def answer(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        text = body if isinstance(body, str) else json.dumps(body)

        async def handler(_: web.Request) -> web.Response:
            return web.Response(text=text, status=status, content_type="application/json", headers=headers)

        self.script.append(handler)

    def stream(self, *events: Manifest | bytes, then: str = "end") -> None:
        """Answer with a watch's events; then end properly, break the connection, or say nothing more."""

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for event in events:
                await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")
            if then == "break" and request.transport is not None:
                request.transport.abort()
            elif then == "silence":
                await asyncio.Event().wait()
            return response

        self.script.append(handler)


@contextlib.asynccontextmanager
async def serving(server: Server, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    application = web.Application(client_max_size=1 << 22)
    application.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving(Server()) as running:
        yield running


@pytest.fixture
async def client(server: Server) -> AsyncIterator[HttpKubeClient]:
    async with HttpKubeClient(KubeAccess(server.url, b""), user_agent="haneul-test") as client:
        yield client


def pod(name: str, version: str) -> Manifest:
    return {"metadata": {"name": name, "namespace": "one", "resourceVersion": version}}


def change(kind: str, name: str, version: str) -> Manifest:
    return {"type": kind, "object": pod(name, version)}


def pods(version: str, *items: Manifest) -> Manifest:
    return {"metadata": {"resourceVersion": version}, "items": list(items)}


async def events(client: HttpKubeClient, count: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    stream: AsyncIterator[WatchEvent] = client.watch(PODS, "one", labels="a=b")
    async with asyncio.timeout(60), contextlib.aclosing(stream):  # type: ignore[type-var] # an async generator
        async for event in stream:
            found.append((event.type, event.object["metadata"]["name"]))
            if len(found) == count:
                break
    return found


async def test_apply_is_a_forced_server_side_apply_of_one_manager(server: Server, client: HttpKubeClient) -> None:
    server.answer({"kind": "ConfigMap"})
    manifest = {"metadata": {"name": "x", "namespace": "one"}, "data": {"a": "1"}}
    assert await client.apply(CONFIG_MAPS, manifest) == {"kind": "ConfigMap"}
    method, path, query, headers, text = server.seen[0]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/one/configmaps/x")
    assert query == {"fieldManager": "haneul", "force": "true"}
    assert headers["Content-Type"] == "application/apply-patch+yaml"
    assert headers["User-Agent"] == "haneul-test"
    assert json.loads(text) == manifest


async def test_patch_and_delete_are_what_the_api_calls_them(server: Server, client: HttpKubeClient) -> None:
    server.answer({})
    server.answer({})
    await client.patch(NODES, "n", {"status": {}}, subresource="status")
    await client.delete(PODS, "p", "one", grace=0)
    method, path, _, headers, _ = server.seen[0]
    assert (method, path) == ("PATCH", "/api/v1/nodes/n/status")
    assert headers["Content-Type"] == "application/merge-patch+json"
    method, path, _, _, text = server.seen[1]
    assert (method, path) == ("DELETE", "/api/v1/namespaces/one/pods/p")
    assert json.loads(text)["propagationPolicy"] == "Background"
    assert json.loads(text)["gracePeriodSeconds"] == 0


async def test_refusal_carries_the_api_s_words(server: Server, client: HttpKubeClient) -> None:
    server.answer({"kind": "Status", "message": "pods is forbidden", "reason": "Forbidden"}, status=403)
    with pytest.raises(KubeApiError, match="pods is forbidden") as refusal:
        await client.list(PODS)
    assert (refusal.value.status, refusal.value.reason) == (403, "Forbidden")


BUSY = {"kind": "Status", "message": "storage is (re)initializing", "reason": "TooManyRequests"}


@pytest.mark.parametrize("status", [429, 503])
async def test_what_was_not_taken_for_a_moment_is_asked_again(
    status: int, server: Server, client: HttpKubeClient
) -> None:
    for _ in range(2):
        server.answer(BUSY, status=status, headers={"Retry-After": "0"})
    server.answer({"kind": "ConfigMap"})
    manifest = {"metadata": {"name": "x", "namespace": "one"}}
    assert await client.create(CONFIG_MAPS, manifest) == {"kind": "ConfigMap"}
    assert [json.loads(text) for *_, text in server.seen] == [manifest] * 3


@pytest.mark.parametrize(
    ("status", "headers"),
    [(429, {}), (429, {"Retry-After": "10"}), (429, {"Retry-After": "Fri, 01 Jan 2027"}), (500, {"Retry-After": "0"})],
    ids=["no-time", "too-long", "a-date", "taken"],
)
async def test_other_refusals_are_for_whoever_asks(
    status: int, headers: dict[str, str], server: Server, client: HttpKubeClient
) -> None:
    server.answer(BUSY, status=status, headers=headers)
    with pytest.raises(KubeApiError):
        await client.list(PODS)
    assert len(server.seen) == 1


async def test_who_is_never_taken_is_told_in_the_end(server: Server, client: HttpKubeClient) -> None:
    for _ in range(20):
        server.answer(BUSY, status=429, headers={"Retry-After": "0"})
    with pytest.raises(KubeApiError, match="initializing"):
        await client.list(PODS)
    assert len(server.seen) == 6


@pytest.mark.parametrize("body", ["a proxy's own words\n", "[]", '"text"', ""])
def test_refusal_in_other_words_is_one_too(body: str) -> None:
    async def talk() -> None:
        async with serving(Server()) as server, HttpKubeClient(KubeAccess(server.url, b"")) as client:
            server.answer(body, status=502)
            with pytest.raises(KubeApiError) as refusal:
                await client.list(PODS)
            assert refusal.value.status == 502

    asyncio.run(talk())


@pytest.mark.parametrize("body", ["<html>", "", '{"items": ['])
async def test_answer_that_is_no_object_means_that_nobody_answers(
    body: str, server: Server, client: HttpKubeClient
) -> None:
    server.answer(body)
    with pytest.raises(UnavailableError):
        await client.list(PODS)


async def test_what_is_gone_is_none_and_other_refusals_are_raised(server: Server, client: HttpKubeClient) -> None:
    for status in (404, 500):
        server.answer({"message": "m", "reason": "r"}, status=status)
    assert await client.get(PODS, "p", "one") is None
    with pytest.raises(KubeApiError):
        await client.get(PODS, "p", "one")
    for status in (404, 403):
        server.answer({"message": "m", "reason": "r"}, status=status)
    assert await client.delete(PODS, "p", "one") is False
    with pytest.raises(KubeApiError):
        await client.delete(PODS, "p", "one")


async def test_nobody_there_is_said_with_the_address() -> None:
    async with serving(Server()) as server:
        url = server.url
    async with HttpKubeClient(KubeAccess(url, b"")) as client:
        for call in (client.list(PODS), client.raw_get("/readyz")):
            with pytest.raises(UnavailableError, match=url):
                await call


async def test_connection_that_breaks_means_that_nobody_answers(server: Server, client: HttpKubeClient) -> None:
    server.stream(b'{"items": [', then="break")
    with pytest.raises(UnavailableError):
        await client.list(PODS)


async def test_items_of_lists_have_their_type(server: Server, client: HttpKubeClient) -> None:
    server.answer({"items": [pod("a", "1")]})
    server.answer({"items": None})
    (found,) = await client.list(PODS)
    assert (found["apiVersion"], found["kind"]) == ("v1", "Pod")
    assert await client.list(PODS) == []


async def test_watch_lists_and_goes_on_from_there(server: Server, client: HttpKubeClient) -> None:
    server.answer(pods("7", pod("a", "3")))
    server.stream(change("MODIFIED", "a", "8"), change("ADDED", "b", "9"), then="silence")
    assert await events(client, 3) == [("ADDED", "a"), ("MODIFIED", "a"), ("ADDED", "b")]
    (_, _, listed, _, _), (_, path, watched, _, _) = server.seen
    assert path == "/api/v1/namespaces/one/pods"
    assert listed == {"labelSelector": "a=b"}
    assert watched["watch"] == "true" and watched["resourceVersion"] == "7" and watched["labelSelector"] == "a=b"
    assert watched["allowWatchBookmarks"] == "true" and int(watched["timeoutSeconds"]) > 0


@pytest.mark.parametrize("how", ["end", "break"])
async def test_watch_that_ends_or_breaks_goes_on_where_it_was(how: str, server: Server, client: HttpKubeClient) -> None:
    server.answer(pods("1"))
    server.stream(change("ADDED", "a", "5"), change("BOOKMARK", "", "9"), then=how)
    server.stream(change("ADDED", "b", "12"), then="silence")
    assert await events(client, 2) == [("ADDED", "a"), ("ADDED", "b")]
    versions = [query.get("resourceVersion") for _, _, query, _, _ in server.seen]
    # What was still under way when the connection broke is asked for again.
    assert versions in ([None, "1", "9"], [None, "1", "5"])
    assert how == "break" or versions[-1] == "9"


async def test_watch_whose_history_is_gone_lists_again(server: Server, client: HttpKubeClient) -> None:
    gone = {"message": "too old resource version", "reason": "Expired", "code": 410}
    server.answer(pods("1"))
    server.stream({"type": "ERROR", "object": gone}, then="end")
    server.answer(pods("20", pod("a", "15")))
    server.answer(gone, status=410)
    server.answer(pods("30", pod("b", "25")))
    server.stream(change("DELETED", "b", "31"), then="silence")
    # That "a" went meanwhile is in no event of the server; whoever watches must learn of it all the same.
    assert await events(client, 4) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")]


async def test_watch_outlives_refusals_and_answers_that_are_none(server: Server, client: HttpKubeClient) -> None:
    server.answer({"message": "not yet", "reason": "Forbidden"}, status=403)
    server.answer(pods("1"))
    server.stream(b'{"type": "ADDED", "obj', then="end")
    server.stream(change("ADDED", "a", "5"), then="silence")
    assert await events(client, 1) == [("ADDED", "a")]


async def test_watch_takes_objects_of_any_size(server: Server, client: HttpKubeClient) -> None:
    large = change("ADDED", "large", "2")
    large["object"]["data"] = "x" * 1_400_000  # close to the most that etcd keeps in one object
    server.answer(pods("1"))
    server.stream(large, change("ADDED", "small", "3"), then="silence")
    assert await events(client, 2) == [("ADDED", "large"), ("ADDED", "small")]


async def test_watch_that_ends_at_once_again_and_again_does_not_run_hot(server: Server, client: HttpKubeClient) -> None:
    server.answer(pods("1"))
    for _ in range(2000):
        server.stream(then="end")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await events(client, 1)
    assert len(server.seen) < 20


async def test_raw_get_returns_the_body_or_says_what_was_wrong(server: Server, client: HttpKubeClient) -> None:
    server.answer("ok")
    server.answer("[-]etcd failed", status=500)
    assert await client.raw_get("/readyz") == "ok"
    with pytest.raises(KubeApiError, match="etcd failed") as refusal:
        await client.raw_get("/readyz")
    assert refusal.value.status == 500


async def test_token_is_read_anew_for_each_call(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with HttpKubeClient(KubeAccess(server.url, b"", token_file=str(token))) as client:
        for text in ("first\n", "second\n"):
            token.write_text(text)
            server.answer({"items": []})
            await client.list(PODS)
    assert [headers["Authorization"] for _, _, _, headers, _ in server.seen] == ["Bearer first", "Bearer second"]


async def test_only_the_authority_s_servers_are_trusted_and_the_client_shows_who_it_is(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority, stranger = issue_authority("right", now=now), issue_authority("wrong", now=now)
    leaf = issue_leaf(authority, LeafProfile("server", (), (), ("127.0.0.1",), server=True), now=now)
    person = issue_leaf(authority, LeafProfile("person", client=True), now=now)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=authority.certificate.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    (tmp_path / "pair").write_bytes(leaf.certificate + leaf.key)
    context.load_cert_chain(tmp_path / "pair")
    async with serving(Server(), context) as server:
        server.answer({"items": []})
        right = KubeAccess(server.url, authority.certificate, person.certificate, person.key)
        async with HttpKubeClient(right) as client:
            assert await client.list(PODS) == []
        wrong = KubeAccess(server.url, stranger.certificate, person.certificate, person.key)
        async with HttpKubeClient(wrong) as client:
            with pytest.raises(UnavailableError):
                await client.list(PODS)


@pytest.mark.parametrize("embedded", [True, False])
def test_kubeconfigs_are_read_with_embedded_and_with_named_files(embedded: bool, tmp_path: Path) -> None:
    def pem(name: str) -> dict[str, str]:
        if embedded:
            return {f"{name}-data": base64.b64encode(name.encode()).decode()}
        (tmp_path / name).write_text(name)
        return {name: str(tmp_path / name)}

    config = {
        "current-context": "b",
        "contexts": [
            {"name": "a", "context": {"cluster": "none", "user": "none"}},
            {"name": "b", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443", **pem("certificate-authority")}}],
        "users": [{"name": "u", "user": {**pem("client-certificate"), **pem("client-key")}}],
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(config))
    access = access_from_kubeconfig(path)
    assert access == KubeAccess(
        "https://192.0.2.1:6443", b"certificate-authority", b"client-certificate", b"client-key"
    )
    assert "client-key" not in repr(access)


@pytest.mark.parametrize("status", [410, 500])
async def test_a_list_in_pages_that_breaks_off_begins_anew_and_nothing_vanishes(server: Server, status: int) -> None:
    def page(version: str, *names: str, following: str = "") -> Manifest:
        metadata = {"resourceVersion": version, **({"continue": following} if following else {})}
        return {"metadata": metadata, "items": [pod(name, version) for name in names]}

    account = Ledger(Budget(page=2)).open("shop")
    access = KubeAccess(server.url, b"")
    async with HttpKubeClient(access, account=account) as client:
        server.answer(page("1", "a", "b", following="x"))
        server.answer(page("1", "c"))
        assert len(await client.list(PODS)) == 3
        counted = account.octets
        server.answer(page("2", "a", "b", following="y"))
        server.answer("gone", status=status)
        with pytest.raises(KubeApiError) as caught:
            await client.list(PODS)
        assert caught.value.status == status
        # What was there before is still kept by whoever asked, and counted.
        assert account.octets == counted
        server.answer(page("3", "a", following="z"))
        server.answer(page("3", "c"))
        assert [one["metadata"]["name"] for one in await client.list(PODS)] == ["a", "c"]
        assert 0 < account.octets < counted
    asked = [query.get("continue", "") for _, _, query, _, _ in server.seen]
    assert asked == ["", "x", "", "y", "", "z"]


async def test_a_page_that_is_no_json_is_told_as_an_api_that_does_not_answer(server: Server) -> None:
    server.answer("<html>a proxy's words</html>")
    async with HttpKubeClient(KubeAccess(server.url, b""), account=Ledger().open("shop")) as client:
        with pytest.raises(UnavailableError, match="does not answer"):
            await client.list(PODS)


async def test_a_watch_whose_pages_break_off_tells_of_nothing_as_gone_before_all_was_listed(server: Server) -> None:
    def page(version: str, *names: str, following: str = "") -> Manifest:
        metadata = {"resourceVersion": version, **({"continue": following} if following else {})}
        return {"metadata": metadata, "items": [pod(name, version) for name in names]}

    server.answer(page("1", "a", "b", "c"))
    server.answer("gone", status=410)
    server.answer(page("2", "a", following="y"))
    server.answer("gone", status=410)
    server.answer(page("3", "a", "b"))
    async with HttpKubeClient(KubeAccess(server.url, b""), account=Ledger().open("shop")) as client:
        assert await events(client, 7) == [
            *(("ADDED", name) for name in ("a", "b", "c", "a", "a", "b")),
            ("DELETED", "c"),
        ]
