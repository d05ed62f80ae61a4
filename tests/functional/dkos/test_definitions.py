"""A real API server takes the definitions of clusters and machines, and holds what is asked for against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from haneul.dkos.adapters.kube_clusters import KubeClusters
from haneul.dkos.admission import admit
from haneul.dkos.model import CLUSTERS, Cluster, ClusterSpec, LoadBalancing, Network, NetworkPlugin, Tunnel
from haneul.dkos.schema import custom_resource_definition, machine_resource_definition
from haneul.kernel.clock import SystemClock
from haneul.kernel.errors import HaneulError
from haneul.kernel.kube import NAMESPACES, KubeApiError, KubeClient, resource_of
from haneul.kernel.waiting import wait_for
from tests.functional.kubernetes import ApiServer, connected

CLOCK = SystemClock()
#: Of a machine that other tests share.
SECONDS = 120.0


async def test_definitions_are_taken_and_clusters_held_against_them(tmp_path: Path) -> None:
    async with connected(ApiServer(tmp_path, arguments={}, files={})) as kube:
        for definition in (custom_resource_definition(), machine_resource_definition()):
            await kube.apply(resource_of(definition), definition)
        for name in ("haneul-system", "project-shop"):
            await kube.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

        async def served() -> bool:
            try:
                return await kube.list(CLUSTERS, "project-shop") == []
            except HaneulError:
                return False

        await wait_for(served, what="clusters to be served", timeout=SECONDS, clock=CLOCK)
        # What the platform writes comes back the same, with and without what may be left out.
        networks = (
            Network(),
            Network(plugin=NetworkPlugin.CILIUM, tunnel=Tunnel.ALWAYS),
            Network(tunnel=Tunnel.NEEDED, load_balancing=LoadBalancing.SNAT),
        )
        for number, network in enumerate(networks):
            made = await _create(kube, f"c{number}", ClusterSpec(network=network))
            assert (made.spec.network.plugin, made.spec.network.tunnel) == (network.plugin, network.tunnel)
            assert not made.spec_problem
        # What somebody writes past the platform, too.
        await kube.create(CLUSTERS, _resource("bare", {}))
        for wrong in ({"network": {"tunnel": "never"}}, {"network": {"loadBalancing": "direct"}}):
            with pytest.raises(KubeApiError) as refused:
                await kube.create(CLUSTERS, _resource("wrong", wrong))
            assert refused.value.status == 422


async def _create(kube: KubeClient, name: str, spec: ClusterSpec) -> Cluster:
    clusters = KubeClusters(kube, clock=CLOCK)
    await clusters.create("shop", name, lambda others: admit(name, spec, project="shop", others=others, reserved=()))
    return await clusters.get("shop", name)


def _resource(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "project-shop"}
    return {"apiVersion": "dkos.haneul.dev/v1alpha1", "kind": "Cluster", "metadata": metadata, "spec": spec}
