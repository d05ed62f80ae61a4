"""Ways by which a tenant might keep what a person took back, or get what nobody gave: each of them leads nowhere."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from haneul.app.firewall_gate import FirewallJoinGate
from haneul.dkos.control_plane import Images
from haneul.dkos.controller import ClusterController
from haneul.dkos.draining import CHANGING
from haneul.dkos.gate_keeping import GateKeeping
from haneul.dkos.model import (
    CLUSTERS,
    AuthoritiesRequest,
    Cluster,
    ConditionType,
    NodePool,
    NodeProviderName,
    project_namespace,
)
from haneul.dkos.node_changes import DRAIN_LIFE
from haneul.dkos.node_plan import plan_nodes
from haneul.dkos.schema import machine_resource_definition
from haneul.dkos.states import OLD_TRUSTED
from haneul.firewall.gatekeeper import Gatekeeper
from haneul.firewall.model import Way, rule_of
from haneul.kernel.clock import VirtualClock
from haneul.kernel.errors import HaneulError, UnavailableError
from haneul.kernel.kube import CERTIFICATE_REQUESTS, NODES, PODS, Manifest, Resource
from tests.unit.dkos.test_controller import READY
from tests.unit.dkos.test_join_gate import DB, Gated, approval, gated

#: A pod that its tenant does not let go.
HELD: Manifest = {
    "metadata": {"name": "held", "namespace": "default", "finalizers": ["tenant/never"]},
    "spec": {"nodeName": "gated-0"},
}


def with_pools(cluster: Cluster, *pools: NodePool) -> Cluster:
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"node_pools": pools})})


def of_machines(cluster: Cluster, *names: str) -> Cluster:
    """Return the cluster with a gated pool of registered machines."""
    metal = NodePool(
        name="metal", provider=NodeProviderName.SSH, machines=names, count=len(names), external_resources=(DB,)
    )
    return with_pools(cluster, metal)


@pytest.fixture
def world(images: Images, native: Cluster) -> Gated:
    return Gated(images, VirtualClock(native.created))


@contextlib.asynccontextmanager
async def approved(world: Gated, like: Cluster) -> AsyncIterator[tuple[ClusterController, Way]]:
    """Run a cluster whose gated node is in, with a pod that does not move."""
    async with world.running(like) as controller:
        way = await world.way(like)
        await world.approvals.publish(approval(way, world.clock.now()))
        for _ in range(2):
            await world.look(controller, like)
        assert "gated-0" in await world.registered()
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}
        await world.tenant.apply(PODS, HELD)
        yield controller, way


async def revoke(world: Gated, way: Way) -> None:
    await world.approvals.withdraw(approval(way, world.clock.now()))


async def test_a_registered_machine_is_gated_like_every_other_node(world: Gated, native: Cluster) -> None:
    world.metal = world.nodes
    like = of_machines(native, "rack1")
    async with world.running(like) as controller:
        status = await world.look(controller, like)
        assert (status.nodes[0].barred, await world.registered()) == (status.nodes[0].message, set())
        way = (await world.way(like, "metal-rack1")).model_copy(update={"pool": "metal"})
        await world.approvals.publish(approval(way, world.clock.now()))
        for _ in range(2):
            status = await world.look(controller, like)
        assert await world.registered() == {"metal-rack1"}
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}
        await revoke(world, way)
        for _ in range(4):
            await world.look(controller, like)
        assert await world.registered() == set()
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_machine_that_is_made_anew_elsewhere_takes_no_approval_along(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        await world.nodes.remove(await world.cluster(like), "gated-0")
        await world.tenant.delete(NODES, "gated-0")
        for _ in range(3):
            await world.look(controller, like)
        assert (await world.way(like)).address != way.address
        assert not await world.has_certificate(like)
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_cluster_that_answers_nobody_keeps_no_way_open(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        world.wire.cut = True
        await world.look(controller, like)
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}, "nothing was taken back"
        await revoke(world, way)
        await world.look(controller, like)
        world.clock.advance(DRAIN_LIFE.total_seconds())
        await world.look(controller, like)
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_cluster_that_does_not_list_its_nodes_keeps_no_way_open(
    world: Gated, native: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        await revoke(world, way)
        listing = world.wire.list

        async def too_many(resource: Resource, namespace: str = "", **selectors: str) -> list[Manifest]:
            if resource is NODES:
                raise UnavailableError("the Kubernetes API does not answer in time")
            return await listing(resource, namespace, **selectors)

        monkeypatch.setattr(world.wire, "list", too_many)
        for seconds in (0.0, DRAIN_LIFE.total_seconds()):
            world.clock.advance(seconds)
            with pytest.raises(HaneulError):
                await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_tenant_who_begins_the_drain_again_and_again_gains_no_time(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        await revoke(world, way)
        until = world.clock.now() + DRAIN_LIFE
        while world.clock.now() < until + timedelta(minutes=1):
            world.clock.advance(60)
            mark = {"metadata": {"annotations": {CHANGING: world.clock.now().isoformat()}}}
            await world.tenant.patch(NODES, "gated-0", mark)
            await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()


@pytest.mark.parametrize("seconds", [DRAIN_LIFE.total_seconds() / 2, DRAIN_LIFE.total_seconds() * 2])
async def test_a_way_stays_for_as_long_as_the_cluster_gives_pods_to_move(
    world: Gated, native: Cluster, seconds: float
) -> None:
    settings = native.spec.settings.model_copy(update={"drain_seconds": int(seconds)})
    like = gated(native.model_copy(update={"spec": native.spec.model_copy(update={"settings": settings})}))
    async with approved(world, like) as (controller, way):
        await revoke(world, way)
        await controller.reconcile(await world.cluster(like))
        world.clock.advance(seconds - 1)
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}, "its pods still move"
        world.clock.advance(1)
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_pool_that_is_gone_keeps_no_way_by_pods_that_do_not_move(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        await world.ask(with_pools(native, NodePool(name="open", count=1)))
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}, "its pods still move"
        world.clock.advance(DRAIN_LIFE.total_seconds())
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_pool_that_names_its_resource_no_more_has_no_way_to_it(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        await world.ask(with_pools(native, NodePool(name="open", count=1), NodePool(name="gated", count=1)))
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()
        # Named again, it is where it was: the approval is of exactly this, if it did not lapse meanwhile.
        await revoke(world, way)
        await world.ask(like)
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_spec_that_nobody_can_read_has_no_way(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        broken = {"spec": {"nodePools": [{"name": "gated", "count": "many"}]}}
        await world.management.patch(CLUSTERS, like.name, broken, project_namespace(like.project))
        assert (await world.cluster(like)).spec_problem
        await controller.reconcile(await world.cluster(like))
        assert await world.firewall.opened(way.uid) == frozenset()


async def test_a_node_that_only_says_it_has_joined_gets_nothing_by_it(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        # The tenant is its cluster's administrator, and writes the Node object by itself.
        await world.tenant.apply(NODES, {"metadata": {"name": "gated-0"}})
        await world.tenant.patch(NODES, "gated-0", {"status": READY}, subresource="status")
        uid = (await world.cluster(like)).uid
        for _ in range(3):
            await controller.reconcile(await world.cluster(like))
            assert await world.firewall.opened(uid) == frozenset()
        assert not await world.has_certificate(like)


async def test_asking_again_and_again_for_a_certificate_changes_nothing(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        cluster = await world.cluster(like)
        for attempt in range(5):
            await world.request(cluster, "gated-0", f"again-{attempt}")
            await controller.reconcile(cluster)
        # An operator that starts anew sees them all for the first time.
        async with world.controller() as another:
            for _ in range(3):
                await another.reconcile(await world.cluster(like))
        signed = [
            request["metadata"]["name"]
            for request in await world.tenant.list(CERTIFICATE_REQUESTS)
            if request.get("status", {}).get("certificate")
        ]
        assert [name.rpartition("-instance")[0] for name in signed] == ["csr-open-0"]


async def test_a_node_whose_approval_was_taken_back_gets_no_other_certificate(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (controller, way):
        await revoke(world, way)
        await world.request(await world.cluster(like), "gated-0", "renewal")
        await controller.reconcile(await world.cluster(like))
        assert not await world.certificate("gated-0", "renewal")


async def test_new_authorities_do_not_wait_for_a_node_that_nobody_let_in(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with world.running(like) as controller:
        asked = like.spec.model_copy(update={"authorities": AuthoritiesRequest(revision=1)})
        await world.ask(like.model_copy(update={"spec": asked}))
        for _ in range(40):
            status = await world.look(controller, like)
        current = next(entry for entry in status.conditions if entry.type is ConditionType.AUTHORITIES_CURRENT)
        assert (current.status, current.reason) == ("True", OLD_TRUSTED), current.message
        assert not await world.has_certificate(like)


async def test_a_cluster_whose_machines_sleep_has_no_way(world: Gated, native: Cluster) -> None:
    like = gated(native)
    async with approved(world, like) as (_, way):
        cluster = await world.cluster(like)

        async def read(_: Cluster) -> Cluster | None:
            return cluster

        gate = FirewallJoinGate(Gatekeeper(world.approvals, world.firewall))
        keeping = GateKeeping(gate, read=read, observe=world.nodes.observe, clock=world.clock)
        plan = plan_nodes(cluster, (), ())
        assert await keeping.look(cluster, plan, await world.nodes.observe(cluster), None) == {}
        assert await world.firewall.opened(way.uid) == {rule_of(way).key}
        # Their addresses may be somebody else's by now.
        assert set(await keeping.look(cluster, plan, (), None)) == {"gated-0"}
        assert await world.firewall.opened(way.uid) == frozenset()


def test_a_machine_s_address_cannot_be_written_over() -> None:
    definition = machine_resource_definition()
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert spec["address"]["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
