"""An upstream over TLS, in this process: whom it trusts, where it is sent on to, and what it makes of odd answers."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web

from haneul.d2hub.adapters.http_upstream import HttpUpstream
from haneul.d2hub.errors import (
    BlobUnknownError,
    ManifestUnknownError,
    UpstreamError,
    UpstreamLimitedError,
    UpstreamRefusedError,
    UpstreamWrongError,
)
from haneul.d2hub.rules import MirrorRules
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.pki import LeafProfile, issue_authority, issue_leaf
from tests.functional.d2hub.hub import sha256

DATA = b"0123456789"
DIGEST = sha256(DATA)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Far:
    """A server whose answer a test decides."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[web.Request] = []
        self.answer: Answer = self.whole
        self.url, self.authority = "", folder / "ca.crt"

    async def whole(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=DATA, content_type="application/octet-stream")

    async def answered(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)

    def says(self, status: int, **headers: str) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={name.replace("_", "-"): said for name, said in headers.items()})

        self.answer = answer


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Far]:
    now = SystemClock().now()
    authority = issue_authority("far authority", now=now)
    profile = LeafProfile("far", dns_names=("localhost",), addresses=("127.0.0.1",), server=True)
    leaf = issue_leaf(authority, profile, now=now, life=timedelta(days=1))
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "pair.pem").write_bytes(leaf.certificate + leaf.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair.pem")
    far = Far(tmp_path)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", far.answered)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    far.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield far
    await runner.cleanup()


@pytest.fixture
async def upstream(far: Far, tmp_path: Path) -> AsyncIterator[HttpUpstream]:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("alice:wonder:land\n")
    upstream = HttpUpstream(MirrorRules(far.url, secret, far.authority, timeout_seconds=10), clock=SystemClock())
    yield upstream
    await upstream.close()


async def blob(upstream: HttpUpstream, *, at: int = 0) -> tuple[int | None, bytes]:
    async with upstream.blob("team/web", DIGEST, at=at) as sent:
        return sent.size, b"".join([part async for part in sent.parts])


async def refusal(asked: Awaitable[object], kind: type[HaneulError]) -> HaneulError:
    with pytest.raises(kind) as caught:
        await asked
    assert type(caught.value) is kind
    return caught.value


async def test_whom_it_trusts(far: Far, upstream: HttpUpstream) -> None:
    assert await blob(upstream) == (10, DATA)
    stranger = HttpUpstream(MirrorRules(far.url), clock=SystemClock())
    error = await refusal(blob(stranger), UpstreamError)
    await stranger.close()
    assert isinstance(error, UpstreamError)
    assert error.rest
    assert "certificate" in error.detail


async def test_parts_of_blobs_whether_the_upstream_can_or_not(far: Far, upstream: HttpUpstream) -> None:
    assert await blob(upstream, at=4) == (10, DATA[4:])
    assert far.requests[-1].headers["Range"] == "bytes=4-"

    async def part(_: web.Request) -> web.StreamResponse:
        return web.Response(status=206, body=DATA[4:], headers={"Content-Range": "bytes 4-9/10"})

    far.answer = part
    assert await blob(upstream, at=4) == (10, DATA[4:])
    await refusal(blob(upstream, at=5), UpstreamWrongError)


async def test_secrets_are_sent_nowhere_else_than_over_tls(far: Far, upstream: HttpUpstream) -> None:
    for realm in (
        "http://127.0.0.1:1/token",
        "ftp://127.0.0.1/token",
        "token",
        "https://a:b@127.0.0.1/token",
        "http://[",
    ):
        far.says(401, WWW_Authenticate=f'Bearer realm="{realm}",service="far"')
        await refusal(blob(upstream), UpstreamWrongError)
    assert len(far.requests) == 5
    far.says(401, WWW_Authenticate='Digest realm="far"')
    await refusal(blob(upstream), UpstreamRefusedError)


async def test_a_redirect_leads_to_tls_or_nowhere(far: Far, upstream: HttpUpstream) -> None:
    for target in ("http://127.0.0.1:1/blob", "file:///etc/passwd", "https://a:b@127.0.0.1/blob", "https://[", far.url):
        far.says(307, Location=target)
        await refusal(blob(upstream), UpstreamWrongError)
    assert all("Authorization" not in request.headers for request in far.requests)


async def test_nothing_leads_to_this_machine_unless_the_rules_say_so(far: Far, upstream: HttpUpstream) -> None:
    port = far.url.rpartition(":")[2]
    for host in ("localhost", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"):
        far.says(307, Location=f"https://{host}:{port}/blob")
        assert "localHosts" in (await refusal(blob(upstream), UpstreamWrongError)).hint
        far.says(401, WWW_Authenticate=f'Bearer realm="https://{host}:{port}/token"')
        assert "localHosts" in (await refusal(blob(upstream), UpstreamWrongError)).hint
    assert len(far.requests) == 10

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        if request.host == f"localhost:{port}":
            return await far.whole(request)
        return web.Response(status=307, headers={"Location": f"https://localhost:{port}/blob"})

    far.answer = elsewhere
    rules = MirrorRules(far.url, ca_file=far.authority, local_hosts=("LocalHost",))
    told = HttpUpstream(rules, clock=SystemClock())
    assert await blob(told) == (10, DATA)
    await told.close()


async def test_the_token_flow(far: Far, upstream: HttpUpstream) -> None:
    async def flow(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"access_token": "good", "expires_in": 300})
        if request.headers.get("Authorization") == "Bearer good":
            return await far.whole(request)
        scope = "repository:team/web:pull"
        challenge = f'Bearer realm="{far.url}/token",service="far",scope="{scope}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    far.answer = flow
    assert await asyncio.gather(*(blob(upstream) for _ in range(5))) == [(10, DATA)] * 5
    signed_in = [request for request in far.requests if request.path == "/token"]
    assert [(request.query["service"], request.query["scope"]) for request in signed_in] == [
        ("far", "repository:team/web:pull")
    ]
    sent = signed_in[0].headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent) == b"alice:wonder:land"


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (401, None, UpstreamRefusedError),
        (429, None, UpstreamLimitedError),
        (500, None, UpstreamError),
        (200, b"no JSON", UpstreamWrongError),
        (200, b"[]", UpstreamWrongError),
        (200, b"{}", UpstreamWrongError),
        (200, b'{"token": "a\\r\\nb"}', UpstreamWrongError),
        (200, b" " * (2 << 20), UpstreamWrongError),
    ],
)
async def test_odd_token_services(
    far: Far, upstream: HttpUpstream, status: int, said: bytes | None, kind: type[HaneulError]
) -> None:
    async def flow(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.Response(status=status, body=said)
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="{far.url}/token"'})

    far.answer = flow
    await refusal(blob(upstream), kind)


async def test_what_statuses_mean(far: Far, upstream: HttpUpstream) -> None:
    far.says(404)
    await refusal(blob(upstream), BlobUnknownError)
    await refusal(upstream.tag("team/web", "v1"), ManifestUnknownError)
    far.says(403)
    await refusal(blob(upstream), UpstreamRefusedError)
    far.says(418)
    await refusal(blob(upstream), UpstreamError)
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    for status, header, least, most in (
        (429, "7", 7, 7),
        (503, soon, 90, 100),
        (429, "soon", 60, 60),
        (429, "", 60, 60),
    ):
        far.says(status, Retry_After=header)
        with pytest.raises(UpstreamError) as caught:
            await upstream.tag("team/web", "v1")
        assert caught.value.rest is not None
        assert least <= caught.value.rest <= most


async def test_a_tag_is_asked_for_on_a_condition(far: Far, upstream: HttpUpstream) -> None:
    far.says(304)
    assert await upstream.tag("team/web", "v1", known=DIGEST) == DIGEST
    asked = far.requests[-1]
    assert (asked.method, asked.headers["If-None-Match"]) == ("HEAD", f'"{DIGEST}"')
    far.says(200, Docker_Content_Digest="sha256:none")
    assert await upstream.tag("team/web", "v1") == ""


async def test_a_manifest_that_is_too_large(far: Far, upstream: HttpUpstream) -> None:
    assert (await upstream.manifest("team/web", "v1", most=10)).content == DATA
    await refusal(upstream.manifest("team/web", "v1", most=9), UpstreamWrongError)
