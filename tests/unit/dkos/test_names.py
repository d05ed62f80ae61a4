"""Clusters' names: what nodes, tenants and policies are told of them, and the records by which they are published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import yaml

from haneul.dkos import isolation, tenant_objects
from haneul.dkos.adapters.kube_readers import KubeRecords
from haneul.dkos.cluster_record import ClusterRecord, Standing, record_of, secret_of
from haneul.dkos.cluster_records import ClusterRecords
from haneul.dkos.control_plane import Images
from haneul.dkos.credentials import Endpoints
from haneul.dkos.keyring import Keyring, new_authorities
from haneul.dkos.masters import MadeMasters
from haneul.dkos.model import Cluster, NodePool, NodeProviderName, Phase
from haneul.dkos.naming import Naming
from haneul.dkos.node_files import node_files
from haneul.dkos.ports import ProvidedNode
from haneul.dkos.readers import NAMES, Reader
from haneul.dkos.rotation import Record
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import (
    CILIUM_NETWORK_POLICIES,
    CLUSTER_ROLES,
    NAMESPACES,
    SECRETS,
    KubeAccess,
    Manifest,
)
from haneul.kernel.kube_memory import MemoryKubeClient
from haneul.kernel.pki import KeyPair
from tests.unit.dkos.test_sleeping import Bedroom

Golden = Callable[[str, object], None]
NAMING = Naming("k8s.example.com", "192.0.2.10")
#: Somebody who has to know where machines are.
LOCATED = Reader("haneul-located", "located", (), nodes=True)
RECORD = ClusterRecord("uid", "shop", "web", "web.shop.k8s.example.com", Standing.DELETED)


@pytest.fixture
def clock(now: datetime) -> VirtualClock:
    return VirtualClock(now)


@pytest.fixture
async def kube(clock: VirtualClock) -> MemoryKubeClient:
    client = MemoryKubeClient(clock=clock)
    await client.apply(NAMESPACES, {"metadata": {"name": NAMES.name}})
    return client


@pytest.fixture(scope="module")
def made(endpoints: Endpoints, now: datetime) -> MadeMasters:
    return MadeMasters(endpoints, Keyring(new_authorities("shop/plain", now), record=Record(revision=0)))


def machine(name: str, address: str, *, running: bool = True) -> ProvidedNode:
    return ProvidedNode(name, f"instance-of-{name}", address, running=running)


async def kept(kube: MemoryKubeClient, cluster: Cluster, reader: Reader = NAMES) -> ClusterRecord:
    found = await kube.get(SECRETS, reader.record_name(cluster.uid), reader.name)
    assert found is not None
    record = record_of(found)
    assert record is not None
    return record


def kubelet(cluster: Cluster, provider: NodeProviderName, naming: Naming | None) -> dict[str, object]:
    files = node_files(cluster, NodePool(provider=provider), "default-0", pause_image="pause", naming=naming)
    found: dict[str, object] = yaml.safe_load(files["kubelet.yaml"])
    return found


def test_kubelets_send_pods_to_the_dns_server_and_nowhere_without_one(native: Cluster) -> None:
    told = kubelet(native, NodeProviderName.SANDBOX, NAMING)
    assert told["clusterDNS"] == ["192.0.2.10"]
    assert told["clusterDomain"] == "plain.shop.k8s.example.com"
    assert not {"clusterDNS", "clusterDomain"} & kubelet(native, NodeProviderName.SANDBOX, None).keys()


def test_pods_on_machines_ask_whom_their_machine_asks(native: Cluster) -> None:
    assert not {"clusterDNS", "clusterDomain"} & kubelet(native, NodeProviderName.SSH, NAMING).keys()


def test_nodes_reach_the_dns_server_s_port_of_the_hosts_and_no_other(native: Cluster, golden: Golden) -> None:
    before = isolation.network_policies(native)
    after = isolation.network_policies(native, naming=NAMING)
    assert after[: len(before)] == before
    golden("names-policy.yaml", after[len(before) :])


def test_who_publishes_reads_what_has_names_and_writes_nothing_but_receipts(
    native: Cluster, endpoints: Endpoints
) -> None:
    before = tenant_objects.base_objects(native, endpoints)
    role, binding = tenant_objects.base_objects(native, endpoints, (NAMES,))[len(before) :]
    writes = [
        (rule["resources"], verb)
        for rule in role["rules"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    ]
    assert writes == [(["services/status"], "patch")]
    read = {resource for rule in role["rules"] for resource in rule["resources"]}
    assert read == {"services", "pods", "ingresses", "endpointslices", "services/status", "namespaces"}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(
            RECORD,
            networks=("10.128.0.0/16", "10.96.0.0/16"),
            nodes=("10.192.0.7",),
            standing=Standing.FOLLOWED,
            access=KubeAccess("https://a:6443", b"ca", b"crt", b"key"),
        ),
    ],
)
def test_a_record_is_read_as_it_was_written(record: ClusterRecord) -> None:
    assert record_of(secret_of(record, NAMES)) == record


@pytest.mark.parametrize(
    "broken", [{}, {"data": {}}, {"data": {**secret_of(RECORD, NAMES)["data"], "standing": "b2Rk"}}]
)
def test_what_is_no_record_is_none(broken: Manifest) -> None:
    assert record_of(broken) is None


async def test_a_followed_cluster_s_record_has_a_certificate_of_publishers_and_keeps_it(
    kube: MemoryKubeClient, clock: VirtualClock, native: Cluster, made: MadeMasters
) -> None:
    await ClusterRecords(kube, (NAMES,), naming=NAMING, clock=clock).follow(native, made)
    first = await kept(kube, native)
    assert (first.domain, first.standing) == ("plain.shop.k8s.example.com", Standing.FOLLOWED)
    assert first.access is not None
    assert first.access.server == made.endpoints.inside
    assert b"PRIVATE KEY" in first.access.client_key
    # Another process finds it as it is to be.
    await ClusterRecords(kube, (NAMES,), naming=NAMING, clock=clock).follow(native, made)
    assert await kept(kube, native) == first
    # As time goes by, it is issued anew, and as soon as others are trusted.
    clock.advance(timedelta(days=80).total_seconds())
    await ClusterRecords(kube, (NAMES,), naming=NAMING, clock=clock).follow(native, made)
    second = await kept(kube, native)
    assert second.access is not None
    assert not KeyPair(second.access.client_certificate, b"").needs_renewal(clock.now())
    assert second.access.client_certificate != first.access.client_certificate


async def test_a_sleeping_cluster_is_left_alone_and_followed_again_when_it_woke(
    kube: MemoryKubeClient, clock: VirtualClock, native: Cluster, made: MadeMasters
) -> None:
    records = ClusterRecords(kube, (NAMES,), naming=NAMING, clock=clock)
    await records.rest(native)
    assert await kube.get(SECRETS, NAMES.record_name(native.uid), NAMES.name) is None
    records.forget(native.uid)
    await records.follow(native, made)
    await records.rest(native)
    assert (await kept(kube, native)).standing is Standing.ASLEEP
    await records.follow(native, made)
    assert (await kept(kube, native)).standing is Standing.FOLLOWED


async def test_of_a_deleted_cluster_nothing_is_kept_that_reaches_it(
    kube: MemoryKubeClient, clock: VirtualClock, native: Cluster, made: MadeMasters
) -> None:
    records = ClusterRecords(kube, (NAMES,), naming=NAMING, clock=clock)
    await records.end(native)
    assert await kube.get(SECRETS, NAMES.record_name(native.uid), NAMES.name) is None
    await records.follow(native, made)
    for _ in range(2):
        await records.end(native)
        ended = await kept(kube, native)
        assert (ended.standing, ended.access) == (Standing.DELETED, None)
    board = KubeRecords(kube, NAMES)
    await board.ready()
    await board.forget(native.uid)
    assert await kube.get(SECRETS, NAMES.record_name(native.uid), NAMES.name) is None


async def test_records_say_where_machines_are_to_those_only_who_need_it(
    kube: MemoryKubeClient, clock: VirtualClock, native: Cluster, made: MadeMasters
) -> None:
    await kube.apply(NAMESPACES, {"metadata": {"name": LOCATED.name}})
    records = ClusterRecords(kube, (NAMES, LOCATED), naming=NAMING, clock=clock)
    machines = [machine("b", "10.192.0.9"), machine("a", "10.192.0.7"), machine("c", "10.192.0.8", running=False)]
    await records.locate(native, machines)
    assert await kube.get(SECRETS, LOCATED.record_name(native.uid), LOCATED.name) is None
    await records.follow(native, made, machines)
    first = await kept(kube, native, LOCATED)
    assert first.nodes == ("10.192.0.7", "10.192.0.9")
    assert (await kept(kube, native)).nodes == ()
    assert first.access is not None
    assert first.access != (await kept(kube, native)).access
    # A machine that is gone is nobody's to be led to, whether or not the cluster's API answers.
    await records.locate(native, machines[1:])
    assert (await kept(kube, native, LOCATED)).nodes == ("10.192.0.7",)
    records = ClusterRecords(kube, (NAMES, LOCATED), naming=NAMING, clock=clock)
    await records.locate(native, machines[2:])
    assert (await kept(kube, native, LOCATED)).nodes == ()
    await records.follow(native, made, machines)
    await records.rest(native)
    assert (await kept(kube, native, LOCATED)).nodes == ()
    await records.locate(native, [machine("a", "10.192.0.7")])
    assert (await kept(kube, native, LOCATED)).nodes == ()
    await records.follow(native, made, [machine("a", "10.192.0.7")])
    assert (await kept(kube, native, LOCATED)).nodes == ("10.192.0.7",)
    await records.end(native)
    assert (await kept(kube, native, LOCATED)).nodes == ()


async def test_a_controller_has_names_followed_until_sleep_begins_and_again_after_it(
    images: Images, clock: VirtualClock, native: Cluster
) -> None:
    world = Bedroom(images, clock, naming=NAMING, readers=(NAMES,))
    await world.ask(native)
    async with world.controller() as controller:
        await world.settle(controller, native)
        like = await world.cluster(native)
        assert (await kept(world.management, like)).standing is Standing.FOLLOWED
        assert await world.tenant.get(CLUSTER_ROLES, "haneul:names") is not None
        policy = await world.management.get(CILIUM_NETWORK_POLICIES, "names", native.nodes_namespace)
        assert policy is not None
        # The first look that begins the sleep says so, when the API still answers.
        asleep = await world.say(native, asleep=True)
        await controller.reconcile(asleep)
        assert (await kept(world.management, like)).standing is Standing.ASLEEP
        assert "kube-apiserver" in await world.roles(native)
        await world.settle(controller, native, looks=12)
        assert (await world.cluster(native)).status.phase is Phase.ASLEEP
        await world.say(native, asleep=False)
        await world.settle(controller, native, looks=12)
        assert (await kept(world.management, like)).standing is Standing.FOLLOWED
