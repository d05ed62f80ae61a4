"""Sandbox nodes against an API server in memory: what is applied when, and which revision a machine has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haneul.dkos.adapters.sandbox_nodes import SandboxNodes
from haneul.dkos.control_plane import Images, namespaces
from haneul.dkos.model import Cluster
from haneul.dkos.ports import NodeAnnouncement
from haneul.kernel.kube import NAMESPACES, PODS, STATEFUL_SETS
from haneul.kernel.kube_memory import MemoryKubeClient

RUNNING = {"containerStatuses": [{"state": {"running": {"startedAt": "2026-11-01T12:00:00Z"}}}], "podIP": "192.0.2.7"}


@pytest.fixture
async def api(native: Cluster) -> MemoryKubeClient:
    client = MemoryKubeClient()
    for namespace in namespaces(native):
        await client.apply(NAMESPACES, namespace)
    return client


@pytest.fixture
def node(native: Cluster) -> NodeAnnouncement:
    return NodeAnnouncement("big-0", native.spec.node_pools[1], {"node.env": "A=1\n"}, b"kubeconfig", b"ca", "1.37.2")


async def start(api: MemoryKubeClient, cluster: Cluster) -> None:
    """Do what the management cluster does: run a pod made from the template."""
    made = await api.get(STATEFUL_SETS, "big-0", cluster.nodes_namespace)
    assert made is not None
    await api.delete(PODS, "big-0-0", cluster.nodes_namespace)
    metadata = {**made["spec"]["template"]["metadata"], "name": "big-0-0", "namespace": cluster.nodes_namespace}
    await api.apply(PODS, {"metadata": metadata})
    await api.patch(PODS, "big-0-0", {"status": RUNNING}, cluster.nodes_namespace, subresource="status")


async def test_machine_has_the_revision_that_was_announced(
    api: MemoryKubeClient, native: Cluster, images: Images, node: NodeAnnouncement
) -> None:
    nodes = SandboxNodes(api, images)
    await nodes.ensure(native, node)
    await start(api, native)
    (machine,) = await nodes.observe(native)
    assert machine.running
    assert machine.revision == nodes.revision(native, node) == SandboxNodes(api, images).revision(native, node)


async def test_machine_that_is_being_replaced_does_not_run_and_has_its_successor_s_revision(
    api: MemoryKubeClient, native: Cluster, images: Images, node: NodeAnnouncement
) -> None:
    nodes = SandboxNodes(api, images)
    await nodes.ensure(native, node)
    await start(api, native)
    changed = replace(node, files={"node.env": "A=2\n"})
    await nodes.ensure(native, changed)
    (machine,) = await nodes.observe(native)
    assert (machine.running, machine.revision) == (False, nodes.revision(native, changed))
    await start(api, native)
    (machine,) = await nodes.observe(native)
    assert machine.running


async def test_revision_tells_files_size_and_image_apart_and_not_credentials(
    api: MemoryKubeClient, native: Cluster, images: Images, node: NodeAnnouncement
) -> None:
    nodes = SandboxNodes(api, images)
    known = nodes.revision(native, node)
    others = {
        nodes.revision(native, replace(node, files={"node.env": "A=2\n"})),
        nodes.revision(native, replace(node, pool=node.pool.model_copy(update={"memory_mib": 1024}))),
        SandboxNodes(api, replace(images, node="haneul.local/other-node:v1")).revision(native, node),
    }
    assert len(others | {known}) == 4
    assert nodes.revision(native, replace(node, bootstrap_kubeconfig=b"other")) == known


async def test_what_somebody_else_changed_or_deleted_is_applied_again(
    api: MemoryKubeClient, native: Cluster, images: Images, node: NodeAnnouncement
) -> None:
    nodes = SandboxNodes(api, images)
    await nodes.ensure(native, node)
    before = await api.get(STATEFUL_SETS, "big-0", native.nodes_namespace)
    await nodes.ensure(native, node)
    assert await api.get(STATEFUL_SETS, "big-0", native.nodes_namespace) == before
    await api.delete(STATEFUL_SETS, "big-0", native.nodes_namespace)
    assert await nodes.observe(native) == []
    await nodes.ensure(native, node)
    (machine,) = await nodes.observe(native)
    assert machine.revision == nodes.revision(native, node)
