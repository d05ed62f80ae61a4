"""Changing a cluster's nodes through its controller: one by one, emptied first, and gone on with after any end.

The tenant's API here has kubelets that say that they live, a workload of three replicas that is made again on a node
that takes pods, and somebody who counts what its disruption budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from haneul.dkos.control_plane import Images
from haneul.dkos.draining import CHANGING, CORDONED
from haneul.dkos.model import Cluster, ClusterStatus, Phase
from haneul.dkos.node_changes import DRAIN_LIFE
from haneul.dkos.states import waits_on
from haneul.kernel.clock import VirtualClock
from haneul.kernel.kube import DEPLOYMENTS, LEASES, NODES, POD_DISRUPTION_BUDGETS, PODS, STATEFUL_SETS, Manifest
from tests.unit.dkos.test_controller import World

BUDGET = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": "web"}}}}
REPLICAS = 3
#: How long a new machine's kubelet is silent, while its Node object still says what the one before it said.
BOOT = timedelta(seconds=3)


@dataclass
class Tenancy(World):
    """The world with a workload in it, and what was seen of it at every move."""

    #: A machine that is made while the cluster asks for so many pods on a node never becomes ready.
    bad_pods: int = 99
    bad: set[str] = field(default_factory=set)
    #: How many replicas have to be there for one to be evicted.
    least: int = 2
    masters_run: bool = False
    machines: dict[str, str] = field(default_factory=dict)
    fewest: int = REPLICAS
    most_closed: int = 0
    most_away: int = 0
    messages: list[str] = field(default_factory=list)

    async def move(self, cluster: Cluster) -> None:
        """Let masters start, machines join, replicas come back; take note of what is answering."""
        self.clock.advance(1)
        away: list[str] = []
        for resource in () if self.masters_run else (DEPLOYMENTS, STATEFUL_SETS):
            for program in await self.management.list(resource, cluster.masters_namespace):
                await self._start(program)
        for machine in await self.nodes.observe(cluster):
            if self.machines.get(machine.name, machine.instance) != machine.instance:
                for pod in await self.pods(machine.name):
                    await self.tenant.delete(PODS, pod["metadata"]["name"], "default")
            new = self.machines.get(machine.name) != machine.instance
            if new and cluster.spec.settings.max_pods_per_node == self.bad_pods:
                self.bad.add(machine.instance)
            self.machines[machine.name] = machine.instance
            assert machine.started is not None
            if self.clock.now() - machine.started < BOOT:
                away.append(machine.name)
            else:
                await self._live(machine.name, works=machine.instance not in self.bad)
        self.most_away = max(self.most_away, len(away))
        await self._replicas()

    async def _live(self, name: str, *, works: bool) -> None:
        now = self.clock.now()
        if await self.tenant.get(NODES, name) is None:
            await self.tenant.apply(NODES, {"metadata": {"name": name}})
        ready = {"type": "Ready", "status": "True" if works else "False", "message": "" if works else "no network"}
        ready["lastHeartbeatTime"] = now.isoformat()
        await self.tenant.patch(NODES, name, {"status": {"conditions": [ready]}}, subresource="status")
        lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}}
        await self.tenant.apply(LEASES, {**lease, "spec": {"renewTime": (now + timedelta(seconds=1)).isoformat()}})

    async def _replicas(self) -> None:
        nodes = {node["metadata"]["name"]: node for node in await self.tenant.list(NODES)}
        closed = [name for name, node in nodes.items() if node.get("spec", {}).get("unschedulable")]
        self.most_closed = max(self.most_closed, len(closed))
        pods = await self.tenant.list(PODS, "default", labels="app=web")
        self.fewest = min(self.fewest, len(pods))
        taken = {pod["metadata"]["name"] for pod in pods}
        counted = {name: len([pod for pod in pods if pod["spec"]["nodeName"] == name]) for name in nodes}
        for name in (f"web-{number}" for number in range(REPLICAS)):
            places = [node for node in nodes if node not in closed]
            if name not in taken and places:
                place = min(places, key=lambda node: counted[node])
                counted[place] += 1
                await self.tenant.apply(PODS, pod_on(place, name, app="web"))
        running = len(await self.tenant.list(PODS, "default", labels="app=web"))
        await self.tenant.apply(POD_DISRUPTION_BUDGETS, BUDGET)
        allowed = {"status": {"disruptionsAllowed": max(0, running - self.least)}}
        await self.tenant.patch(POD_DISRUPTION_BUDGETS, "web", allowed, "default", subresource="status")

    async def pods(self, node: str) -> list[Manifest]:
        return await self.tenant.list(PODS, "default", fields=f"spec.nodeName={node}")

    async def instances(self, like: Cluster) -> dict[str, str]:
        return {machine.name: machine.instance for machine in await self.nodes.observe(await self.cluster(like))}

    async def change(self, like: Cluster, **settings: Any) -> None:
        """Ask for other settings of the cluster."""
        await self.ask(changed(like, **settings))

    async def ready(self, like: Cluster) -> None:
        """Bring the cluster and its workload up, and begin to take note."""
        await self.ask(like)
        async with self.controller() as controller:
            assert (await self.settle(controller, like, 6)).phase is Phase.READY
        self.masters_run, self.fewest, self.most_closed, self.most_away = True, REPLICAS, 0, 0

    async def looks(self, like: Cluster, most: int) -> ClusterStatus:
        """Let one controller look until the cluster is ready, or so many times; return what it said last."""
        status = ClusterStatus()
        async with self.controller() as controller:
            for _ in range(most):
                status = await controller.reconcile(await self.cluster(like))
                self.messages.append(waits_on(status))
                if status.phase is Phase.READY:
                    break
                await self.move(await self.cluster(like))
        return status

    async def marks(self) -> dict[str, dict[str, str]]:
        return {
            node["metadata"]["name"]: node["metadata"].get("annotations", {})
            for node in await self.tenant.list(NODES)
            if node["metadata"].get("annotations") or node.get("spec", {}).get("unschedulable")
        }


def changed(like: Cluster, **settings: Any) -> Cluster:
    other = like.spec.settings.model_copy(update=settings)
    return like.model_copy(update={"spec": like.spec.model_copy(update={"settings": other})})


def pod_on(node: str, name: str, **labels: str) -> Manifest:
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": {"nodeName": node}}


@pytest.fixture
async def world(images: Images, native: Cluster) -> Tenancy:
    tenancy = Tenancy(images, VirtualClock(native.created))
    await tenancy.ready(native)
    return tenancy


async def test_a_change_replaces_all_nodes_one_by_one_and_the_workload_answers(world: Tenancy, native: Cluster) -> None:
    before = await world.instances(native)
    await world.change(native, max_pods_per_node=50)
    status = await world.looks(native, 60)
    after = await world.instances(native)
    assert status.phase is Phase.READY
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())
    assert (world.most_closed, world.most_away, world.fewest) == (1, 1, 2)
    assert await world.marks() == {}
    for done in range(3):
        assert any(f"{done} of 3 done" in message for message in world.messages)
    assert any("changing node big-0 (" in message for message in world.messages)


async def test_while_nodes_are_changed_the_cluster_is_updating_from_the_first_look(
    world: Tenancy, native: Cluster
) -> None:
    await world.change(native, max_pods_per_node=50)
    status = await world.looks(native, 1)
    assert status.phase is Phase.UPDATING
    assert [entry.reason for entry in status.conditions if entry.status != "True"] == ["NodesChanging"]


async def test_another_size_of_one_pool_leaves_the_other_alone(world: Tenancy, native: Cluster) -> None:
    before = await world.instances(native)
    pools = tuple(pool.model_copy(update={"cpu": 1.5}) for pool in native.spec.node_pools if pool.name == "default")
    pools += tuple(pool for pool in native.spec.node_pools if pool.name != "default")
    await world.ask(native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})}))
    assert (await world.looks(native, 60)).phase is Phase.READY
    after = await world.instances(native)
    assert {name for name in after if after[name] == before[name]} == {"big-0"}


async def test_bad_change_stops_at_the_first_node_and_its_mend_goes_through(world: Tenancy, native: Cluster) -> None:
    before = await world.instances(native)
    await world.change(native, max_pods_per_node=world.bad_pods)
    status = await world.looks(native, 30)
    after = await world.instances(native)
    (broken,) = (name for name in after if after[name] != before[name])
    assert waits_on(status) == f"changing node {broken} (no network); 0 of 3 done"
    assert set(await world.marks()) == {broken}
    await world.change(native, max_pods_per_node=60)
    async with world.controller() as controller:
        for _ in range(3):
            await controller.reconcile(await world.cluster(native))
        mended = await world.instances(native)
        assert [name for name in mended if mended[name] != after[name]] == [broken]
    assert (await world.looks(native, 60)).phase is Phase.READY
    assert await world.marks() == {}


async def test_new_nodes_come_at_once_while_a_change_hangs(world: Tenancy, native: Cluster) -> None:
    world.least = REPLICAS
    await world.move(await world.cluster(native))
    await world.change(native, max_pods_per_node=50)
    await world.looks(native, 5)
    before = await world.instances(native)
    pools = tuple(pool.model_copy(update={"count": pool.count + 1}) for pool in native.spec.node_pools)
    more = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})})
    await world.change(more, max_pods_per_node=50)
    await world.looks(native, 1)
    after = await world.instances(native)
    assert after.keys() - before.keys() == {"big-1", "default-2"}
    assert {name: after[name] for name in before} == before


async def test_pods_that_may_not_move_end_at_the_deadline_and_it_is_said(world: Tenancy, native: Cluster) -> None:
    world.least = REPLICAS
    await world.move(await world.cluster(native))
    before = await world.instances(native)
    await world.change(native, max_pods_per_node=50)
    looks = int(DRAIN_LIFE.total_seconds()) - 5
    await world.looks(native, looks)
    assert await world.instances(native) == before
    assert "changing node big-0 (1 pods are still to move); 0 of 3 done" in world.messages
    await world.looks(native, 10)
    after = await world.instances(native)
    assert [name for name in after if after[name] != before[name]] == ["big-0"]
    assert any("1 pods had not moved in time" in message for message in world.messages)


async def test_daemon_sets_and_mirror_pods_and_what_has_ended_stay(world: Tenancy, native: Cluster) -> None:
    daemon = pod_on("big-0", "agent")
    daemon["metadata"]["ownerReferences"] = [{"kind": "DaemonSet", "name": "agent", "controller": True, "uid": "1"}]
    mirror = pod_on("big-0", "static")
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    for pod in (daemon, mirror, pod_on("big-0", "ended")):
        await world.tenant.apply(PODS, pod)
    await world.tenant.patch(PODS, "ended", {"status": {"phase": "Succeeded"}}, "default", subresource="status")
    await world.change(native, max_pods_per_node=50)
    before = await world.instances(native)
    async with world.controller() as controller:
        for _ in range(20):
            await controller.reconcile(await world.cluster(native))
            if (await world.instances(native))["big-0"] != before["big-0"]:
                break
            await world.move(await world.cluster(native))
    assert {pod["metadata"]["name"] for pod in await world.pods("big-0")} == {"agent", "static", "ended"}


async def test_a_person_s_own_cordon_stays(world: Tenancy, native: Cluster) -> None:
    await world.tenant.patch(NODES, "default-0", {"spec": {"unschedulable": True}})
    await world.change(native, max_pods_per_node=50)
    assert (await world.looks(native, 60)).phase is Phase.READY
    assert await world.marks() == {"default-0": {}}


async def test_scaling_down_moves_pods_first_and_takes_the_time_that_their_budget_asks_for(
    world: Tenancy, native: Cluster
) -> None:
    pools = tuple(pool.model_copy(update={"count": 1}) for pool in native.spec.node_pools if pool.name == "default")
    await world.ask(native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})}))
    status = await world.looks(native, 1)
    assert "removing node big-0" in waits_on(status) and "default-1" in waits_on(status)
    assert set(await world.marks()) == {"big-0", "default-1"}
    assert (await world.looks(native, 60)).phase is Phase.READY
    assert set(await world.instances(native)) == {"default-0"}
    assert [node["metadata"]["name"] for node in await world.tenant.list(NODES)] == ["default-0"]
    assert world.fewest == 2


async def test_scaling_down_goes_on_after_the_deadline(world: Tenancy, native: Cluster) -> None:
    world.least = REPLICAS
    await world.move(await world.cluster(native))
    pools = tuple(pool for pool in native.spec.node_pools if pool.name == "default")
    await world.ask(native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})}))
    await world.looks(native, int(DRAIN_LIFE.total_seconds()) - 5)
    assert "big-0" in await world.instances(native)
    assert (await world.looks(native, 10)).phase is Phase.READY
    assert "big-0" not in await world.instances(native)


async def test_mark_that_is_no_moment_holds_nothing_up(world: Tenancy, native: Cluster) -> None:
    patch = {"metadata": {"annotations": {CHANGING: "soon", CORDONED: "true"}}, "spec": {"unschedulable": True}}
    await world.tenant.patch(NODES, "default-1", patch)
    assert (await world.looks(native, 3)).phase is Phase.READY
    assert await world.marks() == {}


async def test_operator_that_ends_at_any_call_of_a_change_is_continued(images: Images, native: Cluster) -> None:
    pools = tuple(pool for pool in native.spec.node_pools if pool.name == "default")
    two = native.model_copy(update={"spec": native.spec.model_copy(update={"node_pools": pools})})
    begin = Tenancy(images, VirtualClock(two.created))
    await begin.ready(two)
    before = await begin.instances(two)
    await begin.change(two, max_pods_per_node=50)

    async def then(world: Tenancy, number: int) -> None:
        status = await world.looks(two, 60)
        after = await world.instances(two)
        assert status.phase is Phase.READY, f"ended at call {number}: {waits_on(status)}"
        assert not set(after.values()) & set(before.values()), f"ended at call {number}"
        assert await world.marks() == {}
        assert (world.most_closed, world.most_away, world.fewest) == (1, 1, 2), f"ended at call {number}"

    assert await begin.ended(begin.looks(two, 60), then) > 40


async def test_silent_api_of_the_cluster_holds_the_change(world: Tenancy, native: Cluster) -> None:
    before = await world.instances(native)
    await world.change(native, max_pods_per_node=50)
    world.wire.cut = True
    assert (await world.looks(native, 3)).phase is not Phase.READY
    assert await world.instances(native) == before
    world.wire.cut = False
    assert (await world.looks(native, 60)).phase is Phase.READY
