"""``haneul dns serve`` between a real API server and a real PowerDNS, through what may happen to any of the three."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from haneul.dns.model import ClusterDomain, Key, RecordSet, zone_of
from haneul.dns.ports import DnsProvider
from haneul.dns.receipts import CONDITION
from haneul.dns.wanted import Wanted
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import ENDPOINT_SLICES, NAMESPACES, PODS, SERVICES, KubeClient, Manifest
from haneul.kernel.waiting import wait_for
from tests.dns_servers import SECRET, PowerDnsServer, Server
from tests.functional import kubernetes
from tests.support import HANEUL
from tests.unit.dns.objects import endpoint, headless, service, slice_of

CLUSTER, ZONE = "first", "k8s.corp.example"
DOMAIN = ClusterDomain.of(CLUSTER, ZONE)
WEB = Key(f"web.shop.svc.{DOMAIN.name}", "A")
DEADLINE = 60.0
MANY = 80


class Ground:
    """An API server, a DNS server, and what publishes between them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api = kubernetes.ApiServer(
            folder / "api", arguments={"disable-admission-plugins": "ServiceAccount"}, files={}
        )
        self.dns: Server = PowerDnsServer(folder / "dns")
        self.process: asyncio.subprocess.Process | None = None
        self.kubeconfig = self.api.kubeconfig()
        key = folder / "key"
        key.write_text(f"{SECRET}\n")
        key.chmod(0o600)
        self.settings = self.file("provider.yaml", {**self.dns.settings(), "keyFile": "key"})

    def file(self, name: str, document: Any) -> Path:
        (self.folder / name).write_text(yaml.safe_dump(document))
        return self.folder / name

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Run the controller until the end of the block, whoever is there to work with."""
        await self.serve()
        try:
            yield
        finally:
            assert self.process
            if self.process.returncode is None:
                self.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(self.process.wait(), 60) == 0, (self.folder / "log").read_text()[-3000:]

    async def serve(self) -> None:
        command = [str(HANEUL), "dns", "serve", "--kubeconfig", str(self.kubeconfig), "--cluster", CLUSTER]
        command += ["--zone", ZONE, "--provider", str(self.settings), "--resync-seconds", "2"]
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)

    async def kill(self) -> None:
        assert self.process
        self.process.kill()
        await self.process.wait()

    async def published(self, provider: DnsProvider) -> dict[Key, RecordSet]:
        """Return what bears the cluster's mark."""
        states = [await provider.read(zone) for zone in provider.zones]
        return {
            key: there.records
            for state in states
            for key, there in state.sets.items()
            if there.owner.startswith(f"{CLUSTER}/")
        }

    async def zone_is_truth(self, client: KubeClient, provider: DnsProvider) -> None:
        """Wait until the zones have exactly what the cluster's objects, listed anew, ask for."""
        wanted = Wanted(DOMAIN)
        for resource in (SERVICES, ENDPOINT_SLICES, PODS):
            wanted.replace(resource, await client.list(resource), set(), 0.0)
        truth = {key: records for key, records in wanted.records().items() if zone_of(key.name, provider.zones)}
        await self.until(self._equals(provider, truth), f"the zone to have {len(truth)} record sets")

    def _equals(self, provider: DnsProvider, truth: dict[Key, RecordSet]) -> Callable[[], Awaitable[bool]]:
        async def probe() -> bool:
            return await self.published(provider) == truth

        return probe

    async def receipt(self, client: KubeClient, name: str, reason: str) -> Manifest:
        found: Manifest = {}

        async def told() -> bool:
            nonlocal found
            conditions = ((await client.get(SERVICES, name, "shop")) or {}).get("status", {}).get("conditions", [])
            found = next((entry for entry in conditions if entry["type"] == CONDITION), {})
            return found.get("reason") == reason

        await self.until(told, f"{name} to be told {reason}")
        return found

    async def until(self, probe: Callable[[], Awaitable[bool]], what: str) -> None:
        hint = (self.folder / "log").read_text()[-2000:] if (self.folder / "log").exists() else ""
        await wait_for(probe, what=what, timeout=DEADLINE, clock=SystemClock(), interval=0.05, hint=hint)


def fresh(manifest: Manifest, **spec: Any) -> Manifest:
    """Return a manifest for an API that gives ids and addresses itself."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "uid"}
    return {**manifest, "metadata": metadata, "spec": {**manifest["spec"], **spec}}


def port(name: str = "http") -> Manifest:
    return {"name": name, "port": 80, "protocol": "TCP"}


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    (tmp_path / "api").mkdir()
    return Ground(tmp_path)


async def test_the_zone_is_the_clusters_truth_whatever_happens(ground: Ground) -> None:
    await ground.dns.start()
    provider = ground.dns.provider()
    try:
        async with ground.serving():
            async with kubernetes.connected(ground.api) as client:
                await objects_come_change_and_go(ground, client, provider)
                await the_dns_server_is_away(ground, client, provider)
                await the_controller_is_killed(ground, client, provider)
                before = await ground.published(provider)
            await the_api_is_away(ground, provider, before)
            await ground.kill()
            await ground.serve()
            await the_api_is_away(ground, provider, before)
            async with kubernetes.connected(ground.api) as client:
                await client.delete(SERVICES, "many-0", "shop")
                await client.create(SERVICES, fresh(service("late")))
                await ground.zone_is_truth(client, provider)
                assert await ground.published(provider) != before
    finally:
        await provider.close()
        await ground.dns.end()


async def objects_come_change_and_go(ground: Ground, client: KubeClient, provider: DnsProvider) -> None:
    await client.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    await client.create(SERVICES, fresh(service("web")))
    await client.create(SERVICES, fresh(headless("db")))
    await client.create(SERVICES, fresh(service("www", ports=[]), type="ExternalName", externalName="www.example.com"))
    pieces = slice_of("db", endpoint("10.7.0.1", hostname="db-0"), endpoint("10.7.0.2", ready=False))
    await client.create(ENDPOINT_SLICES, pieces)
    container = {"name": "one", "image": "none"}
    pod: Manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": "shop"}}
    await client.create(PODS, {**pod, "spec": {"containers": [container]}})
    await client.patch(PODS, "one", {"status": {"podIPs": [{"ip": "10.7.0.9"}]}}, "shop", subresource="status")
    await ground.zone_is_truth(client, provider)
    receipt = await ground.receipt(client, "web", "Acknowledged")
    assert (receipt["status"], "PowerDNS at" in receipt["message"]) == ("True", True)

    found = await client.get(SERVICES, "web", "shop")
    assert found
    address = found["spec"]["clusterIP"]
    expected = {
        WEB: (address,),
        Key(f"_http._tcp.{WEB.name}", "SRV"): (f"0 100 80 {WEB.name}",),
        Key(f"db-0.db.shop.svc.{DOMAIN.name}", "A"): ("10.7.0.1",),
        Key(f"10-7-0-9.shop.pod.{DOMAIN.name}", "A"): ("10.7.0.9",),
        Key("1.0.7.10.in-addr.arpa.", "PTR"): (f"db-0.db.shop.svc.{DOMAIN.name}",),
        Key(f"www.shop.svc.{DOMAIN.name}", "CNAME"): ("www.example.com.",),
        Key(f"dns-version.{DOMAIN.name}", "TXT"): ('"1.1.0"',),
    }
    assert {key: (await ground.dns.ask(key)).values for key in expected} == expected
    assert (await ground.dns.ask(Key(f"kubernetes.default.svc.{DOMAIN.name}", "A"))).values

    await client.patch(SERVICES, "web", {"spec": {"ports": [port("https")]}}, "shop")
    await client.apply(ENDPOINT_SLICES, slice_of("db", endpoint("10.7.0.2"), name="db-1"))
    await client.delete(SERVICES, "www", "shop")
    await client.delete(PODS, "one", "shop", grace=0)
    await ground.zone_is_truth(client, provider)
    assert (await ground.dns.ask(Key(f"www.shop.svc.{DOMAIN.name}", "CNAME"))).code == "NXDOMAIN"
    assert (await ground.dns.ask(Key(f"_http._tcp.{WEB.name}", "SRV"))).code == "NXDOMAIN"
    await client.delete(ENDPOINT_SLICES, "db-1", "shop")
    await ground.zone_is_truth(client, provider)
    assert (await ground.dns.ask(Key(f"db.shop.svc.{DOMAIN.name}", "A"))).code == "NXDOMAIN"


async def the_dns_server_is_away(ground: Ground, client: KubeClient, provider: DnsProvider) -> None:
    await ground.dns.end(signal.SIGKILL)
    await client.patch(SERVICES, "web", {"spec": {"ports": [port("grpc")]}}, "shop")
    receipt = await ground.receipt(client, "web", "NotAcknowledged")
    assert receipt["status"] == "False"
    await client.delete(SERVICES, "db", "shop")
    await ground.dns.start()
    await ground.zone_is_truth(client, provider)
    await ground.receipt(client, "web", "Acknowledged")


async def the_controller_is_killed(ground: Ground, client: KubeClient, provider: DnsProvider) -> None:
    making = asyncio.ensure_future(
        asyncio.gather(*(client.create(SERVICES, fresh(service(f"many-{number}"))) for number in range(MANY)))
    )

    async def some() -> bool:
        return any(key.name.startswith("many-") for key in await ground.published(provider))

    await ground.until(some, "some of many Services to be published")
    await ground.kill()
    await making
    await client.delete(SERVICES, "many-1", "shop")
    await ground.serve()
    await ground.zone_is_truth(client, provider)


async def the_api_is_away(ground: Ground, provider: DnsProvider, before: dict[Key, RecordSet]) -> None:
    """The controller says that it holds on, and everything stays."""
    heard = len((ground.folder / "log").read_text())

    async def waits() -> bool:
        return (ground.folder / "log").read_text()[heard:].count("held up; what is published stays") >= 2

    await ground.until(waits, "the controller to say that it holds on")
    assert await ground.published(provider) == before
    assert (await ground.dns.ask(WEB)).values
