"""New authorities for a cluster that is in use, and a host's certificates, on a real platform."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from haneul.app.demo import cluster_access, deploy_workload
from haneul.app.installation import Installation
from haneul.cli.context import Contexts
from haneul.dkos.credentials import decode
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError, UnavailableError
from haneul.kernel.kube import CONFIG_MAPS, NODES, SECRETS, SERVICES, KubeAccess
from haneul.kernel.kube_http import HttpKubeClient
from haneul.kernel.waiting import wait_for
from tests.e2e.balancer import Balancer
from tests.e2e.tenants import PROJECT, tenant
from tests.support import haneul

pytestmark = pytest.mark.e2e
CLOCK = SystemClock()
_SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "password", "namespace": "default"},
    "data": {"password": "aGFuZXVs"},
}


@pytest.fixture
def keys(project: str) -> Iterator[str]:
    """A cluster of two nodes of its own: its authorities do not stay what they were."""
    haneul("cluster", "create", "keys", "--nodes", "2", "--memory", "1024", "-p", project)
    yield "keys"
    haneul("cluster", "delete", "keys", "--yes", "-p", project)


async def access(name: str) -> KubeAccess:
    with Contexts.default().client() as client:
        return await cluster_access(client, PROJECT, name)


async def accepted(kube_access: KubeAccess) -> bool:
    async with HttpKubeClient(kube_access) as kube:
        try:
            await kube.list(NODES)
        except HaneulError:
            return False
        return True


@pytest.mark.timeout(2400)
async def test_new_authorities_while_a_workload_is_asked(keys: str, installation: Installation) -> None:
    with Contexts.default().client() as client:
        await deploy_workload(client, keys, CLOCK, project=PROJECT)
    old = await access(keys)
    async with HttpKubeClient(old) as kube:
        await kube.apply(SECRETS, _SECRET)
        service = await kube.get(SERVICES, "web", "default")
        assert service is not None
    balancer = Balancer(keys, service["spec"]["ports"][0]["nodePort"])
    stop = asyncio.Event()
    probing = [asyncio.create_task(balancer.follow(stop)), asyncio.create_task(balancer.ask(stop))]
    try:
        await asyncio.to_thread(
            haneul, "cluster", "rotate-authorities", keys, "--grace", "0", "-p", PROJECT, timeout=1800
        )
    finally:
        stop.set()
        await asyncio.gather(*probing)
    assert balancer.ledger.tally().asked > 100
    assert balancer.ledger.tally().failed == 0, balancer.ledger.tally()

    # What the old authority signed, and whom it let trust, is worth nothing now.
    fresh = await access(keys)
    assert fresh.authority.strip() != old.authority.strip()
    assert old.authority.strip() not in fresh.authority
    trusting = KubeAccess(old.server, fresh.authority, old.client_certificate, old.client_key)
    assert not await accepted(trusting), "a certificate of the old authority is still let in"
    with pytest.raises(UnavailableError, match=r"(?i)certificate"):
        async with HttpKubeClient(old) as kube:
            await kube.raw_get("/readyz")

    async with tenant(keys) as kube:
        nodes = await kube.list(NODES)
        roots = await kube.get(CONFIG_MAPS, "kube-root-ca.crt", "default")
        secret = await kube.get(SECRETS, "password", "default")
    assert {node["metadata"]["name"] for node in nodes} == {"default-0", "default-1"}
    assert roots is not None and old.authority.decode().strip() not in roots["data"]["ca.crt"]
    assert secret is not None and secret["data"] == _SECRET["data"]
    async with installation.lifecycle.client() as management:
        for made in await management.list(SECRETS, f"cluster-{PROJECT}-{keys}"):
            assert old.authority.strip() not in b"".join(decode(made).values()), made["metadata"]["name"]


async def test_api_takes_up_a_renewed_certificate_without_a_restart(installation: Installation) -> None:
    """The kept certificate is taken away, so that it is due; clients that are connected do not notice."""
    platform = installation.platform
    before = await asyncio.to_thread(ssl.get_server_certificate, (installation.settings.address, 7443))
    status = json.loads(haneul("status", "-o", "json").stdout)
    assert {"certificate", "authority"} <= {row["kind"] for row in status}
    platform.files.certificate.unlink()
    await asyncio.to_thread(haneul, "renew")

    async def renewed() -> bool:
        haneul("project", "list")
        now = await asyncio.to_thread(ssl.get_server_certificate, (installation.settings.address, 7443))
        return now != before

    # The kubelet brings a changed Secret to its pod within two minutes, the API looks twice a minute.
    await wait_for(renewed, what="the renewed certificate", timeout=240, clock=CLOCK, interval=2)


@pytest.mark.long
async def test_host_renews_its_certificates_and_the_platform_goes_on(installation: Installation) -> None:
    """A certificate without its key is due like one near its end: all are renewed, the static pods start in order."""
    key = Path("/etc/kubernetes/pki/apiserver-kubelet-client.key")
    certificates = installation.lifecycle.certificates
    assert not certificates.pending()
    key.write_bytes(Path("/etc/kubernetes/pki/front-proxy-client.key").read_bytes())
    before = {entry.name: entry.ends for entry in certificates.look()}
    await asyncio.to_thread(haneul, "renew", timeout=900)
    after = {entry.name: entry for entry in certificates.look()}
    assert not certificates.pending()
    assert after["pki/apiserver-kubelet-client.crt"].whole
    assert all(after[name].ends > before[name] for name in ("pki/apiserver.crt", "admin.conf", "pki/etcd/server.crt"))
    haneul("status")
    haneul("up", timeout=900)
    assert not certificates.pending()
