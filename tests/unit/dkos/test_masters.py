"""Masters are made whole from any state, once, on the host with most room; and seen as their pods are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from haneul.dkos.control_plane import CLUSTER_LABEL, ROLE_LABEL, Images, Placement, labels, volume
from haneul.dkos.credentials import decode
from haneul.dkos.etcd_volumes import choose_host
from haneul.dkos.hibernation import Level
from haneul.dkos.masters import CLIENT_AUTHORITY, Masters
from haneul.dkos.model import Cluster
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
    Manifest,
    Resource,
)
from haneul.kernel.kube_memory import MemoryKubeClient

MADE: tuple[Resource, ...] = (
    NAMESPACES,
    SECRETS,
    SERVICES,
    CONFIG_MAPS,
    PERSISTENT_VOLUMES,
    PERSISTENT_VOLUME_CLAIMS,
    DEPLOYMENTS,
)
MADE += (STATEFUL_SETS, NETWORK_POLICIES, ROLES, ROLE_BINDINGS)


@pytest.fixture
def clock(native: Cluster) -> VirtualClock:
    return VirtualClock(native.created)


@pytest.fixture
async def client(clock: VirtualClock) -> MemoryKubeClient:
    client = MemoryKubeClient(clock=clock)
    for name in ("host-b", "host-a"):
        await client.create(NODES, {"metadata": {"name": name}})
    return client


@pytest.fixture
def masters(client: MemoryKubeClient, images: Images, clock: VirtualClock) -> Callable[[], Masters]:
    """Make what a new process would: nothing applied yet."""
    return lambda: Masters(client, images=images, outside_address="192.0.2.10", data="/data", clock=clock)


async def versions(client: MemoryKubeClient) -> dict[tuple[str, str], str]:
    """Return the version of every object that masters consist of."""
    found: dict[tuple[str, str], str] = {}
    for resource in MADE:
        for manifest in await client.list(resource):
            metadata = manifest["metadata"]
            name = f"{metadata.get('namespace', '')}/{metadata['name']}"
            found[(resource.plural, name)] = metadata["resourceVersion"]
    return found


async def secret(client: MemoryKubeClient, cluster: Cluster, name: str) -> dict[str, bytes]:
    found = await client.get(SECRETS, name, cluster.masters_namespace)
    assert found is not None
    return decode(found)


async def test_masters_are_made_from_nothing(
    masters: Callable[[], Masters], client: MemoryKubeClient, cilium: Cluster
) -> None:
    made = await masters().ensure(cilium)
    roles = {entry["metadata"]["name"] for entry in await client.list(DEPLOYMENTS, cilium.masters_namespace)}
    assert roles == {"kube-apiserver", "kube-controller-manager", "kube-scheduler", "cilium-operator"}
    assert [entry["metadata"]["name"] for entry in await client.list(STATEFUL_SETS)] == ["etcd"]
    assert made.endpoints.outside.startswith("https://192.0.2.10:3")
    signer = await secret(client, cilium, CLIENT_AUTHORITY)
    assert signer["ca.crt"] == made.keyring.trusted("cluster")
    assert signer["server"].decode() == made.endpoints.outside


async def test_etcd_and_api_server_come_first(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster
) -> None:
    await masters().ensure(native, rest=False)
    assert [entry["metadata"]["name"] for entry in await client.list(DEPLOYMENTS)] == ["kube-apiserver"]


async def test_what_a_level_leaves_out_has_no_replicas_and_the_rest_may_be_left_alone(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster
) -> None:
    async def running() -> set[str]:
        found = [*await client.list(DEPLOYMENTS), *await client.list(STATEFUL_SETS)]
        return {entry["metadata"]["name"] for entry in found if entry["spec"]["replicas"]}

    core = {"etcd", "kube-apiserver"}
    made = masters()
    await made.ensure(native)
    whole = await running()
    assert whole == core | {"kube-controller-manager", "kube-scheduler"}
    # An API server that is silent for a while takes nobody with it.
    await made.ensure(native, rest=False)
    assert await running() == whole
    for level, left in ((Level.NODES, core), (Level.API, core), (Level.ETCD, {"etcd"}), (Level.NOTHING, set[str]())):
        await made.ensure(native, level)
        assert await running() == left
    await made.ensure(native, rest=False)
    assert await running() == core
    await made.ensure(native)
    assert await running() == whole


async def test_second_call_and_second_process_change_nothing(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster
) -> None:
    first = masters()
    made = await first.ensure(native)
    before = await versions(client)
    assert await first.ensure(native) == made
    first.forget()
    assert await first.ensure(native) == made
    assert await masters().ensure(native) == made
    assert await versions(client) == before


async def test_whatever_is_lost_is_made_again_and_nothing_else_is_touched(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster
) -> None:
    await masters().ensure(native)
    before = await versions(client)
    for resource, namespace, name in [
        (DEPLOYMENTS, native.masters_namespace, "kube-scheduler"),
        (NETWORK_POLICIES, native.masters_namespace, "etcd"),
        (PERSISTENT_VOLUME_CLAIMS, native.masters_namespace, "data-etcd-0"),
        (CONFIG_MAPS, native.masters_namespace, "kube-apiserver"),
    ]:
        assert await client.delete(resource, name, namespace)
        await masters().ensure(native)
        after = await versions(client)
        assert after.keys() == before.keys(), resource
        assert len([key for key, version in before.items() if after[key] != version]) == 1
        before = after


async def test_data_stays_on_its_host_when_another_has_more_room_later(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster, cilium: Cluster
) -> None:
    async def host(cluster: Cluster) -> str:
        found = await client.get(PERSISTENT_VOLUMES, f"etcd-{cluster.uid}-0")
        assert found is not None
        return _host(found)

    await masters().ensure(native)
    await masters().ensure(cilium)
    assert (await host(native), await host(cilium)) == ("host-a", "host-b")
    await client.create(NODES, {"metadata": {"name": "host-0"}})
    await client.delete(PERSISTENT_VOLUME_CLAIMS, "data-etcd-0", native.masters_namespace)
    await masters().ensure(native)
    assert await host(native) == "host-a"


async def test_credentials_are_renewed_in_time_and_their_component_alone_restarts(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster, clock: VirtualClock
) -> None:
    first = masters()
    made = await first.ensure(native)
    assert made.renewed == ()
    old = await secret(client, native, "kube-scheduler")
    clock.advance(timedelta(days=61).total_seconds())
    later = await first.ensure(native)
    assert later.keyring == made.keyring
    assert {"etcd", "kube-apiserver", "kube-scheduler"} <= set(later.renewed)
    assert await secret(client, native, "kube-scheduler") != old
    await client.delete(SECRETS, "kube-scheduler", native.masters_namespace)
    before = await versions(client)
    clock.advance(15)
    # What was lost is made again, which is no renewal.
    assert (await first.ensure(native)).renewed == ()
    after = await versions(client)
    changed = {name for (kind, name), version in after.items() if before.get((kind, name)) != version}
    assert changed == {f"{native.masters_namespace}/kube-scheduler"}


async def test_two_processes_that_start_at_once_agree_on_one_authority(
    masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster
) -> None:
    one, two = await asyncio.gather(masters().ensure(native), masters().ensure(native))
    assert one.keyring == two.keyring


async def etcd_pod(client: MemoryKubeClient, cluster: Cluster, status: dict[str, Any]) -> None:
    """Let the cluster's etcd have a pod of this status."""
    where = {"name": "etcd-0", "namespace": cluster.masters_namespace}
    await client.create(PODS, {"metadata": {**where, "labels": {CLUSTER_LABEL: cluster.uid, ROLE_LABEL: "etcd"}}})
    await client.patch(PODS, "etcd-0", {"status": status}, cluster.masters_namespace, subresource="status")


LAST_WORDS = """I1127 02:13:50.123456       1 options.go:1] starting
E1127 02:13:50.223456       1 run.go:72] unrecognized feature gate: Vanished

"""


@pytest.mark.parametrize(
    ("status", "ready", "message"),
    [
        ({}, False, "starting"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, True, ""),
        ({"containerStatuses": [{"state": {"running": {}}}]}, False, "starting"),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]},
            False,
            "ImagePullBackOff: no such image",
        ),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, False, "starting"),
        (
            {
                "containerStatuses": [
                    {
                        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}},
                        "lastState": {"terminated": {"exitCode": 1, "message": LAST_WORDS}},
                    }
                ]
            },
            False,
            "CrashLoopBackOff: unrecognized feature gate: Vanished",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no host has room"}]},
            False,
            "no host has room",
        ),
    ],
)
async def test_master_is_seen_as_its_pod_is(
    status: dict[str, Any],
    ready: bool,
    message: str,
    masters: Callable[[], Masters],
    client: MemoryKubeClient,
    native: Cluster,
) -> None:
    await masters().ensure(native)
    await etcd_pod(client, native, status)
    seen = {state.role: state for state in await masters().observe(native)}
    assert set(seen) == {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
    assert (seen["etcd"].ready, seen["etcd"].message) == (ready, message)
    assert seen["kube-scheduler"].message == "its pod is being made"


@pytest.mark.parametrize(
    ("ready", "message", "coming"),
    [
        # A fourth takes over from one of three; of three, one is missing.
        (3, "", "CrashLoopBackOff: unrecognized feature gate: Vanished"),
        (2, "2 of 3 ready: CrashLoopBackOff: unrecognized feature gate: Vanished", ""),
    ],
)
async def test_a_pod_that_does_not_take_over_is_told_apart_from_one_that_is_missing(
    ready: int, message: str, coming: str, masters: Callable[[], Masters], client: MemoryKubeClient, native: Cluster
) -> None:
    three = native.model_copy(update={"spec": native.spec.model_copy(update={"masters": 3})})
    await masters().ensure(three)
    broken = {
        "containerStatuses": [
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 1, "message": LAST_WORDS}},
            }
        ]
    }
    fine = {"conditions": [{"type": "Ready", "status": "True"}]}
    for number, status in enumerate([*[fine] * ready, broken]):
        name = f"kube-apiserver-{number}"
        metadata = {"name": name, "namespace": three.masters_namespace, "labels": labels(three, "kube-apiserver")}
        await client.apply(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}})
        await client.patch(PODS, name, {"status": status}, three.masters_namespace, subresource="status")
    seen = {state.role: state for state in await masters().observe(three)}["kube-apiserver"]
    assert (seen.ready, seen.working, seen.message, seen.coming) == (ready == 3, ready, message, coming)


@pytest.mark.parametrize(
    ("states", "restarts", "ended"),
    [
        ([], 0, ""),
        ([{"restartCount": 0, "state": {"running": {}}}], 0, ""),
        ([{"restartCount": 2, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}], 2, "OOMKilled"),
        ([{"restartCount": 1, "state": {"terminated": {"reason": "Error", "exitCode": 2}}}], 1, "exit code 2"),
    ],
)
@pytest.mark.parametrize("ready", [True, False])
async def test_how_often_a_master_ended_and_how_is_seen(
    states: list[dict[str, Any]],
    restarts: int,
    ended: str,
    ready: bool,
    masters: Callable[[], Masters],
    client: MemoryKubeClient,
    native: Cluster,
) -> None:
    await masters().ensure(native)
    conditions = [{"type": "Ready", "status": str(ready)}]
    await etcd_pod(client, native, {"conditions": conditions, "containerStatuses": states})
    seen = {state.role: state for state in await masters().observe(native)}["etcd"]
    assert (seen.ready, seen.restarts, seen.ended) == (ready, restarts, ended)


@pytest.mark.parametrize(
    ("hosts", "carried", "chosen"),
    [
        (["b", "a"], [], "a"),
        (["b", "a"], ["a"], "b"),
        (["a", "b", "c"], ["a", "a", "b", "c"], "b"),
        (["a", "b"], ["gone", "gone", "a"], "b"),
    ],
)
def test_host_with_the_fewest_volumes_is_chosen(
    hosts: list[str], carried: list[str], chosen: str, native: Cluster
) -> None:
    volumes = [volume(native, Placement(host))[0] for host in carried]
    assert choose_host(hosts, volumes) == chosen


def _host(manifest: Manifest) -> str:
    terms = manifest["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    return str(terms[0]["matchExpressions"][0]["values"][0])


class Interrupted(Exception):  # noqa: N818 - an event, not an error
    """The process ends here."""


class DyingClient(MemoryKubeClient):
    """Ends its process at the n-th write: before it, or after it was carried out but before anyone knows."""

    writes_left = 10**6
    after = False

    async def _write_or_die(self, write: Callable[[], Awaitable[Manifest]]) -> Manifest:
        self.writes_left -= 1
        if self.writes_left < 0 or (self.writes_left == 0 and not self.after):
            raise Interrupted
        result = await write()
        if self.writes_left == 0:
            raise Interrupted
        return result

    async def apply(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        return await self._write_or_die(lambda: MemoryKubeClient.apply(self, resource, manifest))

    async def create(self, resource: Resource, manifest: Manifest, *, subresource: str = "") -> Manifest:
        return await self._write_or_die(lambda: MemoryKubeClient.create(self, resource, manifest))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_process_that_ends_at_any_write_is_continued_by_the_next(
    after: bool, cilium: Cluster, images: Images, clock: VirtualClock
) -> None:
    whole = DyingClient(clock=clock)
    await whole.create(NODES, {"metadata": {"name": "host-a"}})
    await Masters(whole, images=images, outside_address="192.0.2.10", data="/data", clock=clock).ensure(cilium)
    expected, writes = set(await versions(whole)), 10**6 - whole.writes_left - 1
    assert writes > 20
    for number in range(1, writes + 1):
        client = DyingClient(clock=clock)
        await client.create(NODES, {"metadata": {"name": "host-a"}})
        client.writes_left, client.after = number, after
        with pytest.raises((Interrupted, ExceptionGroup)):
            await Masters(client, images=images, outside_address="192.0.2.10", data="/data", clock=clock).ensure(cilium)
        kept = await client.get(SECRETS, "authorities", cilium.masters_namespace)
        client.writes_left = 10**6
        await Masters(client, images=images, outside_address="192.0.2.10", data="/data", clock=clock).ensure(cilium)
        assert set(await versions(client)) == expected, f"ended at write {number}"
        assert kept in (None, await client.get(SECRETS, "authorities", cilium.masters_namespace))
