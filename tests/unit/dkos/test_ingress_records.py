"""What clusters have for ingress, and the records by which it is served: an address of its own for each cluster."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from haneul.dkos import tenant_objects
from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.adapters.kube_readers import KubeRecords
from haneul.dkos.cluster_record import ClusterRecord, Standing, record_of
from haneul.dkos.cluster_records import ClusterRecords
from haneul.dkos.credentials import Endpoints
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster
from haneul.dkos.naming import Naming
from haneul.dkos.ports import ProvidedNode
from haneul.dkos.quota import QuotaLimits, Quotas
from haneul.dkos.readers import BALANCER, INGRESS
from haneul.dkos.rotation import Record
from haneul.ingress.claims import CONTROLLER
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import UnavailableError
from haneul.kernel.kube import NAMESPACES, SECRETS
from haneul.kernel.kube_memory import MemoryKubeClient

READER = replace(INGRESS, addresses="10.198.0.0/28")
NODE = ProvidedNode("default-0", "instance", "10.192.0.11", running=True)


@pytest.fixture
async def kube(now: datetime) -> MemoryKubeClient:
    client = MemoryKubeClient(clock=VirtualClock(now))
    await client.apply(NAMESPACES, {"metadata": {"name": READER.name}})
    return client


@pytest.fixture(scope="module")
def made(endpoints: Endpoints, now: datetime) -> MadeMasters:
    return MadeMasters(endpoints, Keyring(new_authorities("shop/plain", now), record=Record(revision=0)))


async def kept(kube: MemoryKubeClient, cluster: Cluster) -> ClusterRecord:
    found = await kube.get(SECRETS, READER.record_name(cluster.uid), READER.name)
    record = None if found is None else record_of(found)
    assert record is not None
    return record


async def test_a_cluster_has_an_address_of_its_own_until_all_of_it_is_gone(
    kube: MemoryKubeClient, native: Cluster, made: MadeMasters, now: datetime
) -> None:
    naming = Naming("k8s.example", "192.0.2.10")
    records = ClusterRecords(kube, (READER,), naming=naming, clock=VirtualClock(now))
    other = native.model_copy(update={"uid": "another"})
    await records.follow(native, made, [NODE])
    await records.follow(other, made, [NODE])
    record = await kept(kube, native)
    assert (record.address, record.nodes, record.domain) == (
        "10.198.0.1",
        ("10.192.0.11",),
        naming.domain(native),
    )
    assert (await kept(kube, other)).address == "10.198.0.2"
    records.forget(native.uid)
    await records.follow(native, made, [NODE])
    assert await kept(kube, native) == record
    await records.rest(native)
    assert (await kept(kube, native)).address == "10.198.0.1"
    await records.end(native)
    ended = await kept(kube, native)
    # Whoever ends its proxy needs it still, and frees it then.
    assert (ended.standing, ended.address, ended.nodes, ended.access) == (Standing.DELETED, "10.198.0.1", (), None)


def test_every_cluster_has_the_class_and_the_rights(native: Cluster, endpoints: Endpoints) -> None:
    before = tenant_objects.base_objects(native, endpoints)
    role, binding, made = tenant_objects.base_objects(native, endpoints, (READER,))[len(before) :]
    assert made["kind"] == "IngressClass"
    assert made["spec"]["controller"] == CONTROLLER
    assert binding["subjects"][0]["name"] == READER.user
    writes = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }
    statuses = {f"{resource}/status" for resource in ("ingresses", "gatewayclasses", "gateways", "httproutes")}
    assert {resource for resource, _ in writes} == {"services", "events", *statuses}
    assert not any(verb in ("*", "deletecollection") for _, verb in writes)


class SilentQuotas:
    """A store of quotas that says nothing until it is told to."""

    def __init__(self, store: KubeClusters) -> None:
        self.store = store
        self.speaks = False

    async def quotas(self) -> Quotas:
        if not self.speaks:
            raise UnavailableError("the store does not answer")
        return await self.store.quotas()

    async def set_quota(self, project: str | None, limits: QuotaLimits) -> None:
        await self.store.set_quota(project, limits)


async def test_until_quotas_are_read_records_keep_their_limits_and_new_ones_let_nothing_come(
    native: Cluster, made: MadeMasters, now: datetime
) -> None:
    clock = VirtualClock(now)
    kube = MemoryKubeClient(clock=clock)
    for name in (BALANCER.name, "haneul-system"):
        await kube.apply(NAMESPACES, {"metadata": {"name": name}})
    quotas = SilentQuotas(KubeClusters(kube, clock=clock))
    await quotas.set_quota(native.project, QuotaLimits(addresses=3, listeners=9))

    async def limits() -> tuple[int | None, int | None]:
        found = await kube.get(SECRETS, BALANCER.record_name(native.uid), BALANCER.name)
        read = None if found is None else record_of(found)
        assert read is not None
        return read.most_addresses, read.most_listeners

    records = ClusterRecords(kube, (BALANCER,), quotas=quotas, clock=clock)
    await records.follow(native, made, [NODE])
    assert await limits() == (0, 0)
    quotas.speaks = True
    clock.advance(60)
    await records.follow(native, made, [NODE])
    await records.locate(native, [NODE])
    assert await limits() == (3, 9)
    # Another process begins, and cannot read them either.
    quotas.speaks = False
    records = ClusterRecords(kube, (BALANCER,), quotas=quotas, clock=clock)
    await records.follow(native, made, [NODE])
    await records.locate(native, [])
    assert await limits() == (3, 9)


async def test_the_balancers_records_say_what_the_project_may_have_and_readers_say_what_they_do_not_do(
    native: Cluster, made: MadeMasters, now: datetime
) -> None:
    clock = VirtualClock(now)
    kube = MemoryKubeClient(clock=clock)
    for name in (BALANCER.name, "haneul-system"):
        await kube.apply(NAMESPACES, {"metadata": {"name": name}})
    quotas = KubeClusters(kube, clock=clock)
    await quotas.set_quota(native.project, QuotaLimits(addresses=3))
    records = ClusterRecords(kube, (BALANCER,), quotas=quotas, clock=clock)

    async def record() -> ClusterRecord:
        found = await kube.get(SECRETS, BALANCER.record_name(native.uid), BALANCER.name)
        read = None if found is None else record_of(found)
        assert read is not None
        return read

    await records.follow(native, made, [NODE])
    assert ((await record()).most_addresses, (await record()).most_listeners) == (3, 200)
    # Another limit comes with another look, a moment later, whether or not the cluster's API answers.
    await quotas.set_quota(native.project, QuotaLimits(addresses=5, listeners=9))
    clock.advance(60)
    await records.locate(native, [NODE])
    assert ((await record()).most_addresses, (await record()).most_listeners) == (5, 9)
    board = KubeRecords(kube, BALANCER)
    assert await records.trouble(native) == ""
    await board.tell(native.uid, "it has more than 5 objects")
    clock.advance(60)
    assert await records.trouble(native) == (
        "haneul-balancer follows it no longer, what is there stays: it has more than 5 objects"
    )
    # What the operator writes leaves it there.
    await records.locate(native, [])
    records.forget(native.uid)
    assert await records.trouble(native)
    await board.tell(native.uid, "")
    clock.advance(60)
    assert await records.trouble(native) == ""
