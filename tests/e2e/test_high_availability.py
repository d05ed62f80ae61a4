"""Three masters on a real platform: what is planned costs nobody a request; what breaks is written down.

The API is asked twenty times a second, each time over a new connection, to read and to write in turn; the workload as
often. Figures of faults go to standard output (``pytest -s``).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from haneul.app.demo import cluster_access, deploy_workload
from haneul.app.installation import Installation
from haneul.chaos.ledger import Ledger
from haneul.cli.context import Contexts
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import CONFIG_MAPS, DEPLOYMENTS, PERSISTENT_VOLUMES, PODS, SECRETS, KubeAccess, Manifest
from haneul.kernel.waiting import wait_for
from tests.e2e.tenants import PROJECT, cluster, happened, tenant
from tests.e2e.test_backups import complete_after
from tests.support import haneul

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]
CLOCK = SystemClock()
NAME = "three"
MEMBERS = 3
NAMESPACE = f"cluster-{PROJECT}-{NAME}"
ROLE, CLUSTER = "dkos.haneul.dev/role", "dkos.haneul.dev/cluster"


@pytest.fixture(scope="module")
def three(project: str) -> Iterator[str]:
    """A cluster of three masters and one node."""
    haneul("cluster", "create", NAME, "--ha", "--memory", "1024", "-p", project, "--timeout", "900", timeout=960)
    yield NAME
    haneul("cluster", "delete", NAME, "--yes", "-p", project)


class Probe:
    """Asks an API server to read and to write in turn, as its users do: by a new connection each time."""

    def __init__(self, access: KubeAccess) -> None:
        self.ledger = Ledger("API")
        self.said: list[str] = []
        self._server = access.server
        self._context = ssl.create_default_context(cadata=access.authority.decode())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "client.pem")
            file.touch(mode=0o600)
            file.write_bytes(access.client_certificate + access.client_key)
            self._context.load_cert_chain(file)

    async def ask(self, stop: asyncio.Event) -> None:
        connector = aiohttp.TCPConnector(ssl=self._context, force_close=True)
        path = f"{self._server}/api/v1/namespaces/default/configmaps/probe"
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=15)) as session:
            number = 0
            while not stop.is_set():
                at, number = CLOCK.monotonic(), number + 1
                answered = await self._one(session, path, str(number) if number % 2 else "")
                self.ledger.note(at, good=answered)
                await asyncio.sleep(max(0.0, 0.05 - (CLOCK.monotonic() - at)))

    async def _one(self, session: aiohttp.ClientSession, path: str, value: str) -> bool:
        headers = {"Content-Type": "application/merge-patch+json"}
        try:
            asked = (
                session.patch(path, json={"data": {"number": value}}, headers=headers) if value else session.get(path)
            )
            async with asked as answer:
                text = await answer.text()
                if answer.status == 200:
                    return True
                self.said.append(f"{answer.status} {text[:200]}")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self.said.append(f"{type(error).__name__}: {error}")
        return False


async def ask_workload(ledger: Ledger, url: str, stop: asyncio.Event) -> None:
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True), timeout=timeout) as session:
        while not stop.is_set():
            at, answered = CLOCK.monotonic(), False
            with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with session.get(url) as answer:
                    await answer.read()
                    answered = answer.status == 200
            ledger.note(at, good=answered)
            await asyncio.sleep(max(0.0, 0.05 - (CLOCK.monotonic() - at)))


@contextlib.asynccontextmanager
async def asked(workload: str = "") -> AsyncIterator[tuple[Probe, Ledger]]:
    """Have the API and a workload asked all the while."""
    with Contexts.default().client() as client:
        access = await cluster_access(client, PROJECT, NAME)
    async with tenant(NAME) as kube:
        await kube.apply(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **_named("probe"), "data": {}})
    probe, ledger, stop = Probe(access), Ledger("workload"), asyncio.Event()
    tasks = [asyncio.create_task(probe.ask(stop))]
    tasks += [asyncio.create_task(ask_workload(ledger, f"http://{workload}/hostname", stop))] if workload else []
    try:
        yield probe, ledger
    finally:
        stop.set()
        await asyncio.gather(*tasks)


def _named(name: str) -> Manifest:
    return {"metadata": {"name": name, "namespace": "default"}}


def nothing_failed(probe: Probe, ledger: Ledger | None = None) -> None:
    assert probe.ledger.tally().asked > 50
    # While etcd's leader hands over, it drops writes that others pass on to it, and nobody repeats them (raft's
    # ErrProposalDropped); each of the three members may have led once.
    dropped = [said for said in probe.said if said.startswith("500 ") and "etcdserver: request timed out" in said]
    assert len(dropped) <= MEMBERS, probe.said[:5]
    assert probe.ledger.tally().failed == len(dropped), (probe.ledger.tally(), probe.said[:5])
    assert ledger is None or ledger.tally().failed == 0, ledger.tally()


async def masters(installation: Installation, role: str) -> dict[str, Manifest]:
    async with installation.lifecycle.client() as management:
        pods = await management.list(PODS, NAMESPACE, labels=f"{ROLE}={role}")
    return {pod["metadata"]["name"]: pod for pod in pods}


async def settled() -> None:
    await asyncio.to_thread(haneul, "cluster", "get", NAME, "--wait", "--timeout", "900", "-p", PROJECT, timeout=960)


@pytest.fixture(scope="module")
def workload(three: str) -> str:
    """Where a workload of the cluster answers."""

    async def deploy() -> str:
        with Contexts.default().client() as client:
            return await deploy_workload(client, NAME, CLOCK, project=PROJECT)

    return asyncio.run(deploy())


async def test_three_masters_are_there(three: str, installation: Installation) -> None:

    async def three_of_each() -> bool:
        masters = (await asyncio.to_thread(cluster, NAME))["status"]["masters"]
        roles = [master["role"] for master in masters if master["ready"]]
        return roles.count("etcd") == 3 and roles.count("kube-apiserver") == 3

    # While the last one is made anew, there are four API servers.
    await wait_for(three_of_each, what="three of each", timeout=120, clock=CLOCK, interval=1)
    assert await happened(NAME, "MemberJoined", "the third etcd member joined")()
    assert (await complete_after(NAME, datetime.now(UTC)))["state"] == "Current"
    async with installation.lifecycle.client() as management:
        budgets = await management.raw_get(f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets")
    assert '"kube-apiserver"' in budgets


@pytest.mark.long
async def test_changed_settings_and_renewed_certificates_cost_no_request(
    workload: str, installation: Installation
) -> None:
    """All that masters hold is taken away, so that it is made anew; each restarts with it, etcd one by one."""
    before = {
        pod["metadata"]["uid"]
        for role in ("etcd", "kube-apiserver")
        for pod in (await masters(installation, role)).values()
    }
    async with asked(workload) as (probe, ledger):
        with Contexts.default().client() as client:
            change = {"settings": {"maxRequestsInFlight": 450}}
            await asyncio.to_thread(client.patch, f"/projects/{PROJECT}/clusters/{NAME}", change)
        async with installation.lifecycle.client() as management:
            for name in ("etcd", "etcd-1", "etcd-2", "kube-apiserver"):
                await management.delete(SECRETS, name, NAMESPACE)

        async def renewed() -> bool:
            pods = [*(await masters(installation, "etcd")).values()]
            pods += (await masters(installation, "kube-apiserver")).values()
            return len(pods) == 6 and not before & {pod["metadata"]["uid"] for pod in pods}

        await wait_for(renewed, what="new masters", timeout=900, clock=CLOCK, interval=1)
        await settled()
    nothing_failed(probe, ledger)
    async with installation.lifecycle.client() as management:
        server = await management.get(DEPLOYMENTS, "kube-apiserver", NAMESPACE)
    # Two thirds of what was asked for are for reading.
    assert "--max-requests-inflight=300" in str(server)


@pytest.mark.long
async def test_from_three_to_one_and_back_nothing_is_lost(workload: str, installation: Installation) -> None:
    async with tenant(NAME) as kube:
        kept = {"apiVersion": "v1", "kind": "ConfigMap", **_named("kept"), "data": {"what": "all of it"}}
        await kube.apply(CONFIG_MAPS, kept)
    async with asked(workload) as (probe, ledger):
        await asyncio.to_thread(
            haneul, "cluster", "scale", NAME, "--masters", "1", "--timeout", "900", "-p", PROJECT, timeout=960
        )
    nothing_failed(probe, ledger)
    async with installation.lifecycle.client() as management:
        uid = cluster(NAME)["uid"]
        volumes = await management.list(PERSISTENT_VOLUMES, labels=f"{CLUSTER}={uid}")
    assert [volume["metadata"]["name"] for volume in volumes] == [f"etcd-{uid}-0"]
    assert [path.name for path in (installation.settings.clusters / uid).iterdir()] == ["etcd-0"]
    async with asked(workload) as (probe, ledger):
        await asyncio.to_thread(
            haneul, "cluster", "scale", NAME, "--masters", "3", "--timeout", "900", "-p", PROJECT, timeout=960
        )
    # Who has one master only begins to be able to lose no request.
    sys.stdout.write(f"from one to three: {probe.ledger.tally()}; {probe.said[:3]}\n")
    assert ledger.tally().failed == 0, ledger.tally()
    async with tenant(NAME) as kube:
        found = await kube.get(CONFIG_MAPS, "kept", "default")
    assert found is not None and found["data"] == {"what": "all of it"}


@pytest.mark.parametrize("role", ["kube-apiserver", "etcd"])
async def test_one_that_is_killed_is_got_over(workload: str, installation: Installation, role: str) -> None:
    pods = await masters(installation, role)
    victim = sorted(pods)[-1]
    async with asked(workload) as (probe, ledger):
        async with installation.lifecycle.client() as management:
            await management.delete(PODS, victim, NAMESPACE, grace=0)

        async def whole() -> bool:
            now = await masters(installation, role)
            ready = [
                pod
                for pod in now.values()
                if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            ]
            uids = {pod["metadata"]["uid"] for pod in now.values()}
            return len(ready) == 3 and pods[victim]["metadata"]["uid"] not in uids

        await wait_for(whole, what=f"three of {role} again", timeout=300, clock=CLOCK, interval=1)
    sys.stdout.write(f"{role} killed: {probe.ledger.tally()}; {probe.said[:3]}; {ledger.tally()}\n")
    assert ledger.tally().failed == 0, ledger.tally()
    assert probe.ledger.tally().longest_gap < 30
    await settled()


@pytest.mark.long
async def test_a_member_whose_data_is_lost_is_replaced(workload: str, installation: Installation) -> None:
    uid = cluster(NAME)["uid"]
    async with tenant(NAME) as kube:
        secret = {"data": {"key": base64.b64encode(b"kept").decode()}}
        await kube.apply(SECRETS, {"apiVersion": "v1", "kind": "Secret", **_named("kept"), **secret})
    async with installation.lifecycle.client() as management:
        for folder in (installation.settings.clusters / uid / "etcd-2").iterdir():
            await asyncio.to_thread(shutil.rmtree, folder)
        await management.delete(PODS, "etcd-2-0", NAMESPACE, grace=0)
    await wait_for(happened(NAME, "MemberLost"), what="the loss to be seen", timeout=600, clock=CLOCK, interval=5)
    await settled()
    async with tenant(NAME) as kube:
        found = await kube.get(SECRETS, "kept", "default")
    assert found is not None and found["data"] == secret["data"]


@pytest.mark.long
async def test_three_masters_sleep_and_wake(workload: str) -> None:
    async with tenant(NAME) as kube:
        await kube.apply(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", **_named("kept"), "data": {"a": "b"}})
    haneul("cluster", "hibernate", NAME, "-p", PROJECT, "--timeout", "600", timeout=660)
    assert cluster(NAME)["status"]["masters"] == []
    haneul("cluster", "wake", NAME, "-p", PROJECT, "--timeout", "600", timeout=660)
    roles = [master["role"] for master in cluster(NAME)["status"]["masters"] if master["ready"]]
    assert roles.count("etcd") == 3
    async with tenant(NAME) as kube:
        assert await kube.get(CONFIG_MAPS, "kept", "default") is not None
