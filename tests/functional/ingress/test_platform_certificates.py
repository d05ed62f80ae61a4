"""Certificates of a real issuer for public hosts of a platform's clusters, and what is ordered when all is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from haneul.app.ingress_worker import grantee
from haneul.app.platform_issuer import PlatformIssuer
from haneul.ingress.adapters.certificate_folder import CertificateFolder
from haneul.kernel.errors import InvalidInputError
from haneul.kernel.kube import EVENTS, GATEWAYS, INGRESSES, Manifest
from haneul.management.ingress_host import IngressFiles
from tests.functional.ingress.test_certificates import HOST as PUBLIC
from tests.ingress_platform import HOST, Platform, a_platform, on_a_node_port
from tests.ingress_proxy import LOOPBACK, Application, free_address, until
from tests.pebble import BLOCKED, Pebble, pebble
from tests.processes import kill_all
from tests.unit.ingress.gateway_objects import gateway, gateway_class, http_route
from tests.unit.ingress.objects import endpoint, ingress, ingress_class, service, slice_of

ROUTED = "api.example.com"
LATER = "later.example.com"
_ROOT = Path(__file__).parents[3]


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with a_platform() as made:
        yield made


def name(platform: Platform, authority: Pebble) -> None:
    """Name the issuer as root does, from files that are gone afterwards."""
    folder = platform.folder / "told"
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.trust.read_bytes())
    document = {
        "directory": authority.directory,
        "contact": ["ops@example.com"],
        "termsOfServiceAgreed": True,
        "authorities": "ca.pem",
    }
    (folder / "issuer.yaml").write_text(yaml.safe_dump(document))
    issuer = PlatformIssuer(platform.ground.files)
    issuer.name(folder / "issuer.yaml")
    for file in folder.iterdir():
        file.unlink()
    platform.ground = replace(platform.ground, issuer=issuer.made())


async def test_public_hosts_have_certificates_of_the_issuer(platform: Platform, tmp_path: Path) -> None:
    tenant, node = platform.tenant, free_address()[0]
    await tenant.with_namespaces()
    async with contextlib.AsyncExitStack() as stack:
        tenant.port = await stack.enter_async_context(on_a_node_port(Application("one"), node))
        authority = await stack.enter_async_context(pebble(tmp_path, address=platform.address, http_port=platform.port))
        root = tmp_path / "root.pem"
        root.write_bytes(await authority.root())
        name(platform, authority)
        platform.record = replace(platform.record, nodes=(node,))
        for host in (PUBLIC, BLOCKED, ROUTED, LATER):
            platform.granted.grant(host, grantee(platform.record))
        https: Manifest = {"name": "https", "port": platform.port + 1, "protocol": "HTTPS"}
        route = http_route("api", hosts=[ROUTED])
        await tenant.put(ingress_class("haneul", default=True), gateway_class(), gateway("web", https), route)
        await tenant.put(service(selector={"app": "web"}), slice_of("web", endpoint("10.0.0.1")))
        hosts = {"own": HOST, "public": PUBLIC, "bad": BLOCKED}
        await tenant.put(*(ingress(key, host=host, class_name=None) for key, host in hosts.items()))
        await platform.begin().know(platform.record)
        await platform.answers("one", host=PUBLIC, trust=root)
        await platform.answers("one", host=ROUTED, trust=root)
        # Whoever has no public name, and whoever is refused, has one of the platform's authority.
        await platform.answers("one", host=HOST)
        await platform.answers("one", host=BLOCKED)
        await is_told(platform)
        await nothing_is_ordered_twice(platform, authority, root)
        await without_an_issuer(platform)


async def is_told(platform: Platform) -> None:
    async def said() -> bool:
        events = [one for one in await platform.tenant.list(EVENTS) if one["reason"] == "CertificateRefused"]
        notes = [one["note"] for one in events if one["regarding"]["name"] == "bad"]
        # The issuer's words, and what to do about them.
        return any(note.startswith(f"{BLOCKED}: rejectedIdentifier") and "use another host" in note for note in notes)

    await until(said, "the one that was refused to be told")

    async def good() -> bool:
        found = await platform.tenant.get(GATEWAYS, "web", "shop") or {}
        [seen] = (found.get("status") or {}).get("listeners") or [{}]
        return {one["type"]: one["status"] for one in seen.get("conditions", [])}.get("ResolvedRefs") == "True"

    await until(good, "the listener to be told that it is served")


async def nothing_is_ordered_twice(platform: Platform, authority: Pebble, root: Path) -> None:
    """Whoever comes back orders for what is new alone."""
    assert platform.worker
    await platform.worker.close()
    issuer = platform.ground.issuer
    assert issuer
    store = issuer.store(platform.ground.files.certificates / platform.record.uid)
    before, orders = store.certificates(), authority.orders()
    await platform.begin().know(platform.record)
    await platform.tenant.put(ingress("later", host=LATER, class_name=None))
    await platform.answers("one", host=LATER, trust=root)
    await platform.answers("one", host=PUBLIC, trust=root)
    after = store.certificates()
    assert {host: after[host] for host in before} == before
    assert set(after) == {*before, LATER}
    assert [store.order(host) for host in after] == [""] * len(after)
    assert authority.orders() > orders


async def without_an_issuer(platform: Platform) -> None:
    """Who forgets the issuer has the platform's authority again, at once and for all hosts."""
    assert platform.worker
    await platform.worker.close()
    PlatformIssuer(platform.ground.files).forget()
    platform.ground = replace(platform.ground, issuer=PlatformIssuer(platform.ground.files).made())
    await platform.begin().know(platform.record)
    await platform.answers("one", host=PUBLIC)
    await platform.answers("one", host=ROUTED)
    assert await platform.tenant.get(INGRESSES, "public", "shop")


class Certifying:
    """A program that has a host certified, and is killed; what it wants to be found is shown by this process."""

    def __init__(self, folder: Path, authority: Pebble) -> None:
        self.store = CertificateFolder(folder)
        told = {"folder": str(folder), "directory": authority.directory, "trust": str(authority.trust), "host": PUBLIC}
        self._told = json.dumps(told)
        self._log = folder.with_suffix(".log")
        self.process = self.begin()

    def begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.functional.ingress.certifying", self._told]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=_ROOT)
        return self.process

    async def until_kept(self) -> None:
        """Wait for the certificate; whenever the program was killed, another one comes."""

        async def kept() -> bool:
            if (code := self.process.poll()) is not None:
                assert code == -signal.SIGKILL, self._log.read_text()
                self.begin()
            return PUBLIC in self.store.certificates()

        await until(kept, "the certificate to be kept")


async def test_whoever_is_killed_is_followed_by_one_who_goes_on_with_the_order(tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    certifying: Certifying | None = None
    asked: list[str] = []

    async def challenge(request: web.Request) -> web.Response:
        asked.append(request.match_info["token"])
        text = json.loads((folder / "shown.json").read_text())[request.match_info["token"]]
        if len(asked) == 1:
            # It hears from nobody that the issuer looked.
            assert certifying
            certifying.process.kill()
        return web.Response(text=text)

    application = web.Application()
    application.router.add_get("/.well-known/acme-challenge/{token}", challenge)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, 0).start()
        async with pebble(tmp_path, address=LOOPBACK, http_port=runner.addresses[0][1]) as authority:
            certifying = Certifying(folder, authority)
            try:

                async def begun() -> bool:
                    return bool(certifying.store.order(PUBLIC)) or PUBLIC in certifying.store.certificates()

                await until(begun, "the order to be kept")
                certifying.process.kill()
                await asyncio.to_thread(certifying.process.wait, 60)
                await certifying.until_kept()
                kill_all(certifying.process)
                assert certifying.store.order(PUBLIC) == ""
                assert asked
                assert authority.orders() == 1
                # Whoever comes now has it, and asks for nothing.
                (folder / "idle").unlink(missing_ok=True)
                certifying.begin()

                async def has_it() -> bool:
                    return (folder / "idle").exists()

                await until(has_it, "the next one to have the certificate")
                assert authority.orders() == 1
            finally:
                kill_all(certifying.process)
    finally:
        await runner.cleanup()


def test_an_issuer_is_named_whole_or_not_at_all(tmp_path: Path) -> None:
    issuer = PlatformIssuer(IngressFiles(tmp_path))
    assert (issuer.made(), issuer.told()) == (None, "")
    file, key = tmp_path / "issuer.yaml", tmp_path / "key"
    document = {"directory": "https://acme.example.com/d", "termsOfServiceAgreed": True, "names": ["Example.com"]}
    key.write_text("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n")
    document["externalAccount"] = {"id": "ours", "keyFile": "key"}
    file.write_text(yaml.safe_dump(document))
    key.chmod(0o644)
    with pytest.raises(InvalidInputError, match="others may read"):
        issuer.name(file)
    assert issuer.made() is None
    key.chmod(0o600)
    issuer.name(file)
    made = issuer.made()
    assert made
    assert made.issuing.binding
    assert (made.names.below, made.issuing.binding.identifier) == (("example.com",), "ours")
    assert made.issuing.account_key == (issuer.made() or made).issuing.account_key
    assert {entry.stat().st_mode & 0o077 for entry in (tmp_path / "ingress").rglob("*") if entry.is_file()} == {0}
    for wrong in ({"authorities": "none.pem"}, {"names": ["*.example.com"]}, {"directory": "http://example.com"}):
        file.write_text(yaml.safe_dump({**document, **wrong}))
        with pytest.raises(InvalidInputError):
            issuer.name(file)
    assert issuer.made() == made
    issuer.forget()
    assert issuer.made() is None
