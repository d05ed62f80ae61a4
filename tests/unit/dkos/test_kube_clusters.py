"""Clusters as custom resources, on the Kubernetes port in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.admission import admit
from haneul.dkos.model import Cluster, ClusterSpec
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import ConflictError, NotFoundError
from haneul.kernel.kube import NAMESPACES, Manifest, Resource
from haneul.kernel.kube_memory import MemoryKubeClient

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class ProcessDeathError(Exception):
    """Ends a process between its claim and its cluster."""


class DiesBeforeCreating(MemoryKubeClient):
    """Fails the first creation of a cluster."""

    dies = True

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        if self.dies and resource.kind == "Cluster":
            self.dies = False
            raise ProcessDeathError
        return await super().create(resource, manifest)


class NotesNames(MemoryKubeClient):
    """Notes by which names clusters are asked for, as they would stand in a path."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Manifest | None:
        if resource.kind == "Cluster":
            self.names.append(name)
        return await super().get(resource, name, namespace)


async def platform(client: MemoryKubeClient, clock: VirtualClock) -> KubeClusters:
    metadata = {"name": "haneul-system"}
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    return KubeClusters(client, clock=clock)


async def create(store: KubeClusters, name: str) -> Cluster:
    def decide(others: Sequence[Cluster]) -> ClusterSpec:
        return admit(name, ClusterSpec(), project="shop", others=others, reserved=[])

    return await store.create("shop", name, decide)


@pytest.mark.parametrize("name", ["..", ".", "?watch=true", "a/b", "", "A"])
async def test_what_is_no_name_reaches_no_path_of_kubernetes(name: str) -> None:
    client = NotesNames()
    store = await platform(client, VirtualClock(NOW))
    await create(store, "web")
    for call in (store.get, store.delete):
        with pytest.raises(NotFoundError):
            await call("shop", name)
    assert client.names == []
    assert [cluster.name for cluster in await store.list("shop")] == ["web"]


async def test_an_open_claim_keeps_its_ranges_until_it_is_given_up() -> None:
    clock = VirtualClock(NOW)
    store = await platform(DiesBeforeCreating(), clock)
    with pytest.raises(ProcessDeathError):
        await create(store, "first")
    second = await create(store, "second")
    assert second.spec.network.pods == "10.0.64.0/18"
    with pytest.raises(ConflictError):
        await create(store, "first")
    clock.advance(61)
    assert (await create(store, "first")).spec.network.pods == "10.0.0.0/18"
