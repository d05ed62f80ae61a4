"""Certificates from a real authority, through a real nginx: given, refused, renewed, swapped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509

from haneul.ingress.adapters.acme_authority import AcmeAuthority, Binding, Issuing
from haneul.ingress.adapters.allowed_hosts import AllowedHosts
from haneul.ingress.adapters.certificate_folder import CertificateFolder
from haneul.ingress.annotations import PREFIX
from haneul.ingress.controller import ClusterController, Pace
from haneul.ingress.issuing import Issuer
from haneul.ingress.options import Options
from haneul.ingress.ports import CertificateRefusedError
from haneul.ingress.rendering import render_configuration
from haneul.kernel.clock import Clock, SystemClock
from haneul.kernel.kube import EVENTS, Manifest, resource_of
from tests.followed import FollowedCluster
from tests.ingress_proxy import LOOPBACK, Application, Ground, ground, until
from tests.pebble import BLOCKED, Pebble, pebble
from tests.unit.ingress.objects import ingress, ingress_class, path, service, slice_of

PACE = Pace(gather=0.0, between_reloads=0.0, resync=3600.0, look=3600.0, first_backoff=0.05, last_backoff=0.2)
HOST = "shop.example.com"


class LaterClock(SystemClock):
    """The machine's clock, and some days."""

    def __init__(self, days: int) -> None:
        self._more = timedelta(days=days)

    def now(self) -> datetime:
        return super().now() + self._more


def certified(name: str, host: str) -> Manifest:
    made = ingress(name, path("/"), host=host, annotations={f"{PREFIX}certificate": "acme"})
    metadata = {key: value for key, value in made["metadata"].items() if key not in ("uid", "creationTimestamp")}
    return {**made, "metadata": metadata}


def issuing(made: Pebble, store: CertificateFolder, binding: Binding | None = None) -> Issuing:
    return Issuing(made.directory, ("ops@example.com",), store.account_key(), made.trust, binding)


@contextlib.asynccontextmanager
async def serving(
    cluster: FollowedCluster, made: Ground, authority: Pebble, store: CertificateFolder, clock: Clock
) -> AsyncIterator[None]:
    controller = ClusterController(
        cluster,
        made.proxy,
        AllowedHosts([]),
        partial(render_configuration, site=made.site),
        cluster="first",
        options=Options(issuer=True),
        addresses=[],
        clock=clock,
        pace=PACE,
        issuer=Issuer(AcmeAuthority(issuing(authority, store), SystemClock()), store, clock),
    )
    working = asyncio.ensure_future(controller.run())
    try:
        yield
    finally:
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


async def put(cluster: FollowedCluster, *manifests: Manifest) -> None:
    for manifest in manifests:
        await cluster.apply(resource_of(manifest), manifest)


async def secured(made: Ground, root: Path, host: str) -> str:
    """Return what curl says of a host, which it asks with no trust but in one authority."""
    return await made.curl("--cacert", str(root), host=host)


def leaf(store: CertificateFolder, host: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(store.certificates()[host].chain)


async def test_hosts_get_certificates_and_one_that_is_refused_breaks_nobody(tmp_path: Path) -> None:
    cluster = FollowedCluster()
    await cluster.with_namespaces()
    store = CertificateFolder(tmp_path / "acme")
    async with ground() as made, Application("web").running() as app:
        # What is open when routes change may go on for as long as this takes.
        made.site = replace(made.site, drain=3600)
        piece = slice_of("web", {"addresses": [LOOPBACK], "conditions": {"ready": True}}, port=app.port)
        hosts = [certified("bad", BLOCKED), certified("web", HOST), certified("wild", "*.example.com")]
        # nginx serves the hosts from the start: workers of before a reload would know nothing of challenges.
        made.see(service(), piece, *hosts)
        made.options = replace(made.options, issuer=True)
        await made.route()
        await put(cluster, ingress_class(), service(), piece, *hosts)
        async with pebble(tmp_path, address=made.address, http_port=made.http) as authority:
            root = tmp_path / "root.pem"
            root.write_bytes(await authority.root())
            async with serving(cluster, made, authority, store, SystemClock()), made.session() as session:
                await is_given(made, root, session, app)
                await is_told(cluster)
                assert "web" in (await made.ask("/", host=BLOCKED)).text
                assert (await made.ask("/.well-known/acme-challenge/none", host=HOST)).status == 404
            first = leaf(store, HOST)
            assert set(store.refusals()) == {BLOCKED}
            assert {file.stat().st_mode & 0o077 for file in (tmp_path / "acme").rglob("*")} == {0}
            async with serving(cluster, made, authority, store, LaterClock(70)):

                async def renewed() -> bool:
                    return leaf(store, HOST).serial_number != first.serial_number

                await until(renewed, "the certificate to be renewed")

                async def served() -> bool:
                    told = await made.curl("-v", "--cacert", str(root), "-w", "%{certs}", host=HOST)
                    return store.certificates()[HOST].chain.decode().splitlines()[1] in told

                await until(served, "the new certificate to be served")


async def is_given(made: Ground, root: Path, session: aiohttp.ClientSession, app: Application) -> None:
    async def plain() -> bool:
        return (await made.ask("/", host=HOST)).status in (200, 308)

    await until(plain, "the host to be served")
    async with session.get(made.url("/slow"), headers={"Host": "slow.example.com"}) as slow:
        # A connection that is open while certificates come goes on to its end.
        assert await slow.content.readexactly(6) == b"begun "

        async def has_one() -> bool:
            return '"app": "web"' in await secured(made, root, HOST)

        await until(has_one, "the host to have a certificate that clients trust")
        app.released.set()
        assert await slow.content.read() == b"ended"

    async def redirected() -> bool:
        return (await made.ask("/", host=HOST)).status == 308

    await until(redirected, "plain HTTP to be redirected")


async def is_told(cluster: FollowedCluster) -> None:
    async def told() -> bool:
        found = await cluster.list(EVENTS)
        said = {(one["regarding"]["name"], one["reason"]) for one in found}
        return said == {("bad", "CertificateRefused"), ("wild", "CertificateRefused")}

    await until(told, "the refused ones to be told")
    notes = [one["note"] for one in await cluster.list(EVENTS) if one["regarding"]["name"] == "bad"]
    assert all("rejectedIdentifier" in note for note in notes)


async def test_a_host_that_nobody_answers_for_is_refused_with_what_the_authority_saw(tmp_path: Path) -> None:
    store = CertificateFolder(tmp_path / "acme")
    async with pebble(tmp_path, address=LOOPBACK, http_port=9) as authority:
        made = AcmeAuthority(issuing(authority, store), SystemClock())
        begun = await made.begin(HOST)
        assert begun.challenges
        with pytest.raises(CertificateRefusedError, match="connection"):
            await made.finish(begun)


async def test_an_order_that_the_authority_does_not_know_is_over(tmp_path: Path) -> None:
    store = CertificateFolder(tmp_path / "acme")
    async with pebble(tmp_path, address=LOOPBACK, http_port=9) as authority:
        made = AcmeAuthority(issuing(authority, store), SystemClock())
        begun = await made.begin(HOST)
        # Whoever comes next has the same to show, by the same order.
        assert (await made.resume(HOST, begun.kept)).challenges == begun.challenges
        assert authority.orders() == 1
        for kept in (begun.kept.replace("/my-order/", "/my-order/x"), begun.kept.replace("my-order", "none"), "{}"):
            with pytest.raises(CertificateRefusedError) as refused:
                await made.resume(HOST, kept)
            assert refused.value.over


async def test_an_account_may_have_to_be_bound_to_another(tmp_path: Path) -> None:
    key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    store = CertificateFolder(tmp_path / "acme")
    async with pebble(tmp_path, address=LOOPBACK, http_port=9, keys={"ours": key}) as authority:
        bound = AcmeAuthority(issuing(authority, store, Binding("ours", key)), SystemClock())
        assert (await bound.begin(HOST)).challenges
        # The second time the account is there.
        assert (await bound.begin(HOST)).challenges
        other = CertificateFolder(tmp_path / "other")
        for binding in (None, Binding("theirs", key)):
            with pytest.raises(CertificateRefusedError):
                await AcmeAuthority(issuing(authority, other, binding), SystemClock()).begin(HOST)


@pytest.mark.parametrize("answer", ["{}", "[]", "null", '{"newNonce": 1, "newAccount": "x"}', "<html>"])
async def test_whatever_is_no_authority_is_a_refusal(tmp_path: Path, answer: str) -> None:
    async def anything(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", anything)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        place = f"http://{LOOPBACK}:{runner.addresses[0][1]}/dir"
        key = CertificateFolder(tmp_path).account_key()
        for made in (Issuing(place, (), key), Issuing(place, (), b"no key")):
            with pytest.raises(CertificateRefusedError):
                await AcmeAuthority(made, SystemClock()).begin(HOST)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("said", "least", "most"), [("3600", 3600, 3600), ("date", 7000, 7300), ("", None, None)])
async def test_a_limit_of_the_authority_says_how_long_it_lasts(
    tmp_path: Path, said: str, least: float | None, most: float | None
) -> None:
    moment = datetime.now(UTC) + timedelta(hours=2)
    headers = {"Replay-Nonce": "A" * 22}
    if said:
        headers["Retry-After"] = said if said != "date" else moment.strftime("%a, %d %b %Y %H:%M:%S GMT")

    async def directory(request: web.Request) -> web.Response:
        place = f"http://{request.host}"
        return web.json_response({name: f"{place}/{name}" for name in ("newNonce", "newAccount", "newOrder")})

    async def nonce(_: web.Request) -> web.Response:
        return web.Response(headers={"Replay-Nonce": "A" * 22})

    async def limited(_: web.Request) -> web.Response:
        problem = {"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too\n\x1b[2Jmany"}
        return web.json_response(problem, status=429, headers=headers, content_type="application/problem+json")

    application = web.Application()
    application.router.add_get("/dir", directory)
    application.router.add_get("/newNonce", nonce)
    application.router.add_post("/newAccount", limited)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        place = f"http://{LOOPBACK}:{runner.addresses[0][1]}/dir"
        made = AcmeAuthority(Issuing(place, (), CertificateFolder(tmp_path).account_key()), SystemClock())
        with pytest.raises(CertificateRefusedError, match=r"^rateLimited: too \\u001b\[2Jmany$") as refused:
            await made.begin(HOST)
    finally:
        await runner.cleanup()
    if least is None or most is None:
        assert refused.value.wait is None
    else:
        assert least <= (refused.value.wait or 0) <= most
