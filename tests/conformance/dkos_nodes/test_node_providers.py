"""What every provider of nodes does, wherever its machines come from: the behaviour suite of the port NodeProvider."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from haneul.app.images import cluster_images
from haneul.components.table import image_reference
from haneul.dkos.adapters.memory_nodes import MemoryNodes
from haneul.dkos.adapters.sandbox_nodes import SandboxNodes
from haneul.dkos.control_plane import namespaces
from haneul.dkos.model import Cluster, ClusterSpec, Network, NodePool
from haneul.dkos.node_files import node_files
from haneul.dkos.ports import NodeAnnouncement, NodeProvider, ProvidedNode
from haneul.dkos.releases import VERSIONS
from haneul.kernel.clock import SystemClock
from haneul.kernel.kube import NAMESPACES
from haneul.kernel.kube_http import HttpKubeClient, access_from_kubeconfig
from haneul.kernel.pki import issue_authority
from haneul.kernel.waiting import wait_for

KUBECONFIG = Path("/var/lib/haneul/admin.kubeconfig")
NODE_SECONDS = 90.0
POOL = NodePool(name="default", cpu=0.5, memory_mib=512)


@dataclass(frozen=True)
class Subject:
    """A provider and two clusters for it to serve."""

    provider: NodeProvider
    one: Cluster
    two: Cluster

    async def seen(
        self, cluster: Cluster, what: str, wanted: Callable[[list[ProvidedNode]], bool]
    ) -> list[ProvidedNode]:
        """Return the cluster's machines once they are as wanted."""

        async def probe() -> list[list[ProvidedNode]]:
            found = await self.provider.observe(cluster)
            return [found] if wanted(found) else []

        return (await wait_for(probe, what=what, timeout=NODE_SECONDS, clock=SystemClock()))[0]

    async def running(self, cluster: Cluster) -> ProvidedNode:
        """Return the cluster's only machine once it runs."""
        found = await self.seen(
            cluster, "the machine to run", lambda machines: len(machines) == 1 and machines[0].running
        )
        return found[0]


@pytest.fixture(params=["memory", "ssh", pytest.param("sandbox", marks=pytest.mark.e2e)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    run = secrets.token_hex(4)
    one, two = (_cluster(f"{number}-{run}") for number in ("one", "two"))
    if request.param == "memory":
        yield Subject(MemoryNodes(SystemClock()), one, two)
        return
    if request.param == "ssh":
        nodes, one, two = request.getfixturevalue("ssh_site").subject(one, two)
        try:
            yield Subject(nodes, one, two)
        finally:
            for cluster in (one, two):
                await nodes.release(cluster, seconds=NODE_SECONDS)
            await nodes.close()
        return
    if not KUBECONFIG.exists():
        pytest.skip("there is no management cluster")
    async with HttpKubeClient(access_from_kubeconfig(KUBECONFIG)) as client:
        places = [namespace for cluster in (one, two) for namespace in namespaces(cluster)[1:]]
        try:
            for namespace in places:
                await client.apply(NAMESPACES, namespace)
            yield Subject(SandboxNodes(client, cluster_images()), one, two)
        finally:
            for namespace in places:
                await client.delete(NAMESPACES, namespace["metadata"]["name"])


def _cluster(name: str) -> Cluster:
    network = Network(pods="10.127.192.0/18", services="10.191.240.0/20")
    return Cluster(
        project="conformance",
        name=name,
        uid=f"conformance-{name}",
        generation=1,
        created=datetime.now(UTC),
        spec=ClusterSpec(network=network, node_pools=(POOL,)),
    )


def _node(cluster: Cluster, name: str = "default-0") -> NodeAnnouncement:
    # Its API server is nowhere: a machine runs whether or not it can join.
    kubeconfig = (
        b"apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters:\n- name: x\n  cluster:\n"
        b"    server: https://127.0.0.1:1\ncontexts:\n- name: x\n  context: {cluster: x, user: x}\n"
        b"users:\n- name: x\n  user: {token: abcdef.0123456789abcdef}\n"
    )
    authority = issue_authority("conformance", now=datetime.now(UTC)).certificate
    pool = cluster.spec.node_pools[0]
    files = node_files(cluster, pool, name, pause_image=image_reference("pause"))
    return NodeAnnouncement(name, pool, files, kubeconfig, authority, VERSIONS[0])


async def test_cluster_has_no_machines_before_any_is_asked_for(subject: Subject) -> None:
    assert await subject.provider.observe(subject.one) == []


async def test_machine_runs_in_time_and_its_address_is_known(subject: Subject) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)  # providers may tell whole seconds only
    await subject.provider.ensure(subject.one, _node(subject.one))
    machine = await subject.running(subject.one)
    assert machine.name == "default-0"
    assert machine.instance and machine.address
    assert machine.started is not None and before <= machine.started <= datetime.now(UTC) + timedelta(seconds=2)


async def test_asking_again_makes_no_other(subject: Subject) -> None:
    node = _node(subject.one)
    await subject.provider.ensure(subject.one, node)
    await subject.provider.ensure(subject.one, node)
    machine = await subject.running(subject.one)
    await subject.provider.ensure(subject.one, node)
    assert [found.instance for found in await subject.provider.observe(subject.one)] == [machine.instance]


async def test_machine_is_replaced_when_its_files_change(subject: Subject) -> None:
    node = _node(subject.one)
    await subject.provider.ensure(subject.one, node)
    old = await subject.running(subject.one)
    changed = replace(node, files={**node.files, "kubelet.yaml": node.files["kubelet.yaml"] + "registryBurst: 11\n"})
    await subject.provider.ensure(subject.one, changed)
    (new,) = await subject.seen(
        subject.one,
        "another machine to run",
        lambda machines: [machine.running and machine.instance != old.instance for machine in machines] == [True],
    )
    assert new.name == old.name


async def test_machine_of_another_era_is_another_and_one_that_trusts_others_is_not(subject: Subject) -> None:
    node = _node(subject.one)
    await subject.provider.ensure(subject.one, node)
    old = await subject.running(subject.one)
    assert old.era == 0
    both = node.authority + issue_authority("new", now=datetime.now(UTC)).certificate
    await subject.provider.ensure(subject.one, replace(node, authority=both))
    assert (await subject.running(subject.one)).instance == old.instance
    await subject.provider.ensure(subject.one, replace(node, authority=both, era=1))
    (new,) = await subject.seen(
        subject.one,
        "a machine of the new era to run",
        lambda machines: [machine.running and machine.era == 1 for machine in machines] == [True],
    )
    assert new.instance != old.instance


async def test_machine_of_another_version_of_kubernetes_is_another_and_there_is_a_way_back(subject: Subject) -> None:
    node = _node(subject.one)
    await subject.provider.ensure(subject.one, node)
    seen = [await subject.running(subject.one)]
    for version in (VERSIONS[1], VERSIONS[0]):
        other = replace(node, version=version)
        assert subject.provider.revision(subject.one, other) != seen[-1].revision
        await subject.provider.ensure(subject.one, other)
        found = await subject.running(subject.one)
        assert found.revision == subject.provider.revision(subject.one, other)
        seen.append(found)
    assert len({machine.instance for machine in seen}) == 3
    assert seen[0].revision == seen[2].revision


async def test_machine_has_the_revision_that_it_was_announced_with(subject: Subject) -> None:
    node = _node(subject.one)
    await subject.provider.ensure(subject.one, node)
    old = await subject.running(subject.one)
    assert old.revision == subject.provider.revision(subject.one, node)
    larger = node.pool.model_copy(update={"memory_mib": 640})
    files = node_files(subject.one, larger, node.name, pause_image=image_reference("pause"))
    changed = replace(node, pool=larger, files=files)
    assert subject.provider.revision(subject.one, changed) != old.revision
    assert (await subject.running(subject.one)).instance == old.instance
    await subject.provider.ensure(subject.one, changed)
    # From the moment at which it is asked for: the new revision, and running only as the new machine.
    (machine,) = await subject.provider.observe(subject.one)
    assert machine.revision == subject.provider.revision(subject.one, changed)
    new = await subject.running(subject.one)
    assert new.instance != old.instance


async def test_machine_outlives_a_change_of_its_bootstrap_credential(subject: Subject) -> None:
    node = _node(subject.one)
    await subject.provider.ensure(subject.one, node)
    machine = await subject.running(subject.one)
    renewed = replace(node, bootstrap_kubeconfig=node.bootstrap_kubeconfig.replace(b"abcdef", b"ghijkl"))
    assert subject.provider.revision(subject.one, renewed) == machine.revision
    await subject.provider.ensure(subject.one, renewed)
    assert [found.instance for found in await subject.provider.observe(subject.one)] == [machine.instance]


async def test_removed_machine_goes_and_the_others_stay(subject: Subject) -> None:
    for name in ("default-0", "default-1"):
        await subject.provider.ensure(subject.one, _node(subject.one, name))
    await subject.seen(subject.one, "both machines", lambda machines: len(machines) == 2)
    await subject.provider.remove(subject.one, "default-1")
    (left,) = await subject.seen(subject.one, "one machine to go", lambda machines: len(machines) == 1)
    assert left.name == "default-0"


async def test_removed_machine_can_come_back_under_its_name(subject: Subject) -> None:
    await subject.provider.ensure(subject.one, _node(subject.one))
    old = await subject.running(subject.one)
    await subject.provider.remove(subject.one, "default-0")
    await subject.seen(subject.one, "the machine to go", lambda machines: not machines)
    await subject.provider.ensure(subject.one, _node(subject.one))
    (new,) = await subject.seen(
        subject.one,
        "a new machine to run",
        lambda machines: [machine.running and machine.instance != old.instance for machine in machines] == [True],
    )
    assert new.name == "default-0"


async def test_removing_what_is_not_there_is_no_error(subject: Subject) -> None:
    await subject.provider.remove(subject.one, "default-7")
    assert await subject.provider.observe(subject.one) == []


async def test_two_clusters_do_not_see_each_other_s_machines(subject: Subject) -> None:
    await subject.provider.ensure(subject.one, _node(subject.one))
    assert await subject.provider.observe(subject.two) == []
    await subject.provider.ensure(subject.two, _node(subject.two))
    await subject.provider.remove(subject.one, "default-0")
    await subject.seen(subject.one, "the machine to go", lambda machines: not machines)
    assert [machine.name for machine in await subject.provider.observe(subject.two)] == ["default-0"]
